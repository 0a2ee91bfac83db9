import os

import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import folder
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(folder.load)


def picture(path, seed=0, side=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side + 3, 3), dtype=np.uint8)).save(
        path
    )


SIZES = {"bat": 2, "cat": 3, "dog": 4, "eel": 2, "fox": 5, "gnu": 3, "hen": 2}


@pytest.fixture
def animals(tmp_path):
    root = tmp_path / "animals"
    for name, size in SIZES.items():
        for i in range(size):
            picture(root / name / f"{i}.{('jpg', 'png')[i % 2]}", seed=i)
    return root


def sides(split):
    return set(split.class_names[: split.num_classes]), set(split.class_names[split.num_classes :])


def test_each_folder_is_a_class_and_each_image_a_sample(animals):
    split = load(str(animals), test_classes=["fox", "bat"])
    assert split.class_names == ("cat", "dog", "eel", "gnu", "hen", "bat", "fox")
    assert split.num_classes == 5
    assert np.bincount(split.train.labels).tolist() == [3, 4, 2, 3, 2]
    assert np.bincount(split.query.labels)[5:].tolist() == [2, 5]
    assert split.query.names == (
        "bat/0.jpg",
        "bat/1.png",
        *(f"fox/{i}.{('jpg', 'png')[i % 2]}" for i in range(5)),
    )
    assert split.shared_gallery
    assert (split.image.size, split.image.channels, split.image.augment) == (224, 3, "photo")


def test_what_photos_are_resized_to_can_be_set(animals):
    image = load(str(animals), image_size=64, image_resize=72).image
    assert (image.size, image.resize) == (64, 72)


def test_a_sample_is_the_file_of_its_name(animals):
    split = load(str(animals), test_classes=["fox", "bat"])
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            with Image.open(animals / name) as image:
                np.testing.assert_array_equal(np.asarray(part.image(i)), np.asarray(image))


@pytest.mark.parametrize(("share", "tests"), [(0.5, 4), (0.3, 2), (0.15, 1), (0.7, 5)])
def test_a_share_of_the_classes_tests_rounded(animals, share, tests):
    train, test = sides(load(str(animals), test_classes=share))
    assert (len(train), len(test)) == (7 - tests, tests)
    assert train | test == set(SIZES)


def test_which_classes_test_depends_on_the_seed_alone(animals):
    chosen = [frozenset(sides(load(str(animals), seed=seed))[1]) for seed in (*range(8), *range(8))]
    assert chosen[:8] == chosen[8:]
    assert len(set(chosen)) > 4
    assert set.union(*map(set, chosen)) == set(SIZES)


def test_images_further_down_belong_to_the_topmost_folder(animals):
    picture(animals / "cat" / "wild" / "far" / "lynx.png")
    split = load(str(animals), test_classes=["fox"])
    assert "cat/wild/far/lynx.png" in split.train.names
    assert len(split.class_names) == 7


@pytest.mark.parametrize(
    "suffix",
    [
        ".jpg",
        ".jfif",
        ".jpe",
        ".png",
        ".gif",
        ".bmp",
        ".ppm",
        ".tif",
        ".webp",
        ".jp2",
        ".tga",
        ".ico",
        ".JPG",
        ".Png",
    ],
)
def test_every_image_suffix_counts_in_either_case(animals, suffix):
    picture(animals / "cat" / f"more{suffix}")
    assert f"cat/more{suffix}" in load(str(animals), test_classes=["fox"]).train.names


def test_other_files_are_no_samples(animals):
    (animals / "cat" / "notes.txt").write_text("text")
    (animals / "cat" / "folder.png").mkdir()
    (animals / "empty").mkdir()
    picture(animals / "loose.png")
    split = load(str(animals), test_classes=["fox"])
    assert len(split.train) + len(split.query) == sum(SIZES.values())
    assert "empty" not in split.class_names


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "cat/._0.png"])
def test_what_other_programs_leave_behind_is_no_class_and_no_sample(animals, hidden):
    # Jupyter's copies, and what a Mac's zip files bring along; two of each, or it is a small class.
    for name in (hidden, hidden.replace("0", "1")):
        picture(animals / name)
    split = load(str(animals), test_classes=["fox"])
    assert set(split.class_names) == set(SIZES)
    assert len(split.train) + len(split.query) == sum(SIZES.values())


def test_a_class_may_be_a_link_to_a_folder(animals, tmp_path):
    for i in range(3):
        picture(tmp_path / "elsewhere" / f"{i}.png")
    (animals / "yak").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    split = load(str(animals), test_classes=["fox"])
    assert [name for name in split.train.names if name.startswith("yak")] == [
        "yak/0.png",
        "yak/1.png",
        "yak/2.png",
    ]


def test_moving_the_folder_keeps_the_fingerprint(animals, tmp_path):
    before = load(str(animals)).fingerprints[1]
    animals.rename(tmp_path / "moved")
    assert load(str(tmp_path / "moved")).fingerprints[1] == before


