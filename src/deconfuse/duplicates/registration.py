"""Lay one picture over another one, and say how alike they are then."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SCALE, SHIFT = 0.125, 0.125  # how far the scale may be from 1, and the shift from 0, in half lengths
FAINT = 8.0  # of 255: colours that are hardly any
GREY = 1.0  # of 255: a deviation up to which a picture is of one grey
RIDGE = 1e-4  # of the mean of the diagonal, added to it: a picture may say nothing of a shift


def reduced(grey: Float[Tensor, "p s s"], side: int) -> Float[Tensor, "p t t"]:
    """The pictures at another side: means of squares of pixels, smoothed by [1 2 1] / 4 both ways.

    Without the smoothing, two samplings of fine detail at shifted pixels would differ.
    """
    return _smooth(F.avg_pool2d(grey[:, None], grey.shape[-1] // side)[:, 0])


def _smooth(pictures: Float[Tensor, "p s s"]) -> Float[Tensor, "p s s"]:
    wide = F.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4


def improve(
    one: Float[Tensor, "p s s"], other: Float[Tensor, "p s s"], place: Float[Tensor, "p 4"], steps: int
) -> tuple[Float[Tensor, "p 4"], Float[Tensor, " p"]]:
    """(place, correlation): the best of the place (sx, tx, sy, ty) and those after each Gauss-Newton step.

    one(x, y) = a other(sx x + tx, sy y + ty) + c with x, y in [-1, 1]. A step minimises the squared
    differences over the pixels whose place lies inside the other picture, for the best contrast a and
    brightness c (Evangelidis and Psarakis 2008 maximise the same).
    """
    x = middles(one)
    x, y = x[None, None, :], x[None, :, None]
    channels = torch.stack([other, *_slopes(other)], 1)
    best, most = place, torch.full_like(place[:, 0], -1)
    for step in range(steps + 1):
        sampled, inside = _sampled(channels, place)
        shown, along, down = sampled.unbind(1)
        columns = [one, shown, torch.ones_like(shown), along * x, along, down * y, down]
        columns = (torch.stack(columns, 1) * inside[:, None]).flatten(2)
        moments = columns @ columns.mT
        now = _correlation(moments)
        better = now > most
        best, most = torch.where(better[:, None], place, best), torch.where(better, now, most)
        if step < steps:
            place = _stepped(moments, place)
    return best, most


def _correlation(moments: Float[Tensor, "p 7 7"]) -> Float[Tensor, " p"]:
    """The correlation of the first two columns, of which the third one is the mask; 0 for one grey alone."""
    mean, pixels = moments[:, 2, :2] / moments[:, 2, 2:3], moments[:, 2, 2]
    spread = moments[:, :2, :2] / pixels[:, None, None] - mean[:, :, None] * mean[:, None, :]
    one, other = spread[:, 0, 0], spread[:, 1, 1]
    said = (one > GREY**2) & (other > GREY**2)
    return torch.where(said, spread[:, 0, 1] / (one * other).clamp_min(GREY**4).sqrt(), 0)


def _stepped(moments: Float[Tensor, "p 7 7"], place: Float[Tensor, "p 4"]) -> Float[Tensor, "p 4"]:
    """The place after one Gauss-Newton step, within SCALE and SHIFT."""
    square = moments[:, 1:, 1:].clone()
    diagonal = square.diagonal(dim1=1, dim2=2)
    diagonal.mul_(1 + RIDGE).add_(1e-6)
    found = torch.linalg.solve(square, moments[:, 1:, :1])[:, :, 0]
    contrast = found[:, :1]
    step = found[:, 2:] / torch.where(contrast > 0.1, contrast, torch.inf)
    middle = place.new_tensor([1.0, 0.0, 1.0, 0.0])
    reach = place.new_tensor([SCALE, SHIFT, SCALE, SHIFT])
    return middle + (place + step - middle).clamp(-reach, reach)


def middles(pictures: Float[Tensor, "p s s"]) -> Float[Tensor, " s"]:
    """The middles of the pixels along a side, in [-1, 1]."""
    side = pictures.shape[-1]
    return (torch.arange(side, device=pictures.device) * 2 + 1) / side - 1


def _slopes(pictures: Float[Tensor, "p s s"]) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, per half length."""
    wide = F.pad(pictures[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    unit = pictures.shape[-1] / 4
    return (wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2]) * unit, (wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]) * unit


def _sampled(
    channels: Float[Tensor, "p k s s"], place: Float[Tensor, "p 4"]
) -> tuple[Float[Tensor, "p k s s"], Float[Tensor, "p s s"]]:
    """(the pictures at the place, 1 where that is inside them and else 0)."""
    zero = torch.zeros_like(place[:, 0])
    theta = torch.stack([place[:, 0], zero, place[:, 1], zero, place[:, 2], place[:, 3]], 1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(channels), 1, *channels.shape[-2:]], align_corners=False)
    found = F.grid_sample(channels, grid, padding_mode="border", align_corners=False)
    reach = 1 + 0.5 / channels.shape[-1]
    return found, (grid.abs() <= reach).all(-1).to(channels.dtype)


def worst_field(
    one: Float[Tensor, "p s s"], other: Float[Tensor, "p s s"], place: Float[Tensor, "p 4"], fields: int = 4
) -> Float[Tensor, " p"]:
    """The mean squared difference in that one of fields x fields parts of the picture in which it is largest,
    as a share of the picture's variance; after the best contrast and brightness, over what both have."""
    shown, inside = _sampled(other[:, None], place)
    weight = inside.sum((1, 2), keepdim=True).clamp_min(1)
    a, b = (
        (each - (each * inside).sum((1, 2), keepdim=True) / weight) * inside for each in (one, shown[:, 0])
    )
    aa, bb, ab = ((u * v).sum((1, 2), keepdim=True) for u, v in ((a, a), (b, b), (a, b)))
    rest = (a - b * ab / bb.clamp_min(GREY)).square()
    fields = F.avg_pool2d(rest[:, None], one.shape[-1] // fields).flatten(1)
    return fields.amax(1) / (aa / weight)[:, 0, 0].clamp_min(GREY)


def colour_difference(
    one: Float[Tensor, "p 3 s s"], other: Float[Tensor, "p 3 s s"], place: Float[Tensor, "p 4"]
) -> Float[Tensor, " p"]:
    """How much colours, red and blue without their brightness, differ where the pictures overlap.

    ||a - b|| / (||a|| + ||b|| + FAINT sqrt(pixels)), in [0, 1]; 0 where one of the two has no colours.
    """
    shown, inside = _sampled(other, place)
    a, b = ((each[:, ::2] - each[:, 1:2]) * inside[:, None] for each in (one, shown))
    length = [each.square().sum((1, 2, 3)).sqrt() for each in (a, b)]
    faint = FAINT * inside.sum((1, 2)).sqrt()
    found = (a - b).square().sum((1, 2, 3)).sqrt() / (length[0] + length[1] + faint)
    return torch.where((length[0] > 0) & (length[1] > 0), found, 0)
