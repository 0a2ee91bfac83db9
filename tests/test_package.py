"""The wheel, installed into an environment of its own, does what the checkout does."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile

import pytest

from deconfuse import __version__
from deconfuse.report.page import WEB
from tests.conftest import ROOT

SMALL = ("dataset.classes=8", "recipe.epochs=1", "model.width=4", "report=false", "logger=none")


def called(*words, cwd, **environment):
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DECONFUSE_COMMAND")
    }
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A wheel and an archive of the sources."""
    folder = tmp_path_factory.mktemp("dist")
    pytest.importorskip("build")
    called(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(dist, tmp_path_factory):
    """The command of a fresh environment that has the wheel, and else what this one has installed."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    (wheel,) = dist.glob("*.whl")
    called(sys.executable, "-m", "pip", "--python", home, "install", "--no-deps", "--quiet", wheel, cwd=home)
    packages = sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)})
    with open(f"{packages}/at_hand.pth", "w", encoding="utf-8") as file:
        file.write(sysconfig.get_path("purelib"))
    return home / "bin" / "deconfuse"


def test_the_wheel_holds_the_package_its_choices_and_nothing_else(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"deconfuse", f"deconfuse-{__version__}.dist-info"}
    here = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {name.removeprefix("deconfuse/conf/") for name in names if name.endswith(".yaml")} == here
    pages = {f"deconfuse/report/web/{path.name}" for path in WEB.iterdir()}
    assert {"deconfuse/py.typed", "deconfuse/story.py", "deconfuse/report/web/index.html"} | pages <= set(
        names
    )


def test_the_archive_of_the_sources_has_what_the_project_is_made_of(dist):
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        names = {name.partition("/")[2] for name in file.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "conf/config.yaml", "src/run.py"} <= names


def test_the_installed_command_runs_a_job_from_any_folder(installed, tmp_path):
    assert called(installed, "--version", cwd=tmp_path) == f"deconfuse {__version__}\n"
    said = called(installed, "run", *SMALL, cwd=tmp_path)
    (run,) = (tmp_path / "outputs").glob("glyphs-*")
    assert f"outputs/{run.name}/report/index.html" not in said  # report=false
    assert re.search(rf"^Results +outputs/{run.name}/$", said, re.MULTILINE)
    assert '"command": "deconfuse run dataset.classes=8' in (run / "metrics.json").read_text()
    assert "R@1" in called(installed, "tables", cwd=tmp_path)


def test_the_checkout_and_the_installed_command_write_the_same_tables(installed, tmp_path):
    called(installed, "run", *SMALL, cwd=tmp_path)
    words = [*SMALL, f"output_dir={tmp_path / 'checkout'}"]
    called(sys.executable, "-m", "src.run", *words, cwd=ROOT)
    (one,), (other,) = (folder.glob("glyphs-*") for folder in (tmp_path / "outputs", tmp_path / "checkout"))
    assert one.name == other.name
    for path in [*sorted(one.glob("*.csv")), one / "influence.npy"]:
        assert path.read_bytes() == (other / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    ("line", "offers"),
    [
        ("deconfuse ta", {"tables"}),
        ("deconfuse run loss=proxy", {"loss=proxyanchor", "loss=proxynca"}),
        ("deconfuse run recipe.epo", {"recipe.epochs="}),
        ("deconfuse tables out", set()),
    ],
)
def test_a_shell_completes_subcommands_and_hydras_words(installed, tmp_path, line, offers):
    said = called(installed, "-sc", "query=bash", cwd=tmp_path, COMP_LINE=line)
    assert set(said.split()) == offers
