"""Labels that people gave in Label Studio or in FiftyOne, as these tools write them.

Read are Label Studio's exports JSON (tasks with annotations) and JSON-MIN, and FiftyOne's labels.json (of a
FiftyOneImageClassificationDataset) and samples.json (of a FiftyOneDataset). Label Studio's export CSV has the
columns path and label, so it is a plain list for `decisions`.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from deconfuse.system.errors import UserError, shorten
from deconfuse.system.files import short_hash
from deconfuse.system.spelling import Names

TOOLS = LABEL_STUDIO, FIFTYONE = "Label Studio", "FiftyOne"
LEFT_OUT = ""  # the label that is given to a sample that is to be left out
CONTROL = "label"  # the name of Label Studio's control for labels, and of FiftyOne's field
LEAVE_OUT = "exclude"  # a choice of Label Studio's control DECISION, and a tag of FiftyOne's samples
DECISION = "decision"
LOCAL = "/data/local-files/?d="  # how Label Studio names a file of its own computer
MARK = 12  # digits of a hash of a path
MARKED = re.compile(rf"-(?P<mark>[0-9a-f]{{{MARK}}})(?:-\d+)?(?:\.[^./]*)?$")
FIELD = "ground_truth"  # FiftyOne's own name for the field of labels

# (path, the label it had or "", the label to give or "" to leave it out, the tool)
Given = tuple[str, str, str, str]


def known(content: object) -> bool:
    """Whether a file's JSON is an export of one of the tools."""
    if isinstance(content, list):
        return bool(content)
    return (
        isinstance(content, dict)
        and "format" not in content
        and ("samples" in content or "labels" in content)
    )


def given(file: Path, content: object) -> list[Given]:
    """The labels that people gave; UserError, naming the place, for what is none of the tools' exports.

    A task of Label Studio that nobody annotated, or that was skipped, gives none. Of several annotations
    those count that are marked as ground truth, where there are any; two that differ are refused.
    """
    if isinstance(content, list):
        return [one for i, task in enumerate(content) if (one := _task(f"{file}, task {i}", task))]
    assert isinstance(content, dict)
    return list(_samples(file, content["samples"]) if "samples" in content else _labels(file, content))


def _task(place: str, task: object) -> Given | None:
    """What one of Label Studio's tasks gives; the task itself has the data in JSON-MIN."""
    if not isinstance(task, dict):
        raise UserError(f"{place}: not a task of Label Studio; export it as JSON or JSON-MIN")
    data = task.get("data", task)
    path = data.get("path") or data.get("image") if isinstance(data, dict) else None
    if not isinstance(path, str) or not path:
        raise UserError(
            f"{place}: its data has neither path nor image; import the tasks that deconfuse wrote"
        )
    answers = _answers(place, task)
    if DECISION in answers and LEAVE_OUT in answers.pop(DECISION):
        chosen = [LEFT_OUT]
    else:
        controls = [CONTROL] if CONTROL in answers else list(answers)
        chosen = list(dict.fromkeys(label for name in controls for label in answers[name]))
    if len(chosen) > 1:
        raise UserError(
            f"{place}, {path}: labelled {' and '.join(chosen)}; keep one, or mark one as ground truth"
        )
    path = unquote(path[len(LOCAL) :]) if path.startswith(LOCAL) else path
    return (path, str(data.get("label_now") or ""), chosen[0], LABEL_STUDIO) if chosen else None


def _answers(place: str, task: dict) -> dict[str, list[str]]:
    """By control the choices that its annotations make."""
    if "annotations" not in task:  # JSON-MIN: one choice is text, several are an object
        names = [name for name in (CONTROL, DECISION) if task.get(name)]
        values = {
            name: task[name]["choices"] if isinstance(task[name], dict) else task[name] for name in names
        }
        return {name: [value] if isinstance(value, str) else list(value) for name, value in values.items()}
    made = task["annotations"]
    if not isinstance(made, list) or not all(isinstance(one, dict) for one in made):
        raise UserError(f"{place}: its annotations are no list; export it again as JSON")
    made = [one for one in made if not one.get("was_cancelled")]
    made = [one for one in made if one.get("ground_truth")] or made
    found: dict[str, list[str]] = {}
    for one in made:
        for region in one.get("result") or []:
            if region.get("type") == "choices":
                found.setdefault(region.get("from_name"), []).extend(region["value"]["choices"])
    return found


