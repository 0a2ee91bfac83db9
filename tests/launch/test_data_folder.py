import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from deconfuse.launch import data_folder
from deconfuse.system.errors import UserError
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset=cub", "dataset.root=nowhere"], "dataset cub: looked in"),
        (["dataset=folder", "dataset.root=nowhere"], "and it is no folder"),
        (["dataset=table", "dataset.csv=nowhere.csv"], "and found no file"),
        (["dataset=features", "dataset.path=nowhere.npz"], "nowhere.npz"),
        (["dataset=folder"], "dataset.root has no default"),
    ],
)
def test_a_missing_folder_is_named_before_torch_is_imported(words, message):
    program = (
        "import sys; sys.path.insert(0, 'src'); import atexit; "
        "atexit.register(lambda: print('torch' in sys.modules)); "
        f"sys.argv[1:] = {words}; from deconfuse.__main__ import subcommand; subcommand('run')"
    )
    found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (1, "False\n")
    assert message in found.stderr
    assert found.stderr.startswith("error: ")
    assert len(found.stderr.splitlines()) == 1


def looked(**settings):
    return data_folder.check(OmegaConf.create({"dataset": settings}))


def test_what_can_be_fetched_made_or_is_not_ours_is_left_to_the_reader():
    looked(_target_="deconfuse.dataset.omniglot.load", root="nowhere", download=True)
    looked(_target_="deconfuse.dataset.glyphs.load", classes=4)
    looked(_target_="somebody.elses.load", root="nowhere")


def test_a_folder_that_is_there_is_not_read(tmp_path):
    looked(_target_="deconfuse.dataset.folder.load", root=str(tmp_path))
    with pytest.raises(UserError, match="is no folder"):
        looked(_target_="deconfuse.dataset.folder.load", root=str(tmp_path / "gone"))
