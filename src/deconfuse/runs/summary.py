"""The summary that is printed in the terminal when a run has ended."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from deconfuse.runs.section import form_of
from deconfuse.system.words import agree, many

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
    lone, confused, start = metrics["lone_queries"], metrics["confusions"], metrics["start"]
    lines = [
        ("Recall@1", f"{retrieval['R@1']:.3f}   ({others})"),
        (
            "Confusions",
            f"{confused} of {many(metrics['queries'] - lone, 'query')} {agree(confused)} nearest to "
            "another class",
        ),
    ]
    if start:
        lines.insert(1, ("Backbone alone", _start(start)))
    if lone:
        who = f"{many(lone, 'query')} {agree(lone, 'has', 'have')} no image of {agree(lone, 'its', 'their')}"
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
        how = f"retrained without {many(lds['subsets'], 'random subset')} of {lds['share']:.0%}"
        lines.append(("Counterfactual", f"LDS {lds['mean']:.3f}{ends}  {how}"))
    again = metrics["retrain"]
    if again:
        lines.append(("Retrained", _retrained(again, metrics["explained"]["table"])))
    noise = metrics["noise"]
    if noise:
        lines += _noise(noise, metrics["choices"]["detector"])
    lines += _loop(metrics["loop"])
    lines += _wrong(metrics["wrong"])
    lines += _duplicates(metrics["duplicates"])
    seconds = metrics["seconds"]
    lines.append(("Time", ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())))
    return lines


def _corrected(corrections: dict | None) -> list[tuple[str, str]]:
    if not corrections:
        return []
    right = corrections["right"]
    given = f"{many(corrections['changed'], 'label')}, as {corrections['file']} says"
    left_out = corrections["left_out"]
    given += f"; {many(left_out, 'sample')} left out" if left_out else ""
    known = "" if right is None else f" ({right} rightly, {corrections['wrong']} wrongly)"
    before, after = corrections["before"], corrections["after"]
    fates = ", ".join(f"{corrections[fate]} {fate}" for fate in ("vanished", "appeared", "moved"))
    moments = [
        "  ".join(f"{name} {one[name]:.3f}" for name in ("R@1", "MAP@R"))
        + f"  {many(one['confusions'], 'confusion')}"
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
        "confusions.csv": "confusion pair",
        "groups.csv": "confusion group",
        "mis_similar.csv": "mis-similar pair",
    }
    what, params = metrics["explained"], metrics["params"].replace("_", " ")
    of = {"head": "the head", "last block": "the last block", "all": "all parameters"}[params]
    unscored = f"; {what['unscored']} of them by no score but 0" if what["unscored"] else ""
    return (
        f"{many(what['rows'], things[what['table']])}, by {metrics['choices']['influence']} on {of}{unscored}"
    )


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
    epochs = many(again["epochs"], "epoch")
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


def _start(start: dict) -> str:
    """R@1 before any training: of the backbone's features as they are, and of the head's start."""
    alone, first = start["backbone"], start["whitened"]
    text = f"R@1 {alone['R@1']:.3f}, whitened {first['R@1']:.3f}"
    return f"{text}   (MAP@R {alone['MAP@R']:.3f}, {first['MAP@R']:.3f})"


def _wrong(wrong: dict) -> list[tuple[str, str]]:
    """How many labels are probably wrong, and how far that can be trusted."""
    ends = f"[{wrong['low']:.0f}, {wrong['high']:.0f}]"
    which = f"{wrong['listed']} of them more likely wrong than right, in relabels.csv"
    lines = [("Probably wrong", f"{wrong['labels']:.0f} labels {ends}; {which}")]
    if "true" in wrong:
        right = (
            f"{wrong['true']} are; of those listed {wrong['listed_wrong']}, {wrong['listed_right']} of them "
        )
        text = f"{right}recommended rightly; AP {wrong['average_precision']:.3f}"
        lines.append(("", f"{text}, calibration error {wrong['calibration_error']:.3f}"))
    near = wrong["leave_one_out"]
    first = "" if near is None else f"; R@1 on training classes, leave-one-out: {near:.3f}"
    trust = f"held out, {wrong['agree']:.0%} of the labels given are the likeliest{first}"
    return [*lines, ("Trust", trust), ("", "errors between classes that look alike are hardly counted")]


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
