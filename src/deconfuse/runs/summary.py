"""The summary that is printed in the terminal when a run has ended."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from deconfuse.runs.part import form_of

DUPLICATES = {
    "two labels": "with two labels",
    "both sides": "on both sides of the split",
    "copies": "within a class",
}


def show(metrics: dict, folder: str, console: Console) -> None:
    """Print the summary of one run. metrics: the content of metrics.json."""
    lines = [*rows(metrics), ("Results", f"{folder}/")]
    if (page := Path(folder) / "report" / "index.html").exists():
        lines.append(("Report", f"{page}"))
    width = max(len(name) for name, _ in lines)
    console.print()
    for name, value in lines:
        console.print(Text.assemble((f"{name:<{width}}", "bold"), "  ", value), soft_wrap=True)


def rows(metrics: dict) -> list[tuple[str, str]]:
    """The lines of the summary as (name, value)."""
    retrieval = metrics["retrieval"]
    others = "  ".join(f"{name} {value:.3f}" for name, value in retrieval.items() if name != "R@1")
    lone = metrics["lone_queries"]
    lines = [
        ("Recall@1", f"{retrieval['R@1']:.3f}   ({others})"),
        (
            "Confusions",
            f"{metrics['confusions']} of {metrics['queries'] - lone} queries are nearest to another class",
        ),
    ]
    if lone:
        who = "1 query has no image of its" if lone == 1 else f"{lone} queries have no image of their"
        text = f"{who} class in the gallery: in no recall and no confusion"
        lines.append(("Left out", text))
    if metrics["trivial"]:
        lines.insert(1, ("", metrics["trivial"]))
    for i, pair in enumerate(metrics["confused_most"][:5]):
        known = "  (known to look alike)" if pair["same_thing"] else ""
        left, right = pair["classes"]
        text = f"{pair['confusions']:3d} x {left} / {right}{known}"
        lines.append(("" if i else "Confused most", text))
    lines += _corrected(metrics["corrections"])
    lines.append(("Explained", _explained(metrics)))
    epochs = metrics["influence_epochs"]
    if epochs:
        lines += _epochs(epochs)
    lds = metrics["counterfactual"]
    if lds:
        ends = "" if lds["low"] is None else f" [{lds['low']:.3f}, {lds['high']:.3f}]"
        how = f"retrained without {lds['subsets']} random subsets of {lds['share']:.0%}"
        lines.append(("Counterfactual", f"LDS {lds['mean']:.3f}{ends}  {how}"))
    again = metrics["retrain"]
    if again:
        lines.append(("Retrained", _retrained(again, metrics["explained"]["table"])))
    noise = metrics["noise"]
    if noise:
        lines += _noise(noise, metrics["choices"]["detector"])
    lines += _loop(metrics["loop"])
    lines.append(("Relabels", f"{metrics['relabels']} harmful samples recommended another label"))
    lines += _duplicates(metrics["duplicates"])
    seconds = metrics["seconds"]
    lines.append(("Time", ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())))
    return lines


def _corrected(corrections: dict | None) -> list[tuple[str, str]]:
    if not corrections:
        return []
    given, right = f"{corrections['changed']} labels, as {corrections['file']} says", corrections["right"]
    given += f"; {corrections['left_out']} samples left out" if corrections["left_out"] else ""
    known = "" if right is None else f" ({right} rightly, {corrections['wrong']} wrongly)"
    before, after = corrections["before"], corrections["after"]
    fates = ", ".join(f"{corrections[fate]} {fate}" for fate in ("vanished", "appeared", "moved"))
    moments = [
        "  ".join(f"{name} {one[name]:.3f}" for name in ("R@1", "MAP@R"))
        + f"  {one['confusions']} confusions"
        for one in (before, after)
    ]
    lines = [
        ("Corrected", given + known),
        *_test_side(corrections["test"]),
        ("Before", moments[0]),
        ("After", f"{moments[1]}: {fates}"),
    ]
    for fate in ("vanished", "appeared"):
        for i, pair in enumerate(corrections[f"{fate}_most"]):
            text = f"{pair['confusions']:3d} x {' / '.join(pair['classes'])}"
            lines.append(("" if i else f"{fate.capitalize()} most", text))
    return lines


def _test_side(test: dict | None) -> list[tuple[str, str]]:
    """What the file decides on the test side, and whether the measures below are on it."""
    if not test:
        return []
    what = f"{test['changed']} labels corrected, {test['left_out']} samples left out"
    if test["applied"]:
        return [("Test side", f"{what}; before and after are measured on it")]
    return [("Test side", f"not applied: {what} in the file; relabels.test=true measures on that")]


def _duplicates(found: dict | None) -> list[tuple[str, str]]:
    """How many groups of near-identical pictures there are, and what they do to R@1."""
    if not found or not found["groups"]:
        return []
    of = [f"{found[kind]} {words}" for kind, words in DUPLICATES.items() if found[kind]]
    text = f"{found['groups']} groups: {', '.join(of)}"
    if found["copied"] and found["R@1"] is not None:
        queries = "query has" if found["copied"] == 1 else "queries have"
        text += f"; {found['copied']} {queries} a copy; R@1 without them {found['R@1']:.3f}"
    return [("Duplicates", text)]


def _explained(metrics: dict) -> str:
    things = {
        "confusions.csv": "confusion pairs",
        "groups.csv": "confusion groups",
        "mis_similar.csv": "mis-similar pairs",
    }
    what, params = metrics["explained"], metrics["params"].replace("_", " ")
    of = {"head": "the head", "last block": "the last block", "all": "all parameters"}[params]
    unscored = f"; {what['unscored']} of them by no score but 0" if what["unscored"] else ""
    return f"{what['rows']} {things[what['table']]}, by {metrics['choices']['influence']} on {of}{unscored}"


def _epochs(epochs: dict) -> list[tuple[str, str]]:
    each = [f"{n} at epoch {epoch}" for epoch, n in zip(epochs["epochs"], epochs["harmful"], strict=True)]
    first = [
        f"{name} at epoch {found['median']:g}, {found['never']:.0%} never"
        for name, found in epochs["first_harmful"].items()
        if found["median"] is not None
    ]
    lines = [("Harmful samples", ", ".join(each))]
    return lines + ([("first, by median", "; ".join(first))] if first else [])


def _retrained(again: dict, table: str) -> str:
    what = "-d" if table == "mis_similar.csv" else "d"
    found = [again[name] for name in ("mean", "low", "high") if again[name] is not None]
    form = "+" + form_of(found, 4)
    ends = "" if again["low"] is None else f" [{again['low']:{form}}, {again['high']:{form}}]"
    epochs = "1 epoch" if again["epochs"] == 1 else f"{again['epochs']} epochs"
    weights = f"helpful x {again['helpful']:g}, harmful x {again['harmful']:g}"
    return f"{what} changes by {again['mean']:{form}}{ends}  {weights}, {epochs}, {again['mode']}"


def _loop(loop: dict | None) -> list[tuple[str, str]]:
    lines = []
    for line in loop["rounds"] if loop else []:
        text = f"R@1 {line['R@1']:.3f}  MAP@R {line['MAP@R']:.3f}"
        text += f"  {line['relabelled']} relabelled, {line['left_out']} left out"
        if line["wrong"] is not None:
            text += f", {line['wrong']:.0f} wrong ({line['broken']:.0f} broken)"
        back = {name: line[f"won_back_{name}"] for name in ("R@1", "MAP@R")}
        shares = [f"{share:.0%} of {name}" for name, share in back.items() if share is not None]
        if line["round"] and shares:
            text += f", won back {' and '.join(shares)}"
        lines.append((f"Round {line['round']}", text))
    if loop and loop["clean"]:
        lines.append(("Clean labels", f"R@1 {loop['clean']['R@1']:.3f}  MAP@R {loop['clean']['MAP@R']:.3f}"))
    return lines


def _noise(noise: dict, detector: str) -> list[tuple[str, str]]:
    lines = []
    for name, found in ((detector, noise["detector"]), ("|influence|", noise["absolute_influence"])):
        if found:
            text = f"AUROC {found['auroc']:.3f}  AP {found['average_precision']:.3f}  by {name}"
            lines.append((f"{noise['flipped']} flipped found" if not lines else "", text))
    right = noise["recommended_right"]
    share = "none of them scored harmful" if right is None else f"{right:.1%} of those that score harmful"
    lines.append(("Recommended right", share))
    return lines
