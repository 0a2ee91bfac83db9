"""Does removing the blamed samples mend the confusion? Train from scratch without them, and look.

For each of some confusions P, the share of the training set that scores most harmful on P is left out (or
gets the label that the neighbours recommend), and head and proxies are trained from their start, with several
seeds (`retraining.from_scratch`). Each seed also trains with all samples kept. What is measured is

    d(P; without) - d(P; with all), seed by seed,   in units of sd, the root mean square over the confusions
    of the standard deviation of d(P; with all) over the seeds,

and whether the query is still confused: whether its nearest gallery sample is still of another class.
"""

import hashlib
import math
import time
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deconfuse.compute.placement import exact
from deconfuse.retraining import from_scratch
from deconfuse.retraining.from_scratch import Heads, Rows
from deconfuse.retrieval.confusion import Explained, distance
from deconfuse.retrieval.neighbours import nearest
from deconfuse.retrieval.queries import Queries
from deconfuse.retrieval.statistics import evenly
from deconfuse.system.arrays import read_arrays, write_arrays
from deconfuse.system.errors import UserError, count, one_of, within
from deconfuse.system.files import file_hash, short_hash
from deconfuse.system.lock import found_or_made, whole_at
from deconfuse.system.progress import console, track
from deconfuse.training.datamodule import DataModule
from deconfuse.training.embedder import Embedder

FORMAT = 1  # raised when the code measures something else with the same settings
CHUNK_BYTES = 512 * 2**20  # of heads trained at once
WHICH, TREATMENTS = ("closest", "spread"), ("leave_out", "relabel")


@dataclass(frozen=True)
class LeaveOut:
    """What is left out.

    confusions: how many are looked at, 0 for none; which: closest, or spread evenly over all that are
    explained, closest to farthest; shares: of the training set; treatment: leave_out, or relabel (as the
    neighbours recommend); seeds: how many trainings of each, the first with the run's own seed.
    """

    confusions: int
    which: str
    shares: tuple[float, ...]
    treatment: str
    seeds: int

    def __post_init__(self):
        count("leave_out.confusions", self.confusions, 0)
        one_of("leave_out.which", self.which, WHICH)
        one_of("leave_out.treatment", self.treatment, TREATMENTS)
        if not self.shares:
            raise UserError("leave_out.shares is empty; give a list such as leave_out.shares=[0.01,0.05]")
        for share in self.shares:
            within("leave_out.shares", share, 0, 0.5)
        count("leave_out.seeds", self.seeds, 2)


@dataclass(frozen=True)
class Left:
    """d and whether the query is confused, of p confusions, without each of S shares and with all, s seeds.

    rows (p,): of influence.npy; sizes (S,): how many samples each share is.
    """

    rows: Int[np.ndarray, " p"]
    shares: tuple[float, ...]
    sizes: tuple[int, ...]
    d: Float[np.ndarray, "p S s"]
    confused: Bool[np.ndarray, "p S s"]
    d_kept: Float[np.ndarray, "p s"]
    confused_kept: Bool[np.ndarray, "p s"]

    @cached_property
    def spread(self) -> float:
        """sd: the root mean square over confusions of the standard deviation of d over the seeds."""
        return float(np.sqrt(self.d_kept.var(1, ddof=1).mean()))


@dataclass(frozen=True)
class Material:
    """What is trained and what is looked at: the untrained model, its data, the training side, the test side.

    query and gallery: features; test: their labels and which rows are the same sample.
    """

    model: Embedder
    data: DataModule
    features: Float[Tensor, "n D"]
    query: Float[Tensor, "q D"]
    gallery: Float[Tensor, "g D"]
    test: Queries


def check(plan: LeaveOut, model: Embedder, params: str) -> None:
    """UserError where the model cannot be trained again in this way."""
    if not plan.confusions:
        return
    if params != "head":
        raise UserError(f"leave_out.confusions trains the head, but params={params}; take params=head")
    from_scratch.check(model)


