import re

import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import table
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(table.load)

ROWS = [
    "a/0.png,cat,train",
    "b/1.jpg,dog,train",
    "a/2.png,cat,train",
    "b/3.jpg,dog,train",
    "a/4.png,ant,test",
    "b/5.jpg,bee,test",
    "a/6.png,ant,test",
    "b/7.jpg,bee,test",
    "b/8.jpg,bee,test",
]


@pytest.fixture
def folder(tmp_path):
    for i, row in enumerate(ROWS):
        path = tmp_path / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (11, 13, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path


def written(folder, rows, header="path,label,split", name="list.csv"):
    file = folder / name
    file.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return str(file)


def changed(i, row):
    return [*ROWS[:i], row, *ROWS[i + 1 :]]


def test_rows_become_samples_in_their_order(folder):
    split = load(written(folder, ROWS))
    assert split.class_names == ("cat", "dog", "ant", "bee")
    assert split.num_classes == 2
    assert split.train.labels.tolist() == [0, 1, 0, 1]
    assert split.query.labels.tolist() == [2, 3, 2, 3, 3]
    assert split.train.names == ("a/0.png", "b/1.jpg", "a/2.png", "b/3.jpg")
    assert split.shared_gallery
    for i, name in enumerate(split.query.names):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(np.asarray(split.query.image(i)), np.asarray(image))


def test_what_photos_are_resized_to_can_be_set(folder):
    image = load(written(folder, ROWS), image_size=64, image_resize=72).image
    assert (image.size, image.resize) == (64, 72)


def test_query_and_gallery_are_kept_apart(folder):
    rows = [row.replace("test", ("query", "gallery")[i in (4, 5)]) for i, row in enumerate(ROWS)]
    split = load(written(folder, rows))
    assert not split.shared_gallery
    assert split.gallery.names == ("a/4.png", "b/5.jpg")
    assert split.query.names == ("a/6.png", "b/7.jpg", "b/8.jpg")


def test_paths_start_at_root_where_one_is_given(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("lists")
    file = written(elsewhere, ROWS)
    split = load(file, root=str(folder))
    assert split.train.image(0).size == (13, 11)
    assert split.fingerprints[1] == load(written(folder, ROWS)).fingerprints[1]


def test_further_columns_in_any_order_are_let_be(folder):
    rows = [",".join([*reversed(row.split(",")), "x"]) for row in ROWS]
    split = load(written(folder, rows, "split,label,path,note"))
    assert split.class_names == ("cat", "dog", "ant", "bee")


@pytest.mark.parametrize("label", ["NA", "null", "1", "007", "Ωmega, the last", "nan"])
def test_a_label_is_taken_as_it_is_spelt(folder, label):
    rows = [row.replace("cat", f'"{label}"') for row in ROWS]
    assert set(load(written(folder, rows)).class_names) == {label, "dog", "ant", "bee"}


@pytest.mark.parametrize("change", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")])
def test_what_a_spreadsheet_saves_can_be_read(folder, change):
    file = folder / "list.csv"
    file.write_bytes(change("\n".join(["path,label,split", *ROWS])).encode())
    assert load(str(file)).class_names == ("cat", "dog", "ant", "bee")


# --- errors


def test_a_missing_file_is_named_in_full_with_its_columns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load("list.csv")
    assert str(caught.value) == (
        f"dataset table: looked for {tmp_path}/list.csv and found no file; "
        "it needs the columns path, label, split; set dataset.csv=FILE.csv"
    )


@pytest.mark.parametrize(
    ("header", "missing", "has"),
    [
        ("path,class,split", "label", "path, class, split"),
        ("file,class,split", "path, label", "file, class, split"),
        ("path;class;split", "label", "path, class, split"),
    ],
)
def test_a_missing_column_is_named_beside_those_there_are(folder, header, missing, has):
    file = written(folder, ROWS, header)
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: no column {missing}; it has {has}"


@pytest.mark.parametrize("row", ["a/2.png,,train", ",cat,train", "a/2.png,cat,", "a/2.png,cat"])
def test_an_empty_cell_is_found_by_its_line(folder, row):
    file = written(folder, changed(2, row))
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value) == f"{file}: line 4 has an empty cell; fill it or delete the line"


def test_blank_lines_count_as_lines(folder):
    file = written(folder, ["", "", *changed(2, "a/2.png,,train")])
    with pytest.raises(UserError, match="line 6 has an empty cell"):
        load(file)


def test_a_comma_too_many_on_every_line_is_refused_in_words(folder):
    file = written(folder, [row + "," for row in ROWS])
    with pytest.raises(UserError, match=rf"^{file}: "):
        load(file)


def test_a_comma_too_many_on_one_line_is_found_by_its_line(folder):
    file = written(folder, changed(2, ROWS[2] + ",more"))
    with pytest.raises(
        UserError, match=rf"^{file}: not a readable CSV \(.*Expected 3 fields in line 4, saw 4"
    ):
        load(file)


def test_missing_images_are_counted_and_named(folder):
    rows = [*ROWS[:3], *(f"a/gone{i}.png,cat,train" for i in range(5)), *ROWS[3:]]
    file = written(folder, rows)
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}: 5 images are not in {folder}: "
        f"{folder}/a/gone0.png, {folder}/a/gone1.png, {folder}/a/gone2.png and 2 more"
    )


