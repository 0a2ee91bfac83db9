import json

import pytest

from tests.conftest import ROOT

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def content(name):
    return json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))


def test_there_are_three_and_none_is_committed_with_its_outputs():
    assert NOTEBOOKS == ["glyphs", "own_model", "text"]
    for name in NOTEBOOKS:
        cells = content(name)["cells"]
        assert cells[0]["cell_type"] == "markdown"
        assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    """Its cells in one namespace, as a kernel runs them; what a cell would show is made, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    names = {"__name__": "__main__"}
    for i, cell in enumerate(cell for cell in content(name)["cells"] if cell["cell_type"] == "code"):
        exec(compile("".join(cell["source"]), f"{name}, code cell {i}", "exec"), names)
    if name == "glyphs":
        assert names["metrics"]["noise"]["detector"]["auroc"] > 0.7
        assert len(list(tmp_path.glob("outputs/*/metrics.json"))) == 2
    else:
        found = names["found"]
        assert len(found.confusions) > 0
        assert found._repr_html_().startswith('<div class="deconfuse">')
    if name == "own_model":
        assert names["hits"].sum() >= 1


@pytest.mark.slow
def test_a_notebook_runs_in_a_kernel_of_jupyter(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is an extra (notebooks)")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    notebook = nbformat.read(ROOT / "notebooks/text.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any('<div class="deconfuse">' in output.get("data", {}).get("text/html", "") for output in shown)