def test_a_name_that_is_not_utf8_is_refused_in_words(animals):
    # As old archives leave them: é as the byte E9. Neither the fingerprint nor a CSV can hold it.
    path = os.fsencode(animals / "cat") + b"/caf\xe9.png"
    picture(animals / "cat" / "plain.png")
    os.rename(os.fsencode(animals / "cat" / "plain.png"), path)
    with pytest.raises(UserError, match="cat/caf"):
        load(str(animals), test_classes=["fox"]).fingerprints[1]


# --- errors


def test_a_missing_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load("nowhere")
    assert str(caught.value) == (
        f"dataset folder: looked in {tmp_path}/nowhere and it is no folder; "
        "it needs one sub-folder of images per class; set dataset.root=FOLDER"
    )


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file and it is no folder"):
        load(str(tmp_path / "file"))


def test_a_folder_without_images_in_sub_folders_is_named(tmp_path):
    picture(tmp_path / "loose.png")
    (tmp_path / "cat").mkdir()
    with pytest.raises(
        UserError, match=rf"^dataset folder: {tmp_path} has no images in sub-folders; .*\.jpg"
    ):
        load(str(tmp_path))


def test_an_unknown_test_class_is_answered_with_the_nearest(animals):
    with pytest.raises(UserError) as caught:
        load(str(animals), test_classes=["fox", "gno"])
    assert str(caught.value) == (
        f"dataset.test_classes: no class gno in {animals}; "
        "did you mean gnu? Valid: bat, cat, dog, eel, fox, gnu, hen"
    )


def test_one_class_name_without_brackets_is_one_class_name(animals):
    # dataset.test_classes=fox is natural to write, and its letters are no classes.
    assert sides(load(str(animals), test_classes="fox"))[1] == {"fox"}


def test_classes_called_by_numbers_can_test(tmp_path):
    # Hydra reads dataset.test_classes=[7,8] as numbers.
    for name in "5678":
        for i in range(2):
            picture(tmp_path / name / f"{i}.png")
    assert sides(load(str(tmp_path), test_classes=[7, 8])) == ({"5", "6"}, {"7", "8"})


def test_an_unknown_class_called_by_a_number_is_refused_in_words(animals):
    with pytest.raises(UserError, match=r"no class 7 in"):
        load(str(animals), test_classes=[7])


@pytest.mark.parametrize("share", [1.2, -0.1])
def test_a_share_outside_its_range_is_refused(animals, share):
    with pytest.raises(
        UserError, match=rf"^dataset\.test_classes={share} is out of range; give a value in \[0"
    ):
        load(str(animals), test_classes=share)


@pytest.mark.parametrize(("share", "part"), [(0.0, "query"), (1.0, "training"), (0.01, "query")])
def test_a_share_that_leaves_one_side_empty_is_refused(animals, share, part):
    with pytest.raises(UserError, match=rf"^dataset folder in {animals}: no {part} images"):
        load(str(animals), test_classes=share)


def test_a_class_of_one_image_is_refused_or_dropped(animals):
    picture(animals / "ibex" / "only.png")
    with pytest.raises(UserError, match=r"1 class has a single image: ibex;"):
        load(str(animals), test_classes=["fox"])
    split = load(str(animals), test_classes=["fox"], on_small_class="drop")
    assert set(split.class_names) == set(SIZES)


def test_a_bad_image_is_named_before_training_or_left_out(animals):
    split = load(str(animals), test_classes=["fox"])
    (animals / "dog" / "2.jpg").write_bytes((animals / "dog" / "2.jpg").read_bytes()[:200])
    with pytest.raises(UserError, match=rf"^{animals}/dog/2\.jpg: not a readable image"):
        load(str(animals), test_classes=["fox"])
    skipped = load(str(animals), test_classes=["fox"], on_bad_image="skip")
    assert set(split.train.names) - set(skipped.train.names) == {"dog/2.jpg"}
    assert skipped.train.names == tuple(name for name in split.train.names if name != "dog/2.jpg")
    for i in range(len(skipped.train)):
        skipped.train.image(i)


