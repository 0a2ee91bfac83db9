"""Figure 3: confusion pairs and their five most harmful training samples, method under method."""

import pandas as pd
from PIL import Image

from deconfuse.retrieval.statistics import most_harmful
from deconfuse.runs.finished import Run, grouped, newest, usual
from deconfuse.runs.part import Part
from deconfuse.system.errors import UserError

METHODS = ("eif", "if")
NOTE = (
    "Of all explained confusion pairs: in how many of the five most harmful samples the two methods "
    "agree, and how many different classes the five have. The picture shows the closest pairs, by EIF "
    "above and by IF below."
)


def parts(runs: list[Run]) -> list[Part]:
    """One part per data set whose runs drew their most harmful samples with both methods."""
    drawn = [run for run in runs if (run.folder / "harmful.png").exists()]
    drawn = [run for run in drawn if run.choice("influence") in METHODS]
    drawn = [run for run in drawn if run.choice("target") in ("all", "pairs")]
    found = []
    for dataset, here in grouped(usual(drawn, "influence"), lambda run: run.choice("dataset")).items():
        for alike in grouped(here, lambda run: (run.seed, run.setting("influence"))).values():
            alike = newest(alike)
            runs_of = {run.choice("influence"): run for run in alike}
            if set(runs_of) != set(METHODS):
                continue
            if len({run.report["checkpoint"]["sha256"] for run in runs_of.values()}) > 1:
                continue
            five = {method: _five(runs_of[method]) for method in METHODS}
            if len(five["eif"]) != len(five["if"]):
                continue
            both = zip(five["eif"], five["if"], strict=True)
            shared = [len(set(one) & set(other)) for (one, _), (other, _) in both]
            rows = [
                {
                    **alike[0].where,
                    "seed": str(alike[0].seed),
                    "method": method,
                    "pairs": len(five[method]),
                    "classes among five": _mean([len(set(classes)) for _, classes in five[method]]),
                    "of five, shared by both": _mean(shared),
                }
                for method in METHODS
            ]
            title = f"Figure 3: most harmful samples by EIF and by IF, {dataset}"
            picture = _stack([_picture(runs_of[method]) for method in METHODS])
            found.append(Part(f"figure3_{dataset}", title, pd.DataFrame(rows), NOTE, picture))
            break
    return found


def _mean(counts: list[int]) -> str:
    return f"{sum(counts) / len(counts):.2f}" if counts else "-"


def _five(run: Run) -> list[tuple[list[int], list[str]]]:
    """(samples, their classes) of each explanation's most harmful samples, most harmful first."""
    classes = run.table("samples.csv", "class")["class"].to_numpy()
    rows = []
    for scores in run.scores():
        order = most_harmful(scores)
        rows.append((order.tolist(), classes[order].tolist()))
    return rows


def _picture(run: Run) -> Image.Image:
    try:
        with Image.open(run.folder / "harmful.png") as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:  # a broken chunk of a PNG is a SyntaxError to Pillow
        raise UserError(
            f"{run.folder / 'harmful.png'}: can't be read ({error}); delete the folder and run again"
        ) from None


def _stack(images: list[Image.Image]) -> Image.Image:
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    return whole
