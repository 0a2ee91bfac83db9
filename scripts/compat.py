"""Install the wheel in fresh environments of other versions, and run there what users run.

    make compat                    # all that this machine has a Python for
    make compat RUNS=lowest        # one of them

Each environment takes some 6 GB of disk and several minutes, most of which is torch. They are kept in
.compat/, and used again by the next call. Where a Python is not here, or its packages cannot be installed, a
line says so.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from deconfuse.system.errors import UserError, one_of

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".compat"
TOOLS = ("pytest", "pytest-timeout", "beartype", "hypothesis", "cleanlab", "pytorch-metric-learning")
CORE = (  # the public face, and of each room that computes what the face is made of
    *("tests/adapt", "tests/api", "tests/attribution/test_head.py", "tests/influence/test_eif.py"),
    *("tests/retrieval/test_metrics.py", "tests/training/test_checkpoint.py", "tests/test_conf.py"),
    *("tests/dataset/test_webdataset.py", "tests/system/test_archive.py"),
)
SMALL = ("noise=flip_10", "dataset.classes=40", "recipe.epochs=4", "model.width=8", "output_dir=outputs")
PAGES = ("docs/api.md", "docs/own_model.md")


@dataclass(frozen=True)
class Run:
    """An environment: the Python, and the file of constraints (None: the newest versions)."""

    python: str
    constraints: str | None


RUNS = {
    "lowest": Run("3.11", "constraints/lowest.txt"),
    "torch-2.11": Run("3.12", "constraints/torch-2.11.txt"),
    "newest": Run("3.13", None),
}


def interpreter(version: str) -> str | None:
    """The Python of a version: on the path, or among pyenv's; None where there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    homes = sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    return str(homes[-1]) if homes else shutil.which(f"python{version}")


def made(name: str, run: Run, wheel: Path) -> Path | None:
    """The environment's Python with the wheel installed; None, after a line, where that cannot be had."""
    python, home = interpreter(run.python), HOME / name
    if python is None:
        print(f"{name}: left out, as there is no Python {run.python} here")
        return None
    own = home / "bin" / "python"
    if not own.exists():
        subprocess.run([python, "-m", "venv", str(home)], check=True)
    limits = ["-c", str(ROOT / run.constraints)] if run.constraints else []
    words = [str(own), "-m", "pip", "install", "--quiet", *limits, str(wheel), *TOOLS]
    again = [str(own), "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheel)]
    if any(subprocess.run(each).returncode for each in (words, again)):
        print(f"{name}: left out, as its packages cannot be installed here")
        return None
    return own


def tried(name: str, python: Path) -> bool:
    """Whether a run, the pages' examples and the core of the tests pass; each is printed as it ends."""
    place = HOME / f"{name}-work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    steps = {
        "deconfuse run": ([str(python.parent / "deconfuse"), "run", *SMALL], place),
        **{page: ([str(python), str(ROOT / "scripts/blocks.py"), str(ROOT / page)], place) for page in PAGES},
        "tests": ([str(python), "-m", "pytest", "-q", "-o", "pythonpath=", *CORE], ROOT),
    }
    passed = True
    for step, (words, folder) in steps.items():
        done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
        last = (done.stdout.strip() or done.stderr.strip() or "-").splitlines()[-1]
        print(f"{name}: {step}: {'passed' if not done.returncode else 'FAILED'}  {last}", flush=True)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:], sep="\n")
            passed = False
    return passed


def main(words: list[str]) -> int:
    """Try each environment; exit code 1 where something fails."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=plain)
    parser.add_argument("runs", nargs="*", help=f"of {', '.join(RUNS)}; all by default")
    chosen = [one_of("RUNS", name, RUNS) for name in parser.parse_args(words).runs] or list(RUNS)
    HOME.mkdir(exist_ok=True)
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(HOME / "dist"), str(ROOT)]
    subprocess.run([sys.executable, *build], check=True, stdout=subprocess.DEVNULL)
    wheel = max((HOME / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    passed = [tried(name, python) for name in chosen if (python := made(name, RUNS[name], wheel))]
    print(f"{sum(passed)} of {len(passed)} environments pass, {len(chosen) - len(passed)} left out")
    return 0 if all(passed) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except UserError as error:
        sys.exit(f"error: {error}")