def _labels(file: Path, content: dict) -> Iterator[Given]:
    """Of labels.json: each file's name without its ending has a label, its place in classes, or an object."""
    classes, labels = content.get("classes") or [], content["labels"]
    if not isinstance(labels, dict) or not isinstance(classes, list):
        raise UserError(f"{file}: neither decisions nor FiftyOne's labels.json; export it again")
    for name, target in labels.items():
        place = f"{file}, {name}"
        several = target if isinstance(target, list) else [target]
        if len(several) > 1:
            raise UserError(f"{place}: has {len(several)} labels; keep one")
        one = several[0] if several else None
        attributes: Mapping = {}
        if isinstance(one, dict):
            one, attributes = one.get("label"), one.get("attributes") or {}
        if one is None:
            continue
        if isinstance(one, int) and not 0 <= one < len(classes):
            raise UserError(f"{place}: label {one} is not one of its {len(classes)} classes; export it again")
        label = classes[one] if isinstance(one, int) else str(one)
        yield attributes.get("path") or name, attributes.get("label_now") or "", label, FIFTYONE


def _samples(file: Path, samples: object) -> Iterator[Given]:
    """Of samples.json: each sample's Classification, by the field `FIELD` where there are several."""
    if not isinstance(samples, list) or not all(isinstance(one, dict) for one in samples):
        raise UserError(f"{file}: its samples are no list; export a FiftyOneDataset again")
    for i, sample in enumerate(samples):
        fields = {name: one for name, one in sample.items() if _kind(one) == "Classification"}
        if len(fields) > 1 and FIELD not in fields:
            raise UserError(f"{file}, samples[{i}]: labels in {shorten(fields)}; name the right one {FIELD}")
        one = fields.get(FIELD) or next(iter(fields.values()), None)
        out = LEAVE_OUT in (sample.get("tags") or [])
        if one is None and not out:
            continue
        one = one or {}
        path = one.get("path") or sample.get("filepath")
        if not isinstance(path, str):
            raise UserError(f"{file}, samples[{i}]: has no filepath; export a FiftyOneDataset again")
        label = LEFT_OUT if out else str(one.get("label") or "")
        if label or out:
            yield path, str(one.get("label_now") or ""), label, FIFTYONE


def _kind(value: object) -> str | None:
    return value.get("_cls") if isinstance(value, dict) else None


def stem(rank: int, path: str, more: str) -> str:
    """A file's name for FiftyOne, which keeps it whatever it does with folders; `Paths` finds path by it."""
    plain = re.sub(r"[^\w.-]+", "_", more, flags=re.ASCII)[:100]
    return f"{rank:06d}-{plain}-{short_hash(path, MARK)}"


class Paths:
    """Finds the path that a tool's name of a file means: by its spelling, by a mark in it, or by its end."""

    def __init__(self, names: Iterable[str], spelt: Names):
        self.spelt, self.marks = spelt, {short_hash(name, MARK): name for name in names}

    def __call__(self, text: str) -> str:
        """The path; the text itself where none is meant."""
        found = self.spelt(text)
        if found in self.spelt.exact:
            return found
        marked = MARKED.search(text)
        if marked and marked["mark"] in self.marks:
            return self.marks[marked["mark"]]
        parts = text.replace("\\", "/").split("/")
        ends = (self.spelt("/".join(parts[i:])) for i in range(1, len(parts)))
        return next((end for end in ends if end in self.spelt.exact), text)
