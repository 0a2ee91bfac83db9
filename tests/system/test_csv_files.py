import csv
import io

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deconfuse.system.csv_files import CHUNK, guarded, read, unguarded, write_csv
from deconfuse.system.errors import UserError

ROWS = [["a,b.png", "it's; so", "train"], ['q"q.png', "two\nlines", "test"], ["NA", "nan", "None"]]
HEADER = ["path", "label", "split"]


def saved(path, rows, cut=",", end="\n", encoding="utf-8", header=HEADER):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=cut, lineterminator=end).writerows([header, *rows])
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def rows_of(found):
    return [list(row) for row in zip(*found.columns, strict=True)]


@pytest.mark.parametrize("cut", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_dialect_has_the_same_cells(tmp_path, cut, end, encoding):
    found = read(saved(tmp_path / "x.csv", ROWS, cut, end, encoding))
    assert found.header == ("path", "label", "split")
    assert rows_of(found) == ROWS
    assert (found.short, found.long) == (None, None)
    assert found.lines() == [2, 3, 5]
    assert [found.line(i) for i in range(3)] == [2, 3, 5]


@given(st.lists(st.lists(st.text("a ,;\t\"'\r\n=é", max_size=4), min_size=2, max_size=2), max_size=6))
def test_what_pythons_writer_quotes_comes_back(tmp_path_factory, rows):
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["path", "label"], *rows])
    file = tmp_path_factory.mktemp("quoted") / "x.csv"
    file.write_bytes(text.getvalue().encode())
    assert rows_of(read(file)) == rows


@pytest.mark.parametrize(
    "text",
    [
        'path, label, split\na.png, "x, y", train\nb.png,  z , test\n',
        'path,label,split\na.png, "x, y", train\nb.png,z ,test\n',
        " Path ;LABEL; split\na.png;x, y;train\nb.png;z ;test\n",
    ],
)
def test_spaces_after_delimiters_and_any_header_are_read(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    found = read(tmp_path / "x.csv")
    assert found.places(["split", "path", "label"]) == [2, 0, 1]
    assert [word.casefold() for word in found.header] == HEADER
    assert rows_of(found) == [["a.png", "x, y", "train"], ["b.png", "z ", "test"]]


def test_a_leading_space_belongs_to_a_cell_where_the_header_has_none(tmp_path):
    (tmp_path / "x.csv").write_text("path,label\n x.png, y\n")
    assert rows_of(read(tmp_path / "x.csv")) == [[" x.png", " y"]]


@pytest.mark.parametrize("n", [CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7])
def test_rows_of_another_width_are_found_by_their_line(tmp_path, n):
    rows = [[str(i), "a"] for i in range(n)]
    short = [*rows[:-1], ["last"]]
    found = read(saved(tmp_path / "x.csv", short, header=["path", "label"]))
    assert (found.short, found.long, len(found)) == (n - 1, None, n)
    assert found.columns[0][-1] == "last"
    assert found.columns[1][-2:] == ["a", ""]
    assert found.line(n - 1) == n + 1
    long = [*rows[: n // 2], ["x", "y", "z"], *rows[n // 2 :]]
    found = read(saved(tmp_path / "x.csv", long, header=["path", "label"]))
    assert (found.short, found.long, len(found)) == (None, (n // 2, 3), n // 2)
    assert found.line(n // 2) == n // 2 + 2


def test_blank_lines_and_cells_of_several_lines_count_as_lines(tmp_path):
    (tmp_path / "x.csv").write_text('\n\npath,label\n\n"a\n\nb",x\n\nc,y\nd,z,\n')
    found = read(tmp_path / "x.csv")
    assert rows_of(found) == [["a\n\nb", "x"], ["c", "y"]]
    assert found.lines() == [5, 9]
    assert (found.long, found.line(2)) == ((2, 3), 10)


def test_a_missing_column_is_answered_with_the_nearest(tmp_path):
    (tmp_path / "x.csv").write_text("path;lable;split\n")
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x.csv").places(HEADER)
    assert str(caught.value) == (
        f"{tmp_path}/x.csv: no column label; did you mean lable? it has path, lable, split"
    )


def test_a_column_that_is_there_twice_is_refused_unless_one_is_spelt_exactly_so(tmp_path):
    (tmp_path / "x.csv").write_text("Path,PATH,label\n")
    with pytest.raises(UserError, match=r"x.csv: 2 columns are named path; rename all but one"):
        read(tmp_path / "x.csv").places(["path"])
    (tmp_path / "x.csv").write_text("Path,path,label\n")
    assert read(tmp_path / "x.csv").places(["path"]) == [1]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            b"path,label\n\xe4.png,b\n",
            r"can't decode byte 0xe4 .*; it is not UTF-8 text: save it as CSV UTF-8",
        ),
        (b'path,label\n"a.png,b\n', r"not a readable CSV \(unexpected end of data"),
        (b'path,label\n"a"b,c\n', r"not a readable CSV \("),
        (b'path,label\nx, "a"b\n"c"d,e\n', r"not a readable CSV \("),
        (None, "no such file"),
    ],
)
def test_what_is_no_csv_is_named(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(UserError, match=rf"^{tmp_path}/x.csv: .*{reason}") as caught:
        read(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_an_empty_file_has_no_header(tmp_path):
    (tmp_path / "x.csv").touch()
    found = read(tmp_path / "x.csv")
    assert (found.header, len(found), found.lines()) == ((), 0, [])


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
