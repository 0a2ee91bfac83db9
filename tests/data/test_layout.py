from os import listdir
from pathlib import Path

import pytest

from deconfuse.data.build import build
from deconfuse.data.images import FileImages
from deconfuse.data.layout import Layout, absent, confined, counts, fields, lines
from deconfuse.data.listing import Listing
from deconfuse.dataset import cars, cub, inshop, sop
from deconfuse.system.errors import UserError

LAYOUT = Layout(
    "made",
    "Made",
    (("list.txt", "images"), ("devkit/list.txt", "devkit/names.txt", "photos")),
    "made.tgz from the cellar",
    {"train": (3, 2), "query": (1, 1), "gallery": (2, 1)},
)


def touched(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def split_of(folder, parts=("train", "train", "train", "query", "gallery", "gallery")):
    files = [folder / "images" / part[0] / f"{i}.jpg" for i, part in enumerate(parts)]
    touched(folder, *(file.relative_to(folder) for file in files))
    classes = [f"a{i % 2}" if part == "train" else "b" for i, part in enumerate(parts)]
    listing = Listing(FileImages(files), classes, parts, [file.name for file in files], "made")
    return build(listing, on_bad_image="later", on_small_class="keep")


def test_the_first_way_that_is_whole_is_found(tmp_path):
    touched(tmp_path, "devkit/list.txt", "devkit/names.txt", "photos")
    assert LAYOUT.find(tmp_path) == [tmp_path / name for name in LAYOUT.ways[1]]
    touched(tmp_path, "list.txt", "images")
    assert LAYOUT.find(str(tmp_path)) == [tmp_path / "list.txt", tmp_path / "images"]


def test_what_is_missing_is_said_of_the_way_that_lacks_least(tmp_path, monkeypatch):
    touched(tmp_path, "devkit/list.txt", "devkit/names.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        LAYOUT.find(".")
    assert str(caught.value) == (
        f"dataset made: looked in {tmp_path} for devkit/list.txt, devkit/names.txt, photos and found no "
        "photos; they come in made.tgz from the cellar; unpack with deconfuse prepare made FILES, or "
        "set dataset.root=FOLDER"
    )


@pytest.mark.parametrize("below", [".", "Made", "download/Made"])
def test_the_folder_is_found_up_to_two_levels_below(tmp_path, below):
    touched(tmp_path / below, "list.txt", "images")
    touched(tmp_path, "__MACOSX/list.txt")
    assert LAYOUT.locate(tmp_path) == tmp_path / below


def test_a_folder_further_below_is_not_looked_for(tmp_path):
    touched(tmp_path / "a" / "b" / "c", "list.txt", "images")
    with pytest.raises(UserError, match=rf"looked in {tmp_path} for list.txt, images and found no"):
        LAYOUT.locate(tmp_path)


def test_counts_are_images_and_classes_of_each_part(tmp_path):
    assert counts(split_of(tmp_path)) == {"train": (3, 2), "query": (1, 1), "gallery": (2, 1)}
    shared = split_of(tmp_path / "other", ["train"] * 2 + ["test"] * 3)
    assert counts(shared) == {"train": (2, 2), "test": (3, 1)}


def test_all_images_and_the_right_counts_pass(tmp_path):
    LAYOUT.check(tmp_path, split_of(tmp_path))


def test_images_that_are_not_there_are_counted_and_named(tmp_path):
    split = split_of(tmp_path)
    for name in ("t/1.jpg", "q/3.jpg", "g/4.jpg", "g/5.jpg"):
        (tmp_path / "images" / name).unlink()
    with pytest.raises(UserError) as caught:
        LAYOUT.check(tmp_path, split)
    assert str(caught.value) == (
        f"dataset made: 4 of 6 images are not in {tmp_path}: images/t/1.jpg, images/q/3.jpg, images/g/4.jpg "
        "and 1 more; fetch and unpack it again"
    )


def test_a_test_image_is_counted_once_where_query_and_gallery_are_one(tmp_path):
    split = split_of(tmp_path, ["train"] * 2 + ["test"] * 3)
    (tmp_path / "images" / "t" / "4.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 5 images is not in"):
        LAYOUT.check(tmp_path, split)


def test_lists_that_are_short_are_an_error_with_both_numbers(tmp_path):
    split = split_of(tmp_path, ("train", "train", "query", "gallery", "gallery"))
    with pytest.raises(UserError) as caught:
        LAYOUT.check(tmp_path, split)
    assert str(caught.value) == (
        f"dataset made: the lists in {tmp_path} are not the authors': train 2 images of 2 classes, "
        "not 3 of 2; fetch and unpack it again"
    )


def test_files_that_are_absent_keep_their_order_and_a_folder_is_listed_once(tmp_path, monkeypatch):
    touched(tmp_path, "a/1", "a/3", "b/1")
    files = [tmp_path / name for name in ("b/2", "a/1", "c/1", "a/2", "b/1", "a/3", "c/2")]
    listed = []
    monkeypatch.setattr(
        "deconfuse.data.layout.os.listdir", lambda path: listed.append(Path(path).name) or listdir(path)
    )
    assert [path.relative_to(tmp_path).as_posix() for path in absent(files)] == ["b/2", "c/1", "a/2", "c/2"]
    assert sorted(listed) == ["a", "b"]


def test_lines_are_those_that_are_not_blank(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("eins\r\n\r\n  \nzwölf\n".encode())
    assert lines(path) == ["eins", "zwölf"]
    path.write_bytes("zwölf".encode("latin-1"))
    with pytest.raises(UserError, match=rf"^{path}: can't be read \(it is no UTF-8 text\); unpack"):
        lines(path)
    with pytest.raises(UserError, match=r"can't be read \(Is a directory\)"):
        lines(tmp_path)


def test_fields_are_words_and_the_last_may_hold_blanks():
    text = ["1  a b.jpg ", "2\tc.jpg"]
    assert fields(Path("x"), text, "id", "path") == [["1", "a b.jpg"], ["2", "c.jpg"]]
    with pytest.raises(UserError) as caught:
        fields(Path("x.txt"), [*text, " 3 "], "id", "path")
    assert str(caught.value) == (
        "x.txt: every line must be 'id path', and entry 3 is '3'; unpack the archive again"
    )


@pytest.mark.parametrize("name", ["/etc/a.jpg", "../a.jpg", "a/../../b.jpg", ".."])
def test_listed_names_stay_inside_the_folder(name):
    good = ["a/b.jpg", "..a/b..jpg", "a b.jpg"]
    assert confined(Path("x.txt"), iter(good)) == good
    with pytest.raises(UserError) as caught:
        confined(Path("x.txt"), [*good, name, "/other"])
    assert str(caught.value) == (
        f"x.txt: lists {name!r}, which is not inside the data set's folder; unpack the archive again"
    )


@pytest.mark.parametrize(
    ("option", "train", "test"),
    [
        (cub, (5864, 100), (5924, 100)),
        (cars, (8054, 98), (8131, 98)),
        (sop, (59551, 11318), (60502, 11316)),
    ],
)
def test_the_counts_of_the_field(option, train, test):
    assert option.LAYOUT.counts == {"train": train, "test": test}


def test_the_counts_of_inshop_are_those_of_all_its_images():
    found = inshop.LAYOUT.counts
    assert found == {"train": (25882, 3997), "query": (14218, 3985), "gallery": (12612, 3985)}
    assert sum(images for images, _ in found.values()) == 52712
