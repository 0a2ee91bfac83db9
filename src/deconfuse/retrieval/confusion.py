"""Who is taken for whom: confusion pairs, groups of them, mis-similar pairs, and the distance d."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.retrieval.directions import unit
from deconfuse.retrieval.metrics import Answers, answer
from deconfuse.retrieval.neighbours import pair_distances


@dataclass(frozen=True)
class Pairs:
    """p pairs of a query and a gallery sample.

    query (p,) and neighbour (p,): rows of query and gallery; distance (p,): d in [0, 4].
    """

    query: Int[Tensor, " p"]
    neighbour: Int[Tensor, " p"]
    distance: Float[Tensor, " p"]

    def __len__(self) -> int:
        return len(self.query)

    @property
    def pairs(self) -> Int[Tensor, "p 2"]:
        """(query row, gallery row)."""
        return torch.stack([self.query, self.neighbour], 1)


def find(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    query_labels: Int[Tensor, " q"],
    gallery_labels: Int[Tensor, " g"],
    *,
    same: bool,
) -> Pairs:
    """Confusion pairs (Definition 2.1), closest first, ties by query.

    They are the queries whose nearest gallery sample, by the distance of normalised z, has another class; a
    query whose class the gallery lacks is none, as no model could get it right.
    """
    sides = query, gallery, query_labels, gallery_labels
    return _pairs(*sides, answer(*sides, same=same, ranks=(1,), unit=True, whole=False))


def retrieve(test: "Queries", ranks: tuple[int, ...]) -> tuple[Pairs, dict[str, float]]:
    """(confusion pairs, R@k and MAP@R) of one search:  confusions = (1 - R@1) * queries that count."""
    answers = answer(*test.parts, same=test.same, ranks=ranks, unit=True, twins=test.twins)
    return _pairs(*test.parts, answers), answers.found


def _pairs(
    query: Tensor, gallery: Tensor, query_labels: Tensor, gallery_labels: Tensor, told: Answers
) -> Pairs:
    wrong = torch.nonzero((told.relevant > 0) & (query_labels != gallery_labels[told.first.clamp_min(0)]))[
        :, 0
    ]
    index = told.first[wrong]
    distance = pair_distances(query, gallery, wrong, index)
    order = torch.argsort(distance, stable=True)
    return Pairs(wrong[order], index[order], distance[order].to(query.dtype))


def mis_similar(
    query: Float[Tensor, "q m"],
    gallery: Float[Tensor, "g m"],
    query_labels: Int[Tensor, " q"],
    gallery_labels: Int[Tensor, " g"],
    *,
    same: bool,
) -> Pairs:
    """Each query with the farthest gallery sample of its own class (Section 5).

    Farthest first, ties by query. same: query and gallery are the same rows; a pair that both its samples
    name is told once.
    """
    dtype = query.dtype
    query, gallery = unit(query, torch.float64), unit(gallery, torch.float64)
    order = torch.argsort(gallery_labels, stable=True)
    labels, sizes = torch.unique_consecutive(gallery_labels[order], return_counts=True)
    rows, far, distance = [], [], []
    for label, members in zip(labels.tolist(), order.split(sizes.tolist()), strict=True):
        mine = torch.nonzero(query_labels == label)[:, 0]
        if not len(mine):
            continue
        other = members[(query[mine] @ gallery[members].T).argmin(1)]
        rows, far = [*rows, mine], [*far, other]
        distance.append((query[mine] - gallery[other]).square().sum(1))
    if not rows:
        none = torch.empty(0, dtype=torch.int64)
        return Pairs(none, none, query.new_empty(0, dtype=dtype))
    a, b, d = torch.cat(rows), torch.cat(far), torch.cat(distance)
    if same:
        real = a != b  # a class of one sample has no pair
        a, b, d = a[real], b[real], d[real]
        named = set(zip(a.tolist(), b.tolist(), strict=True))
        once = [x < y or (y, x) not in named for x, y in zip(a.tolist(), b.tolist(), strict=True)]
        keep = torch.tensor(once, dtype=torch.bool)
        a, b, d = a[keep], b[keep], d[keep]
    by_query = torch.argsort(a, stable=True)
    a, b, d = a[by_query], b[by_query], d[by_query]
    order = torch.argsort(d, descending=True, stable=True)
    return Pairs(a[order], b[order], d[order].to(dtype))


@dataclass(frozen=True)
class Queries:
    """The test side: embeddings as they are, labels, and whether query and gallery are the same rows.

    twins (q,): the gallery row that is the same sample as each query, -1 where none; None: nobody has one.
    """

    query: Float[Tensor, "q m"]
    gallery: Float[Tensor, "g m"]
    query_labels: Int[Tensor, " q"]
    gallery_labels: Int[Tensor, " g"]
    same: bool
    twins: Int[Tensor, " q"] | None = None

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embeddings and labels, as `find` and the metrics take them."""
        return self.query, self.gallery, self.query_labels, self.gallery_labels