def test_skipping_down_to_a_single_image_makes_a_small_class(animals):
    (animals / "eel" / "0.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="single image: eel;"):
        load(str(animals), test_classes=["fox"], on_bad_image="skip")
    split = load(str(animals), test_classes=["fox"], on_bad_image="skip", on_small_class="drop")
    assert "eel" not in split.class_names


def test_leaving_out_a_bad_test_image_changes_nothing_that_trains(animals):
    before = load(str(animals), test_classes=["fox"]).fingerprints
    (animals / "fox" / "2.jpg").write_bytes(b"")
    after = load(str(animals), test_classes=["fox"], on_bad_image="skip").fingerprints
    assert after[0] == before[0]
    assert after[1] != before[1]


# --- links, other files, tools' folders


def test_linked_folders_below_a_class_are_read_once_and_loops_end(animals, tmp_path, capsys):
    for i in range(3):
        picture(tmp_path / "elsewhere" / f"{i}.png", seed=40 + i)
    (animals / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (animals / "cat" / "again").symlink_to(tmp_path / "elsewhere")
    (animals / "cat" / "up").symlink_to(animals)
    (animals / "cat" / "self").symlink_to(animals / "cat")
    (animals / "cat" / "gone.png").symlink_to(tmp_path / "nothing.png")
    split = load(str(animals), test_classes=["fox"])
    cats = [name for name in split.train.names if name.startswith("cat/")]
    assert len(cats) == 3 + 3
    assert len(split.train) + len(split.query) == sum(SIZES.values()) + 3
    said = capsys.readouterr().err
    assert "did not follow 3 links to folders read already" in said
    assert "left out 1 link to nothing: cat/gone.png" in said


def test_what_is_left_out_is_counted_by_its_ending(animals, capsys):
    for name in ("a.txt", "b.TXT", "c.pdf", "README"):
        (animals / "cat" / name).write_text("x")
    picture(animals / "loose.png")
    for name in ("@eaDir/0.png/THUMB.png", ".thumbnails/1.png"):
        picture(animals / "cat" / name)
    (animals / "dog" / "Thumbs.db").write_text("x")
    for i in range(2):
        picture(animals / ".lynx" / f"{i}.png")
    split = load(str(animals), test_classes=["fox"])
    assert len(split.train) + len(split.query) == sum(SIZES.values())
    said = capsys.readouterr().err
    assert "left out 4 files without an image's ending: 2 .txt, 1 .pdf, 1 without an ending" in said
    assert "left out 3 files that other programs leave" in said
    assert "left out 1 image beside the class folders: loose.png" in said
    assert "left out the folder .lynx with 2 images, as its name begins with a dot; rename it" in said


# --- folders that say splits


def splits(base, **parts):
    for part, classes in parts.items():
        for name in classes:
            for i in range(2):
                picture(base / part / name / f"{i}.png", seed=i)
    return str(base)


@pytest.mark.parametrize(
    "words", [("train", "test"), ("Training", "Testing"), ("train", "val"), ("train", "valid")]
)
def test_folders_named_after_splits_are_the_splits(tmp_path, words):
    train, test = words
    split = load(splits(tmp_path, **{train: "ab", test: "cd"}))
    assert split.class_names == ("a", "b", "c", "d")
    assert split.num_classes == 2
    assert split.query.names == tuple(f"{test}/{c}/{i}.png" for c in "cd" for i in range(2))
    assert split.shared_gallery


def test_query_and_gallery_are_two_parts(tmp_path):
    split = load(splits(tmp_path, train="ab", query="cd", gallery="cd"))
    assert not split.shared_gallery
    assert {name.split("/")[0] for name in split.query.names} == {"query"}
    assert {name.split("/")[0] for name in split.gallery.names} == {"gallery"}


def test_validation_images_beside_test_are_left_out_and_said(tmp_path, capsys):
    split = load(splits(tmp_path, train="ab", val="ef", test="cd"))
    assert split.class_names == ("a", "b", "c", "d")
    assert "4 validation images left out" in capsys.readouterr().err


def test_the_same_classes_on_both_sides_are_refused_with_the_words_or_pooled(tmp_path):
    root = splits(tmp_path, train="abcd", test="abcd")
    with pytest.raises(UserError, match=r"4 classes have images both in train .*dataset\.layout=pooled"):
        load(root)
    split = load(root, layout="pooled", test_classes=["c", "d"])
    assert sides(split) == ({"a", "b"}, {"c", "d"})
    assert len(split.train) == len(split.query) == 8


def test_test_classes_beside_folders_that_say_splits_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^dataset\.test_classes=0\.5: .* says by its folders test, train"):
        load(splits(tmp_path, train="ab", test="cd"), test_classes=0.5)


def test_folders_that_say_splits_can_be_classes(tmp_path):
    root = splits(tmp_path, train="ab", val="cd", test="ef")
    assert sides(load(root, layout="classes", test_classes=["val"])) == ({"train", "test"}, {"val"})


def test_a_single_word_of_a_split_is_a_class(tmp_path):
    root = splits(tmp_path, train="x", bus="x", car="x", plane="x")
    assert set(load(root).class_names) == {"train", "bus", "car", "plane"}


def test_other_folders_or_loose_images_beside_splits_are_refused(tmp_path):
    root = splits(tmp_path / "a", train="ab", test="cd", extra="e")
    with pytest.raises(UserError, match=r"the folders test, train say splits, and extra beside them do not"):
        load(root)
    root = splits(tmp_path / "b", train="ab", test="cd")
    picture(tmp_path / "b" / "train" / "flat.png")
    with pytest.raises(UserError, match=r"1 image lies in them without a class folder: train/flat\.png"):
        load(root)
