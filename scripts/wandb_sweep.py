"""Run a sweep of twelve jobs with W&B offline, read back what W&B keeps, and check it: python -m
scripts.wandb_sweep

No account and no network is needed. What is checked is what W&B's pages are made of: every run has ended, has
the same keys, its group, tags and tables; each model is the output of one run and the input of the others;
every file that `wandb sync` would send is there. docs/images/wandb_panels.png is drawn from the same data.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

from tests import offline

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs/images/wandb_panels.png"
SMALL = ("noise=flip_10", "dataset.classes=24", "recipe.epochs=3", "model.width=4", "report=false")
SWEPT = ("loss=softtriple,proxynca", "influence=eif,tracin,ekfac", "seed=0,1")
RUNS, MODELS = 12, 4
TRAINING = {"loss", "epoch", "trainer/global_step", "MAP@R", *(f"R@{k}" for k in (1, 2, 4, 8))}
CHARTED = {  # panel: summary key
    "R@1": "retrieval/R@1",
    "AP of the detector": "noise/detector/average_precision",
    "AP of |influence|": "noise/absolute_influence/average_precision",
}


def swept(output: Path) -> str:
    """Run the sweep; what it prints on standard error."""
    words = ["-m", "src.run", "-m", *SMALL, *SWEPT, "logger=wandb", f"output_dir={output}"]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: the sweep failed\n{done.stderr[-2000:]}")
    return done.stderr


def faults(pages: list[offline.Page], said: str) -> list[str]:
    """What is not as it should be, a line each."""
    found = [] if len(pages) == RUNS else [f"{len(pages)} runs instead of {RUNS}"]
    found += [f"{page.run.display_name}: ended with {page.code}" for page in pages if page.code != 0]
    for what in ("summary", "config", "steps"):
        # What Lightning logs while it trains is known only of the runs that trained their model.
        keys = [set(getattr(page, what)) - TRAINING for page in pages]
        every, some = set.intersection(*keys), set.union(*keys)
        if every != some:
            found.append(f"{what}: keys that only some runs have: {', '.join(sorted(some - every))}")
    groups = Counter(page.run.run_group for page in pages)
    if set(groups.values()) != {RUNS // 2}:
        found.append(f"groups: {dict(groups)}")
    for page in pages:
        kinds = {tag.partition(":")[0] for tag in page.run.tags}
        lacking = {"dataset", "noise", "model", "loss", "target", "influence", "detector"} - kinds
        found += [f"{page.run.display_name}: no tag of {word}" for word in sorted(lacking)]
        for key in ("tablesconfusions", "tablesrelabels", "tablesharmful"):
            if not page.table(key)[1]:
                found.append(f"{page.run.display_name}: {key} has no row")
    found += lineage(pages) + missing(pages)
    return found + [line for line in said.splitlines() if "step" in line.lower() and "warn" in line.lower()]


def lineage(pages: list[offline.Page]) -> list[str]:
    """Models that are not the output of exactly one run and the input of the others that have them."""
    made, used = Counter(), Counter()
    for page in pages:
        model = page.artifact("model")
        (used if model.user_created else made)[model.name] += 1
    found = [f"{name}: the output of {n} runs" for name, n in made.items() if n != 1]
    found += [f"{name}: the input of {n} runs" for name, n in used.items() if n != RUNS // MODELS - 1]
    return found + ([] if len(made) == MODELS else [f"{len(made)} models instead of {MODELS}"])


def missing(pages: list[offline.Page]) -> list[str]:
    """Files of artifacts that are not where W&B would read them."""
    entries = [
        (page, entry) for page in pages for artifact in page.artifacts for entry in artifact.manifest.contents
    ]
    return [
        f"{page.run.display_name}: {entry.path} is not at {entry.local_path}"
        for page, entry in entries
        if entry.local_path and not Path(entry.local_path).is_file()
    ]


def draw(pages: list[offline.Page]) -> Figure:
    """The panels of the workspace: epochs, and three numbers of the summary by group and method."""
    figure = Figure((11, 6), layout="constrained")
    axes = figure.subplots(2, 2)
    seen = set()
    for page in pages:
        rows = [row for row in page.history if "epochs/R@1" in row]
        name = (page.run.run_group, page.config["seed"])
        if name not in seen:
            seen.add(name)
            colour = f"C{sorted({p.run.run_group for p in pages}).index(name[0])}"
            label = name[0].rsplit("-", 1)[-1] if name[1] == 0 else None
            axes[0, 0].plot(
                [r["epochs/epoch"] for r in rows], [r["epochs/R@1"] for r in rows], color=colour, label=label
            )
    axes[0, 0].set(title="epochs/R@1", xlabel="epochs/epoch")
    axes[0, 0].xaxis.get_major_locator().set_params(integer=True)
    axes[0, 0].legend(frameon=False)
    for axis, (title, key) in zip(axes.flat[1:], CHARTED.items(), strict=True):
        groups = sorted({(page.run.run_group.rsplit("-", 1)[-1], page.run.job_type) for page in pages})
        for i, (loss, method) in enumerate(groups):
            values = [
                p.summary[key] for p in pages if p.run.run_group.endswith(loss) and p.run.job_type == method
            ]
            axis.plot(values, [i] * len(values), "o", color=f"C{loss == 'softtriple':d}", alpha=0.6)
        axis.set_yticks(range(len(groups)), [f"{loss}, {method}" for loss, method in groups])
        axis.set_title(f"{title} ({key})", fontsize=9)
        axis.invert_yaxis()
    return figure


def main(words: list[str]) -> int:
    """Run, read back, check and draw; exit code 1 where something is not as it should be."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("--folder", type=Path, help="keep the runs there; what is there is not run again")
    folder = parser.parse_args(words).folder
    with tempfile.TemporaryDirectory() as passing:
        output = folder or Path(passing)
        said = swept(output)
        pages = offline.pages(output)
        wrong = faults(pages, said)
        draw(pages).savefig(PICTURE, dpi=110)
    groups = len({page.run.run_group for page in pages})
    print(f"{len(pages)} runs, {groups} groups, {len(pages[0].summary)} summary keys")
    print("\n".join(wrong) if wrong else "all as it should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
