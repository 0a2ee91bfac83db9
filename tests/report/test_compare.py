import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deconfuse.report import compare
from deconfuse.report.page import put
from deconfuse.system.csv_files import write_csv
from deconfuse.system.errors import UserError
from tests.finished import finish


def a_run(folder, name, confused, recommended, hostile=False):
    """confused: {query: class of its neighbour}; recommended: {training image: label}, of class a."""
    run = finish(folder, name, retrieval={"R@1": 0.5 + 0.1 * len(recommended), "MAP@R": 0.25, "NMI": 0.6})
    queries = pd.DataFrame(
        {"query": list(confused), "query_class": "x", "neighbour_class": list(confused.values())}
    )
    write_csv(run.folder / "confusions.csv", queries)
    samples = pd.DataFrame(
        {"path": list(recommended), "class": "a", "recommended": list(recommended.values())}
    )
    write_csv(run.folder / "samples.csv", samples)
    return run


@pytest.fixture
def runs(tmp_path):
    first = a_run(
        tmp_path, "one", {"q1": "y", "q2": "y", "q3": "z"}, {"1": "a", "2": "b", "3": "c", "4": "b"}
    )
    second = a_run(
        tmp_path, "two", {"q3": "y", "q4": "<b>y</b>", "q1": "y"}, {"1": "b", "2": "a", "3": "d", "4": "b"}
    )
    return first, second


def test_what_came_went_changed_and_stayed(runs):
    found = compare.compare(*runs)
    assert found.confusions.values.tolist() == [
        ["came", "q4", "", "<b>y</b>"],
        ["went", "q2", "y", ""],
        ["changed", "q3", "z", "y"],
        ["stayed", "q1", "y", "y"],
    ]
    assert found.relabels.values.tolist() == [
        ["came", "1", "", "b"],
        ["went", "2", "b", ""],
        ["changed", "3", "c", "d"],
        ["stayed", "4", "b", "b"],
    ]


def test_runs_of_other_images_are_not_compared(runs, tmp_path):
    other = a_run(tmp_path, "three", {}, {"elsewhere": "b"})
    with pytest.raises(UserError, match="share no training image"):
        compare.compare(runs[0], other)


def test_the_command_writes_one_page_with_names_as_text_and_pictures_inside(runs, capsys):
    report = runs[1].folder / "report"
    sheet = np.zeros((96, 960), np.uint8)
    sheet[:, 96:192] = 200
    (report / "thumbs").mkdir(parents=True)
    Image.fromarray(sheet).save(report / "thumbs" / "0.png")
    put(report / "data", "run", {"images": {"cell": 96, "columns": 10, "suffix": "png", "size": [40, 30]}})
    put(report / "data", "train", {"names": ["1", "2"], "place": [1, 0]})
    put(report / "data", "query", {"names": ["q4"], "place": [0]})
    compare.main([str(run.folder) for run in runs])
    assert "Confusions 1 came, 1 went, 1 changed, 1 stayed" in capsys.readouterr().out
    page = (runs[1].folder / "compare.html").read_text()
    assert "<b>y</b>" not in page
    assert "&lt;b&gt;y&lt;/b&gt;" in page
    assert page.count("data:image/webp;base64,") == 3  # q4, 1 and 2
    assert "http" not in page.replace("http-equiv", "")
    assert '<td class="n">0.900</td><td class="n">0.900</td><td class="n">+0.000</td>' in page
