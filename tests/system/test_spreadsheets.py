import numpy as np
import pandas as pd
import pytest

from deconfuse.system.spreadsheets import guarded, unguarded, write_csv


def test_csv_holds_seven_significant_digits_and_utf8(tmp_path):
    table = pd.DataFrame(
        {
            "name": ["Μ, Greek", "а", 'say "x"'],
            "score": [1 / 3, 123456789.0, np.nan],
            "small": np.array([1.5e-9, -2.0, 0.1], dtype=np.float32),
            "whole": [10_000_001, 2, 3],
            "flag": [True, False, True],
        }
    )
    write_csv(tmp_path / "x.csv", table)
    assert (tmp_path / "x.csv").read_bytes().decode("utf-8") == (
        "name,score,small,whole,flag\n"
        '"Μ, Greek",0.3333333,1.5e-09,10000001,True\n'
        "а,1.234568e+08,-2,2,False\n"
        '"say ""x""",,0.1,3,True\n'
    )


def test_csv_without_rows_keeps_its_header(tmp_path):
    write_csv(tmp_path / "x.csv", pd.DataFrame({"a": [], "b": []}))
    assert (tmp_path / "x.csv").read_text() == "a,b\n"


def test_a_spreadsheet_computes_no_cell_and_every_cell_is_got_back(tmp_path):
    cells = ["=1+1", "+1", "-1", "@x", "\tx", "'x", "''", "", "a=b", "é"]
    assert [guarded(cell)[:1] for cell in cells] == ["'"] * 7 + ["", "a", "é"]
    assert [unguarded(guarded(cell)) for cell in cells] == cells
    table = pd.DataFrame({"text": cells, "number": np.arange(10) - 5.0})
    write_csv(tmp_path / "t.csv", table, spreadsheet=True)
    assert (tmp_path / "t.csv").read_bytes().startswith(b"\xef\xbb\xbftext,number\n'=1+1,-5\n")
    back = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    assert back["text"].map(unguarded).tolist() == cells
    assert back["number"].tolist() == table["number"].tolist()


def test_every_table_is_guarded_and_ordinary_names_change_no_byte(tmp_path):
    cells = ["=1+1", "+a", "-b", "@c", "\td", "\re", "f\rg", "'", '"', "h,i", "j;k", "l\nm", " n", "-", ""]
    numbers = np.linspace(-3, 3, len(cells))
    table = pd.DataFrame({"path": cells, "score": numbers, "some": [None, *numbers[1:]], "yes": numbers > 0})
    write_csv(tmp_path / "t.csv", table)
    back = pd.read_csv(tmp_path / "t.csv", keep_default_na=False, na_values={"some": [""]})
    assert [cell[:1] for cell in back["path"][:7]] == ["'"] * 6 + ["f"]
    assert back["path"].map(unguarded).tolist() == cells
    assert (back["score"].dtype, back["some"].dtype, back["yes"].dtype) == (float, float, bool)
    np.testing.assert_allclose(back["score"], numbers, rtol=1e-6)
    plain = pd.DataFrame({"path": ["a/0.png", "é, 1.png", "x\ny"], "score": [-0.5, 1e-9, 3]})
    write_csv(tmp_path / "p.csv", plain)
    expected = 'path,score\na/0.png,-0.5\n"é, 1.png",1e-09\n"x\ny",3\n'
    assert (tmp_path / "p.csv").read_bytes() == expected.encode()
    write_csv(tmp_path / "t.csv", table, guard=False)
    assert (
        (tmp_path / "t.csv").read_bytes().startswith(b'"path","score","some","yes"\n"=1+1","-3","","False"\n')
    )


@pytest.mark.parametrize(
    "cell", ["-", "-0.012 ± 0.003", "+0.5 ± 0.1 (2 of 5)", "-0.45 [-0.60, -0.30]", "-1.2e-05 ± 3e-06"]
)
def test_what_tables_say_of_several_runs_is_no_formula(cell):
    assert guarded(cell) == cell == unguarded(cell)


@pytest.mark.parametrize(
    "cell", ["-1", "-1+1", "+1-A1", "-1 ± 0.5+cmd", "--", "-(1)", "=-1 ± 2", "-0.5 ± 1|x!a"]
)
def test_what_may_be_one_is_guarded(cell):
    assert guarded(cell) == f"'{cell}"
