"""Who is taken for whom: confusion pairs, groups of them, mis-similar pairs, and the distance d."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from deconfuse.retrieval.coordinates import pair_distances
from deconfuse.retrieval.metrics import Answers, answer
from deconfuse.retrieval.neighbours import farthest
from deconfuse.retrieval.queries import Queries


@dataclass(frozen=True)
class Pairs:
    """p pairs of a query and a gallery sample; on the CPU, wherever they were searched.

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


def find(test: Queries) -> Pairs:
    """Confusion pairs (Definition 2.1), closest first, ties by query.

    They are the queries whose nearest gallery sample, by the distance of normalised z, has another class. A
    query whose class the gallery lacks is none, as no model could get it right.
    """
    return _pairs(test, answer(test, ranks=(1,), unit=True, whole=False))


def retrieve(test: Queries, ranks: tuple[int, ...]) -> tuple[Pairs, dict[str, float]]:
    """(confusion pairs, R@k and MAP@R) of one search:  confusions = (1 - R@1) * queries that count."""
    answers = answer(test, ranks=ranks, unit=True)
    return _pairs(test, answers), answers.found


def _pairs(test: Queries, answers: Answers) -> Pairs:
    wrong = (answers.relevant > 0) & (test.query_labels != test.gallery_labels[answers.first.clamp_min(0)])
    rows = torch.nonzero(wrong)[:, 0]
    others = answers.first[rows]
    distance = pair_distances(test.query, test.gallery, rows, others)
    order = torch.argsort(distance, stable=True)
    return _listed(rows[order], others[order], distance[order].to(test.query.dtype))


def mis_similar(test: Queries) -> Pairs:
    """Each query with the farthest gallery sample of its own class (Section 5), ties by gallery row.

    Farthest first, ties by query. Where query and gallery are the same rows, a pair that both its samples
    name is listed once, under the smaller row. A query that has no other gallery sample of its class has no
    pair.
    """
    query, gallery = test.query, test.gallery
    itself = torch.arange(len(query), device=query.device) if test.same else test.twins
    order = torch.argsort(test.gallery_labels, stable=True)
    labels, sizes = torch.unique_consecutive(test.gallery_labels[order], return_counts=True)
    far = torch.full_like(test.query_labels, -1)
    for label, members in zip(labels.tolist(), order.split(sizes.tolist()), strict=True):
        mine = torch.nonzero(test.query_labels == label)[:, 0]
        if len(mine):
            own = torch.full_like(mine, -1) if itself is None else _place(itself[mine], members)
            index = farthest(query[mine], gallery[members], own)
            far[mine] = torch.where(index >= 0, members[index], -1)
    rows = torch.nonzero(far >= 0)[:, 0]
    if test.same:
        mutual = far[far[rows]] == rows
        rows = rows[~mutual | (rows < far[rows])]
    distance = pair_distances(query, gallery, rows, far[rows])
    rank = torch.argsort(distance, descending=True, stable=True)
    return _listed(rows[rank], far[rows][rank], distance[rank].to(query.dtype))


def _listed(query: Tensor, neighbour: Tensor, distance: Tensor) -> Pairs:
    return Pairs(query.cpu(), neighbour.cpu(), distance.cpu())


def _place(rows: Int[Tensor, " q"], members: Int[Tensor, " s"]) -> Int[Tensor, " q"]:
    """Where each row is in members, which ascend; -1 where it is not."""
    place = torch.searchsorted(members, rows).clamp_max(len(members) - 1)
    return torch.where(members[place] == rows, place, -1)


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
    classes = query_labels.cpu()[confusions.query]
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