def test_an_unknown_split_word_is_answered_with_the_nearest(folder):
    file = written(folder, changed(3, "b/3.jpg,dog,trian"))
    with pytest.raises(
        UserError, match=rf"^{file}: split=trian is not known; did you mean train\? Valid: gall"
    ):
        load(file)


def test_a_class_on_both_sides_is_named(folder):
    with pytest.raises(UserError, match=r"1 class is in training and in test: dog;"):
        load(written(folder, [row.replace("bee", "dog") for row in ROWS]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "No columns"), (b"path,label,split\n\xff\xfe.png,a,train\n", "can't decode byte 0xff")],
)
def test_a_file_that_is_no_csv_is_named(tmp_path, content, reason):
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{file}: not a readable CSV \(.*{reason}"):
        load(str(file))


def test_a_header_alone_has_no_images(folder):
    file = written(folder, [])
    with pytest.raises(UserError, match=rf"^{file}: no training images"):
        load(file)


def test_a_bad_image_is_named_before_training_or_left_out(folder):
    (folder / "b" / "8.jpg").write_text("text")
    file = written(folder, ROWS)
    with pytest.raises(UserError, match=rf"^{folder}/b/8\.jpg: not a readable image"):
        load(file)
    split = load(file, on_bad_image="skip")
    assert split.query.names == ("a/4.png", "b/5.jpg", "a/6.png", "b/7.jpg")


def test_a_class_of_one_image_is_refused_or_dropped(folder):
    file = written(folder, changed(4, "a/4.png,rat,test"))
    with pytest.raises(UserError, match=r"2 classes have a single image: ant, rat;"):
        load(file)
    assert load(file, on_small_class="drop").class_names == ("cat", "dog", "bee")


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", ";"),
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace(",", ", "),
        lambda text: text.replace(",", " , "),
        lambda text: text.replace("path,label,split", " Path ,LABEL,Split"),
        lambda text: "".join(f'"{cell}"{end}' for cell, end in re.findall(r"([^,\n]+)([,\n])", text)),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_every_dialect_is_the_same_data(folder, change, encoding):
    expected = load(written(folder, ROWS))
    (folder / "other.csv").write_text(change("\n".join(["path,label,split", *ROWS, ""])), encoding)
    found = load(str(folder / "other.csv"))
    assert found.class_names == expected.class_names
    assert found.fingerprints == expected.fingerprints


def test_an_empty_cell_below_cells_of_several_lines_is_found_by_its_line(folder):
    rows = [row + ',"two\nlines"' for row in ROWS]
    file = written(folder, [*rows[:4], "a/4.png, ,test,x", *rows[5:]], "path,label,split,note")
    with pytest.raises(UserError, match=r"line 10 has an empty cell"):
        load(file)


def test_labels_of_one_word_are_one_class_and_a_cell_stays_as_it_is(folder, capsys):
    rows = [*ROWS]
    rows[0], rows[4], rows[6] = "a/0.png,cat\u00a0,train", "a/4.png,'=1,test", "a/6.png,'=1,test"
    assert load(written(folder, rows)).class_names == ("cat", "dog", "'=1", "bee")
    assert "1 class is spelt in several ways" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["dot", "link", "hard"])
def test_a_file_in_training_and_in_test_is_named_however_it_is_listed(folder, way):
    name = {"dot": "./a/0.png", "link": "a/link.png", "hard": "a/hard.png"}[way]
    (folder / "a/link.png").symlink_to("0.png")
    (folder / "a/hard.png").hardlink_to(folder / "a/0.png")
    file = written(folder, [*ROWS, f"{name},ant,test"])
    with pytest.raises(UserError) as caught:
        load(file)
    assert str(caught.value) == (
        f"{file}: 1 file is in training and in test: {name} (as a/0.png); keep each on one side"
    )


