"""Explain the model as it was at earlier epochs: each checkpoint once, while training goes on or later.

What is explained is what that epoch's model confuses, chosen by target= as at the end. An explanation lies
beside its checkpoint under the name of the settings that it depends on, so the callback makes it, and a run
that was resumed, another influence method or a checkpoint trained before finds it or makes its own.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from deconfuse.attribution.attribute import attribute
from deconfuse.attribution.look import Subject, before, look
from deconfuse.attribution.trajectory import Moment, Trajectory, When, listed
from deconfuse.system import distributed
from deconfuse.system.arrays import read_arrays, write_arrays
from deconfuse.system.errors import UserError, shorten
from deconfuse.system.files import file_hash
from deconfuse.system.lock import found_or_made, whole_at
from deconfuse.system.progress import console
from deconfuse.training.checkpoint import epoch_of, history, kept, kept_at

FIELDS = ("group", "pairs", "distance")


@dataclass(frozen=True)
class Moments:
    """How checkpoints before the last one are explained, and when.

    subject: with the untrained model, which gets each checkpoint's weights; name: of an explanation's file,
    after all settings that it depends on beside its checkpoint.
    """

    when: When
    subject: Subject
    explainer: Callable
    target: Callable
    name: str

    def due(self, epoch: int, rows: Iterable[Mapping]) -> set[int]:
        """The epochs to be explained as far as is known after an epoch; rows: of history.csv."""
        return self.when.due(epoch, self.subject.data.recipe.kept_epochs, rows)

    def while_training(self, checkpoint: Path, epoch: int) -> None:
        """Explain, and say in a line where that could not be done: training is worth more.

        Of several processes one may fail alone while the others wait for it in the explanation: it raises.
        """
        try:
            self.explain(checkpoint, epoch)
        except UserError as error:
            if distributed.world() > 1:
                raise UserError(
                    f"epoch {epoch} could not be explained: {error}; influence.when=last trains without"
                ) from error
            console.print(f"epoch {epoch} could not be explained, training goes on: {error}")

    def explain(self, checkpoint: Path, epoch: int) -> Moment:
        """The explanation beside a checkpoint, found or made."""
        path, made_with = checkpoint.with_suffix(f".{self.name}.npz"), file_hash(checkpoint)

        def found() -> Moment | None:
            arrays = whole_at(path, read_arrays, "explaining")
            if arrays is None or str(arrays.get("checkpoint", "")) != made_with:
                return None
            sides = tuple(torch.from_numpy(arrays[name]) for name in FIELDS)
            numbers = float(arrays["recall"]), int(arrays["confusions"])
            return Moment.of(epoch, *numbers, sides, torch.from_numpy(arrays["scores"]))

        def make() -> Moment:
            ((then, _),) = before(self.subject, [checkpoint])
            seen = look(then, checkpoint)
            explained = self.target(seen.confusions, seen.test)
            earlier = [past for past in kept(checkpoint) if epoch_of(past) < epoch]
            scores = attribute(self.explainer, explained, seen.frozen, then, earlier)
            numbers = {"recall": seen.retrieval["R@1"], "confusions": len(seen.confusions)}
            sides = listed(explained)
            arrays = dict(zip(FIELDS, (each.numpy() for each in sides), strict=True))
            if distributed.first():
                write_arrays(path, checkpoint=made_with, **numbers, **arrays, scores=scores.numpy())
            moment = Moment.of(epoch, *numbers.values(), sides, scores)
            console.print(moment.line())
            return moment

        return found_or_made(path, found, make)

    def trajectory(self, checkpoint: Path, last: Moment) -> Trajectory | None:
        """The epochs explained, with the last one beside them; None where that is all there is.

        Says in a line which epochs were asked for and not kept when the model was trained.
        """
        if self.when.when == "last":
            return None
        rows = history(checkpoint) if self.when.when == "best" else []
        due = sorted(self.due(last.epoch, rows) - {last.epoch})
        paths = {epoch: kept_at(checkpoint.parent, epoch) for epoch in due}
        missing = [epoch for epoch, path in paths.items() if not path.exists()]
        if missing:
            console.print(self._missing(missing, checkpoint))
        elif not due:
            console.print(f"influence.when={self.when.when}: the last epoch is all there is to explain")
        moments = [self.explain(path, epoch) for epoch, path in paths.items() if epoch not in missing]
        return Trajectory(self.when, (*moments, last)) if moments else None

    def _missing(self, epochs: list[int], checkpoint: Path) -> str:
        there = [epoch_of(path) for path in kept(checkpoint)]
        instead = (
            f"influence.when=every_n_epochs influence.every=null explains what was (epoch {shorten(there)}), "
            if there
            else ""
        )
        return (
            f"influence.when={self.when.when}: epoch {shorten(epochs)} was not kept when this model was "
            f"trained, and is not explained; {instead}{'or ' if there else ''}"
            f"delete {checkpoint.parent} to train again and keep it (a sweep also wants again=true)"
        )