@dataclass(frozen=True)
class Explained:
    """What a run explains: groups of (query row, gallery row), a single pair being a group of one.

    sign: +1 where harm is a pair that comes closer (confusions), -1 where it is one that moves apart
    (mis-similar pairs). table: the file whose rows the groups are, in order; pairs: as that file lists them.
    """

    groups: tuple[Int[Tensor, "_ 2"], ...]
    sign: float
    table: str
    pairs: Pairs


def groups(confusions: Pairs, query_labels: Int[Tensor, " q"]) -> list[tuple[int, Int[Tensor, " s"]]]:
    """(test class, its confusions' rows) for each class with a confusion; largest first, ties by class."""
    classes = query_labels[confusions.query]
    members = [(c, torch.nonzero(classes == c)[:, 0]) for c in classes.unique().tolist()]
    return sorted(members, key=lambda group: (-len(group[1]), group[0]))


def distance(a: Float[Tensor, "*b m"], b: Float[Tensor, "*b m"]) -> Float[Tensor, "*b"]:
    """d = ||a/||a|| - b/||b|| ||^2, in [0, 4]."""
    return (_unit(a) - _unit(b)).square().sum(-1)


def _unit(z: Float[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """z/||z|| where its square is a number of z's type; a z of zeros stays one."""
    return F.normalize(z, dim=-1, eps=torch.finfo(z.dtype).tiny)


def distance_gradient(
    a: Float[Tensor, "*b m"], b: Float[Tensor, "*b m"]
) -> tuple[Float[Tensor, "*b m"], Float[Tensor, "*b m"]]:
    """(dd/da, dd/db) of `distance`:  dd/da = -2/||a|| (e_b - (e_a . e_b) e_a),  and mirrored."""
    e_a, e_b = _unit(a), _unit(b)
    cosine = (e_a * e_b).sum(-1, keepdim=True)
    return (
        -2 * (e_b - cosine * e_a) / a.norm(dim=-1, keepdim=True),
        -2 * (e_a - cosine * e_b) / b.norm(dim=-1, keepdim=True),
    )


def mean_distance(z: Float[Tensor, "b r m"], share: Float[Tensor, "b q"]) -> Float[Tensor, " b"]:
    """d of groups: z holds first the q = r/2 queries of each, then their neighbours; share weighs pairs."""
    return (share * distance(*z.chunk(2, dim=1))).sum(1)


def mean_distance_gradient(z: Float[Tensor, "b r m"], share: Float[Tensor, "b q"]) -> Float[Tensor, "b r m"]:
    """G = d(mean_distance)/dz; with the sides' features U (b, r, D), the gradient in W is G^T U."""
    return torch.cat(distance_gradient(*z.chunk(2, dim=1)), 1) * share.repeat(1, 2)[..., None]