def sets(
    plan: LeaveOut, scores: Float[Tensor, "p n"], allowed: Bool[Tensor, " n"]
) -> tuple[Bool[Tensor, "p S n"], tuple[int, ...]]:
    """(masks of the samples that score highest on each confusion, how many those of each share are).

    Ties by index. allowed: the samples that are trained with at all. At least one is taken, whatever its
    sign.
    """
    ranked = scores.double().masked_fill(~allowed, -math.inf)
    order = torch.argsort(ranked, dim=1, descending=True, stable=True)
    sizes = tuple(max(1, round(share * int(allowed.sum()))) for share in plan.shares)
    masks = torch.zeros(len(scores), len(sizes), scores.shape[1], dtype=torch.bool)
    for i, size in enumerate(sizes):
        masks[:, i].scatter_(1, order[:, :size], True)
    return masks, sizes


@exact()
def measure(
    plan: LeaveOut,
    sides: Material,
    explained: Explained,
    influence: Float[Tensor, "e n"],
    recommended: Int[Tensor, " n"],
    checkpoint: Path,
) -> Left | None:
    """Train without what each of the chosen confusions blames; None where it was not asked for.

    UserError where what is explained are no confusion pairs.
    """
    if not plan.confusions or not len(explained.groups):
        return None
    if explained.table != "confusions.csv":
        raise UserError("leave_out.confusions looks at confusion pairs; take target=pairs, or target=all")
    e, most = len(explained.groups), min(plan.confusions, len(explained.groups))
    rows = np.arange(most) if plan.which == "closest" else evenly(e - 1, most)
    pairs = torch.stack([explained.groups[i][0] for i in rows])
    allowed = torch.from_numpy(sides.data.drawn >= 0)
    masks, sizes = sets(plan, influence[rows], allowed)
    given = torch.from_numpy(sides.data.labels)
    chosen, shape = masks.flatten(0, 1), masks.shape[:2]
    changed = chosen if plan.treatment == "relabel" else torch.zeros_like(chosen)
    left = Rows(
        sides.features,
        torch.where(changed, recommended, given),
        allowed & ~(chosen if plan.treatment == "leave_out" else torch.zeros_like(chosen)),
    )
    everything = Rows(sides.features, given[None], allowed[None])
    kept = _of_seeds(plan, sides, everything, pairs[None], checkpoint)
    own = _of_seeds(plan, sides, left, pairs.repeat_interleave(shape[1], 0)[:, None], checkpoint)
    d, confused = (part.reshape(*shape, plan.seeds) for part in own)
    return Left(rows, tuple(plan.shares), sizes, d, confused, kept[0][0], kept[1][0])


def _of_seeds(
    plan: LeaveOut, sides: Material, rows: Rows, pairs: Int[Tensor, "g p 2"], checkpoint: Path
) -> tuple[Float[np.ndarray, "g p s"], Bool[np.ndarray, "g p s"]]:
    """(d, confused) of each head's p pairs after a training with each seed; found where it was measured.

    A seed's numbers lie in a file of their own beside the checkpoint, so a run that was stopped goes on with
    the next one.
    """
    found, took, start = [], [], _Starts(sides.model, rows)
    heads = len(rows.kept)
    key = [FORMAT, file_hash(checkpoint), *(_hash(x) for x in (rows.kept, rows.labels, pairs))]
    test = sides.test
    key += map(_hash, (sides.query, sides.gallery, test.query_labels, test.gallery_labels))
    if heads > 1:
        console.print(f"leave_out: {heads} trainings from scratch with each of {plan.seeds} seeds")
    for i in range(plan.seeds):
        path = checkpoint.with_suffix(f".leave_out-{short_hash([*key, i])}.npz")

        def find(path: Path = path) -> dict | None:
            return whole_at(path, read_arrays, "training without samples")

        def make(i: int = i, path: Path = path) -> dict:
            begun = time.perf_counter()
            d, confused = _trained(sides, start, rows, pairs, i)
            write_arrays(path, d=d, confused=confused)
            took.append(time.perf_counter() - begun)
            return {"d": d, "confused": confused}

        found.append(found_or_made(path, find, make))
        if heads > 1 and len(took) == 1 and i + 1 < plan.seeds:
            console.print(f"leave_out: {took[0] / 60:.1f} min a seed, {plan.seeds - i - 1} more at most")
    return tuple(np.stack([each[name] for each in found], 2) for name in ("d", "confused"))


