import json
import os

import pytest

from tests.conftest import ROOT

CHECKS = {  # what a cell after the last one asserts
    "glyphs": (
        "assert metrics['noise']['detector']['auroc'] > 0.7",
        "assert len(list(Path('outputs').glob('*/metrics.json'))) == 2",
    ),
    "own_model": (
        "assert len(found.confusions) > 0 and hits.sum() >= 1",
        "assert Path('report/index.html').is_file()",
    ),
    "text": ("assert len(found.confusions) > 0",),
}
NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_there_are_three_and_none_is_committed_with_its_outputs():
    assert sorted(CHECKS) == NOTEBOOKS
    for name in NOTEBOOKS:
        cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
        assert cells[0]["cell_type"] == "markdown"
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_in_a_kernel_of_jupyter(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is an extra (notebooks)")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    notebook = nbformat.read(ROOT / f"notebooks/{name}.ipynb", 4)
    check = "\n".join(["from pathlib import Path", *CHECKS[name]])
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output.get("data", {}).get("text/html", "") for output in shown]
    assert any("<table" in page for page in pages)
    assert name == "glyphs" or any('<div class="deconfuse">' in page for page in pages)
