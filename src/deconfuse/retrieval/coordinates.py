"""The coordinates in which rows are compared, and how far off a product's distance may be in them.

|a - b|^2 = |a|^2 + |b|^2 - 2 a.b loses its digits where rows are close to each other and far from the origin.
So both sides are first moved to the gallery's median and scaled by a power of two, in float64.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 2**18  # numbers that are held in float64 at once
SAMPLE = 257  # gallery rows of which the median is taken
PARALLEL = 1e-29  # squared distance of unit rows below which they have one direction, to float64 rounding


@dataclass(frozen=True)
class Coordinates:
    """Where queries and gallery are compared.

    unit: rows are scaled to length one first. lengths: of the rows, (q, 1) and (g, 1) in float64, None
    without unit. centre (m,): the median of up to SAMPLE gallery rows, in float64. It is a median because one
    row that is far away moves a mean, and the lower one of two, a number that rows have, because differences
    from it are then exact. scale: a power of two, so that no square overflows or underflows.
    own (q,): the gallery row that is the query itself, -1 for none.
    """

    query: Float[Tensor, "q m"]
    gallery: Float[Tensor, "g m"]
    unit: bool
    lengths: tuple[Tensor | None, Tensor | None]
    centre: Float[Tensor, " m"]
    scale: float
    own: Int[Tensor, " q"]

    @classmethod
    def of(
        cls, query: Tensor, gallery: Tensor, unit: bool, same: bool, twins: Tensor | None
    ) -> "Coordinates":
        """Measure centre and scale, some rows at a time. Numbers that are not finite count as 0."""
        if not torch.isfinite(gallery.sum() + query.sum()):
            query, gallery = (side.nan_to_num(0.0, 0.0, 0.0) for side in (query, gallery))
        sides = (gallery,) if same else (gallery, query)
        lengths = [row_lengths(side) if unit else None for side in sides]
        sample = torch.arange(0, len(gallery), max(1, len(gallery) // SAMPLE), device=gallery.device)
        centre = double(gallery[sample], lengths[0][sample] if unit else None).median(0).values
        low, high = [], []
        for side, length in zip(sides, lengths, strict=True):
            for some in chunks(side):
                rows = double(side[some], None if length is None else length[some])
                low.append(rows.amin(0))
                high.append(rows.amax(0))
        ends = torch.stack(low).amin(0) - centre, torch.stack(high).amax(0) - centre
        widest = max(float(end.abs().max()) for end in ends)
        mantissa, _ = torch.frexp(torch.tensor(widest, dtype=torch.float64))
        scale = float(mantissa) / widest if widest else 1.0
        if same:
            own = torch.arange(len(query), device=query.device)
        else:
            own = (
                torch.full((len(query),), -1, device=query.device)
                if twins is None
                else twins.to(query.device)
            )
        return cls(query, gallery, unit, (lengths[-1], lengths[0]), centre, scale, own)

    def centred(
        self, side: int, rows: slice | Tensor, dtype: torch.dtype, extra: int = 0
    ) -> Float[Tensor, "n wide"]:
        """Rows of the queries (side 0) or the gallery (1), moved to the centre and scaled.

        extra: columns behind them whose values are left open.
        """
        given, length = (self.query, self.gallery)[side][rows], self.lengths[side]
        m = given.shape[1]
        result = torch.empty(len(given), m + extra, dtype=dtype, device=given.device)
        length = None if length is None else length[rows]
        for some in chunks(given):
            part = double(given[some], None if length is None else length[some])
            result[some, :m] = part.sub_(self.centre).mul_(self.scale)
        return result

    def distance(self, rows: Int[Tensor, " p"], others: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """|a - b|^2 of queries and gallery rows, in float64, by their differences and unscaled."""
        found = [self.centre.new_empty(0)]
        for some in chunks(rows, self.query.shape[1]):
            a, b = (
                double(side[index[some]], None if length is None else length[index[some]])
                for side, index, length in zip(
                    (self.query, self.gallery), (rows, others), self.lengths, strict=True
                )
            )
            found.append((a - b).square_().sum(1))
        squared = torch.cat(found)
        return squared.masked_fill_(squared < PARALLEL, 0) if self.unit else squared

    @cached_property
    def kinds(self) -> tuple[Int[Tensor, " g"], Int[Tensor, " u"]]:
        """(which of u different rows each gallery row is, one gallery row of each)."""
        rows = self.gallery / self.lengths[1] if self.unit else self.gallery
        _, kind = rows.unique(dim=0, return_inverse=True)
        one = torch.empty(int(kind.max()) + 1, dtype=torch.long, device=kind.device)
        one[kind] = torch.arange(len(kind), device=kind.device)
        return kind, one

    def distance_by_kind(self, rows: Int[Tensor, " p"], others: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
        """As `distance`, but once for a query and all copies of a gallery row."""
        kind, one = self.kinds
        pairs, place = (rows * len(one) + kind[others]).unique(return_inverse=True)
        return self.distance(pairs // len(one), one[pairs % len(one)])[place]


def row_lengths(rows: Float[Tensor, "n m"]) -> Float[Tensor, "n 1"]:
    """||row|| in float64; 1 for a row of zeros, which so stays one when it is divided."""
    found = [rows.new_ones(0, 1, dtype=torch.float64)]
    found += [rows[some].double().square().sum(1, keepdim=True).sqrt_() for some in chunks(rows)]
    length = torch.cat(found)
    return torch.where(length > 0, length, 1.0)


def chunks(rows: Tensor, wide: int = 0) -> Iterator[slice]:
    """The rows, as many at a time as have CHUNK numbers; wide: numbers in a row, by default its columns."""
    step = max(1, CHUNK // max(1, wide or rows.shape[1]))
    return (slice(start, start + step) for start in range(0, len(rows), step))


def double(rows: Tensor, length: Tensor | None) -> Tensor:
    """A copy in float64, divided by the rows' lengths unless these are None."""
    return rows.to(torch.float64, copy=True) if length is None else rows / length


def pair_distances(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    rows: Int[Tensor, " p"],
    others: Int[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """d of pairs of rows, each scaled to length one, in float64: right to float64's precision."""
    found = [query.new_empty(0, dtype=torch.float64)]
    for some in chunks(rows, query.shape[1]):
        a, b = (side[index[some]] for side, index in ((query, rows), (gallery, others)))
        a, b = (double(part, row_lengths(part)) for part in (a, b))
        found.append((a - b).square_().sum(1))
    return torch.cat(found)


def product_error(squared: Tensor, lengths: Tensor, m: int, dtype: torch.dtype) -> Tensor:
    """How far off |a|^2 + |b|^2 - 2 a.b may be, from d itself (t, k) and |a|^2 (t,).

    A sum of m products is off by some sqrt(m) roundings of |a|^2 + |b|^2, which is 3 |a|^2 + 2 d at most.
    """
    return rounding(m, dtype) * (3 * lengths[:, None] + 2 * squared)


def rounding(m: int, dtype: torch.dtype = torch.float64) -> float:
    """The share by which rounding may change a sum of m squares."""
    return torch.finfo(dtype).eps * (4 + m**0.5)
