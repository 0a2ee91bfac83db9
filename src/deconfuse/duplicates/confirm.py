"""Which of the proposed pairs are copies: their small pictures are laid over each other and compared."""

import math
from dataclasses import fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.compute.placement import exact
from deconfuse.duplicates import registration
from deconfuse.duplicates.proposals import Pairs
from deconfuse.duplicates.sketches import SIDE, Sketches
from deconfuse.system.progress import track

# (side of the pictures, Gauss-Newton steps, least correlation to go on with); measured: docs/duplicates.md.
LEVELS = (16, 0, 0.86), (32, 1, 0.88), (32, 2, 0.94), (64, 0, 0.95), (64, 2, 0.98)
FIELD = 0.2  # most that one field of the pictures may differ, as a share of their variance
COLOUR = 0.5  # most that their colours may differ, as a share of what they are
GROUND = 0.5  # share of the commonest grey in a picture from which on it counts as a drawing
DRAWN = 0.2  # of the differences that copies of drawings may have
AT_ONCE = 256  # pairs compared at once: some 60 MB


@exact()
def likeness(pairs: Pairs, sketches: Sketches, device: torch.device) -> Float[np.ndarray, " p"]:
    """The correlation of each pair's pixels as they lie over each other, in [-1, 1]; 0: no copies.

    Copies pass LEVELS from coarse to fine, and differ by at most FIELD in each field and by COLOUR in their
    colours. Where one of them is mostly ground, as drawings are, 1 - correlation and the difference in a
    field may only be DRAWN of that: two letters can be laid over each other by moving one of them.
    """
    found = torch.zeros(len(pairs.a))
    starts = range(0, len(pairs.a), AT_ONCE)
    for start in track(starts, "comparing pixels", math.ceil(len(pairs.a) / AT_ONCE)):
        some = slice(start, start + AT_ONCE)
        found[some] = _part(
            Pairs(*(getattr(pairs, one.name)[some] for one in fields(Pairs))), sketches, device
        )
    return found.numpy()


def _part(pairs: Pairs, sketches: Sketches, device: torch.device) -> Float[Tensor, " p"]:
    """`likeness` of pairs that are compared at once."""
    rows = [each.cpu().numpy() for each in (pairs.a, pairs.b)]
    one, other = (_pictures(sketches.grey[each], device) for each in rows)
    flip, place = pairs.flip.to(device), pairs.place.clone().to(device)
    one[flip] = one[flip].flip(-1)
    drawn = torch.from_numpy(np.maximum(*(sketches.flat[each] for each in rows)) > GROUND).to(device)
    strict, alike = torch.where(drawn, DRAWN, 1.0), torch.ones(len(one), device=device)
    for side, steps, least in LEVELS:
        live = (alike > 0).nonzero()[:, 0]
        if not len(live):
            return alike.cpu()
        a, b = (registration.reduced(each[live], side) for each in (one, other))
        place[live], alike[live] = registration.improve(a, b, place[live], steps)
        alike[alike < 1 - (1 - least) * strict] = 0
    live = (alike > 0).nonzero()[:, 0]
    if not len(live):
        return alike.cpu()
    a, b = (registration.reduced(each[live], SIDE) for each in (one, other))
    same = registration.worst_field(a, b, place[live]) <= FIELD * strict[live]
    a, b = (_pictures(sketches.colour[each[live.cpu().numpy()]], device) for each in rows)
    a[flip[live]] = a[flip[live]].flip(-2)
    same &= registration.colour_difference(a.movedim(-1, 1), b.movedim(-1, 1), place[live]) <= COLOUR
    alike[live[~same]] = 0
    return alike.cpu()


def _pictures(kept: Int[np.ndarray, "p ..."], device: torch.device) -> Tensor:
    return torch.from_numpy(kept).to(device).float()