def test_one_file_twice_is_refused_but_for_links_in_training_which_are_counted(folder, capsys):
    (folder / "a/link.png").symlink_to("0.png")
    (folder / "b/link.jpg").symlink_to("5.jpg")
    twice = r"./a/0.png is listed twice \(the same file as a/0.png\); keep one"
    for row, message in (
        ("a/0.png,cat,train", r"a/0.png is listed twice; keep one"),
        ("./a/0.png,cat,train", twice),
        ("a/link.png,dog,train", r"a/link.png is in class dog and, as a/0.png, in class cat; keep one"),
        ("b/link.jpg,bee,test", r"b/link.jpg is listed twice \(the same file as b/5.jpg\); keep one"),
    ):
        with pytest.raises(UserError, match=message):
            load(written(folder, [*ROWS, row]))
    assert len(load(written(folder, [*ROWS, "a/link.png,cat,train"])).train) == 5
    assert "1 training image is there already under another name, as a/link.png is as a/0.png" in (
        capsys.readouterr().err
    )


TRAIN = ROWS[:4]
TEST = ["a/4.png,ant", "b/5.jpg,bee", "a/6.png,ant", "b/7.jpg,bee", "b/8.jpg,bee"]


@pytest.mark.parametrize(
    "rows",
    [
        [f"{row},{'test' if i in (1, 2) else 'gallery'}" for i, row in enumerate(TEST)],
        [*(f"{row},gallery" for row in TEST), *(f"{TEST[i]},query" for i in (1, 2))],
        [*(f"{row},gallery" for row in TEST), *(f"./{TEST[i]},query" for i in (1, 2))],
    ],
)
def test_a_query_may_be_in_the_gallery_too_and_is_known_there(folder, rows, capsys):
    split = load(written(folder, [*TRAIN, *rows]))
    assert [name.removeprefix("./") for name in split.query.names] == ["b/5.jpg", "a/6.png"]
    assert split.gallery.names == tuple(row.split(",")[0] for row in TEST)
    assert split.twins.tolist() == [1, 2]
    assert split.twins.dtype == np.int64
    assert "2 of 2 queries are in the gallery too" in capsys.readouterr().err


def test_queries_that_the_gallery_lacks_have_no_twin(folder):
    rows = [*(f"{row},gallery" for row in TEST[1:]), *(f"{row},query" for row in TEST[:2])]
    assert load(written(folder, [*TRAIN, *rows])).twins.tolist() == [-1, 0]
    assert load(written(folder, ROWS)).twins is None
    rows = [*(f"{row},gallery" for row in TEST[2:]), *(f"{row},query" for row in TEST[:2])]
    assert load(written(folder, [*TRAIN, *rows])).twins is None


def test_a_query_and_its_own_file_in_the_gallery_have_one_class(folder):
    rows = [*(f"{row},gallery" for row in TEST), "./b/5.jpg,ant,query"]
    with pytest.raises(
        UserError, match=r"\./b/5.jpg is in class ant and, as b/5.jpg, in class bee; keep one"
    ):
        load(written(folder, [*TRAIN, *rows]))


def test_thousands_of_rows_keep_their_order_and_the_last_line_is_checked_as_the_first(tmp_path):
    n = 3000
    rows = [f"{i}.png,{i % 100},{'train' if i % 100 < 50 else 'test'}" for i in range(n)]
    for i in range(n):
        (tmp_path / f"{i}.png").touch()
    split = load(written(tmp_path, rows), on_bad_image="later")
    assert (len(split.train), len(split.query), len(split.class_names)) == (n // 2, n // 2, 100)
    assert split.query.names == tuple(f"{i}.png" for i in range(n) if i % 100 >= 50)
    assert [split.class_names[label] for label in split.query.labels[-2:]] == ["98", "99"]
    with pytest.raises(UserError, match=r"line 3001 has an empty cell"):
        load(written(tmp_path, [*rows[:-1], f"{n - 1}.png,,test"]))


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
def test_parquet_and_arrow_files_are_what_the_csv_is(folder, suffix):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra (tables)")
    from pyarrow import feather, parquet

    cells = [row.split(",") for row in ROWS]
    columns = dict(zip(("path", "label", "split"), zip(*cells, strict=True), strict=True))
    content = pyarrow.table(
        {"note": list(range(len(ROWS))), **{key: list(value) for key, value in columns.items()}}
    )
    write = parquet.write_table if suffix == ".parquet" else feather.write_feather
    write(content, folder / f"list{suffix}")
    one, other = load(csv=written(folder, ROWS)), load(csv=str(folder / f"list{suffix}"))
    assert one.fingerprints == other.fingerprints
    assert one.train.names == other.train.names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"path": ["a"], "label": ["b"]},
            r"no column split; it has path, label and needs path, label, split",
        ),
        (
            {"path": ["a", "b"], "label": ["b", None], "split": ["train"] * 2},
            r"row 1 \(from 0\) has an empty cell",
        ),
    ],
)
def test_a_parquet_file_that_lacks_something_is_one_line(tmp_path, columns, message):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is an extra (tables)")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    with pytest.raises(UserError, match=message):
        table.load(str(tmp_path / "list.parquet"))
    (tmp_path / "list.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a whole table"):
        table.load(str(tmp_path / "list.parquet"))