class _Starts:
    """The whitened start of each head, computed when it is first needed; the same for all seeds."""

    def __init__(self, model: Embedder, rows: Rows):
        self.model, self.rows = model, rows

    @cached_property
    def whitened(self) -> list[tuple[Tensor, Tensor]] | None:
        return from_scratch.whitened(self.model, self.rows)


def _trained(
    sides: Material, start: _Starts, rows: Rows, pairs: Int[Tensor, "g p 2"], i: int
) -> tuple[Float[np.ndarray, "g p"], Bool[np.ndarray, "g p"]]:
    """(d, confused) with the i-th seed; heads are trained side by side, as many as fit into memory."""
    seed = sides.data.seed + i
    model = from_scratch.redrawn(sides.model, seed if i else None)
    draw, total = from_scratch.batches(sides.data, seed)
    size = chunk_size(model, sides.data.recipe.classes_per_batch * sides.data.recipe.per_class)
    d, confused = [], []
    for first in range(0, len(pairs), size):
        some = slice(first, min(first + size, len(pairs)))
        begun = None if start.whitened is None else start.whitened[some]
        heads = from_scratch.begin(model, rows.some(some), begun)
        what = f"seed {i + 1}: {some.stop} of {len(pairs)} heads"
        from_scratch.fit(model, heads, rows.some(some), track(draw(), what, total), total, seed)
        for one in looked(sides, heads, pairs[some]):
            d.append(one[0])
            confused.append(one[1])
    if not torch.isfinite(torch.stack(d)).all():
        raise UserError("leave_out: a head is not finite after its training; lower recipe.lr_head")
    return torch.stack(d).numpy(), torch.stack(confused).numpy()


def looked(sides: Material, heads: Heads, pairs: Int[Tensor, "g p 2"]) -> list[tuple[Tensor, Tensor]]:
    """(d, confused) of each head's own pairs (p,), by the nearest neighbour among the whole gallery."""
    found, test = [], sides.test
    for weight, bias, own in zip(heads.weight, heads.bias, pairs, strict=True):
        gallery = F.linear(sides.gallery, weight, bias)
        query = F.linear(sides.query[own[:, 0]], weight, bias)
        d = distance(query.double(), gallery[own[:, 1]].double())
        itself = own[:, 0] if test.same else None if test.twins is None else test.twins[own[:, 0]].cpu()
        _, index = nearest(query, gallery, 1, same=False, unit=True, twins=itself)
        wrong = test.gallery_labels.cpu()[index[:, 0]] != test.query_labels.cpu()[own[:, 0]]
        found.append((d, wrong))
    return found


def chunk_size(model: Embedder, batch: int, budget: int = CHUNK_BYTES) -> int:
    """How many heads are trained at once, such that weights, slopes and a batch's numbers fit."""
    m, features = model.head.weight.shape
    wide = len(model.loss.proxies)
    numbers = 6 * m * (features + wide) + 6 * batch * (m + wide)
    return max(1, budget // (4 * numbers))


def _hash(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.cpu().contiguous().numpy().tobytes()).hexdigest()


def tables(left: Left | None) -> dict[str, pd.DataFrame]:
    """left_out.csv: a row for each confusion, share and seed."""
    if left is None:
        return {}
    p, shares, seeds = left.d.shape
    each = [part.ravel() for part in np.meshgrid(*map(np.arange, (p, shares, seeds)), indexing="ij")]
    at, share, seed = each
    table = {
        "row": left.rows[at],
        "share": np.array(left.shares)[share],
        "left_out": np.array(left.sizes)[share],
        "seed": seed,
        "d_kept": left.d_kept[at, seed],
        "d": left.d.ravel(),
        "confused_kept": left.confused_kept[at, seed],
        "confused": left.confused.ravel(),
    }
    return {"left_out.csv": pd.DataFrame(table)}


def report(left: Left | None, plan: LeaveOut) -> dict | None:
    """For each share, the mean change of d, also in units of the seeds' sd, and how often it was mended."""
    if left is None:
        return None
    change = (left.d - left.d_kept[:, None]).mean((0, 2))
    return {
        **asdict(plan),
        "shares": list(plan.shares),
        "pairs": len(left.rows),
        "spread": left.spread,
        "change": change.tolist(),
        "confused": left.confused.mean((0, 2)).tolist(),
        "confused_kept": float(left.confused_kept.mean()),
    }
