import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import cub
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(cub.load)

CLASSES = {
    99: ("099.Ovenbird", 2),
    100: ("100.Brown_Pelican", 3),
    101: ("101.White_Pelican", 2),
    102: ("102.Western_Wood_Pewee", 3),
}


@pytest.fixture
def birds(tmp_path):
    """A folder in the authors' layout, with image ids that don't sort as text (8 .. 17)."""
    root = tmp_path / "CUB_200_2011"
    images, labels, i = [], [], 8
    for label, (name, size) in CLASSES.items():
        (root / "images" / name).mkdir(parents=True)
        for k in range(size):
            path = f"{name}/{name[4:]}_{k:04}_{i}.jpg"
            pixels = np.random.default_rng(i).integers(0, 256, (20, 17 + k, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "images" / path)
            images.append(f"{i} {path}")
            labels.append(f"{i} {label}")
            i += 1
    (root / "images.txt").write_text("\n".join(images) + "\n")
    (root / "image_class_labels.txt").write_text("\n".join(reversed(labels)) + "\n")
    return root


def test_the_first_hundred_classes_train_and_the_rest_test(birds):
    split = load(str(birds))
    assert split.class_names == tuple(name for name, _ in CLASSES.values())
    assert split.num_classes == 2
    assert split.train.labels.tolist() == [0, 0, 1, 1, 1]
    assert split.query.labels.tolist() == [2, 2, 3, 3, 3]
    assert split.shared_gallery
    assert (split.image.size, split.image.channels, split.image.augment) == (224, 3, "photo")


def test_what_photos_are_resized_to_can_be_set(birds):
    image = load(str(birds), image_size=64, image_resize=72).image
    assert (image.size, image.resize) == (64, 72)


def test_samples_are_in_the_order_of_their_ids_as_numbers(birds):
    split = load(str(birds))
    ids = [
        int(name.removesuffix(".jpg").rsplit("_", 1)[1]) for name in (*split.train.names, *split.query.names)
    ]
    assert ids == list(range(8, 18))


def test_a_sample_is_the_photo_of_its_name(birds):
    split = load(str(birds))
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            with Image.open(birds / "images" / name) as image:
                np.testing.assert_array_equal(np.asarray(part.image(i)), np.asarray(image))


def test_a_missing_folder_is_named_with_what_belongs_in_it_and_its_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load("data/CUB_200_2011")
    assert str(caught.value) == (
        f"dataset cub: looked in {tmp_path}/data/CUB_200_2011 for images.txt, image_class_labels.txt, images "
        "and found no images.txt, image_class_labels.txt, images; they come in CUB_200_2011.tgz from "
        "https://www.vision.caltech.edu/datasets/cub_200_2011/; "
        "unpack with deconfuse prepare cub FILES, or set dataset.root=FOLDER"
    )


def test_only_the_missing_file_is_said_to_be_missing(birds):
    (birds / "image_class_labels.txt").unlink()
    with pytest.raises(
        UserError, match=r"and found no image_class_labels\.txt; they come in CUB_200_2011\.tgz"
    ):
        load(str(birds))


def test_lists_of_different_images_are_refused(birds):
    with open(birds / "images.txt", "a") as file:
        file.write("99 099.Ovenbird/more.jpg\n")
    with pytest.raises(
        UserError, match=rf"^{birds}: images\.txt and image_class_labels\.txt list different images"
    ):
        load(str(birds))


@pytest.mark.parametrize("name", ["images.txt", "image_class_labels.txt"])
def test_a_cut_line_is_refused_with_its_file(birds, name):
    with open(birds / name, "a") as file:
        file.write("18")
    with pytest.raises(UserError, match=rf"^{birds}/{name}: every line must be 'id value'"):
        load(str(birds))


@pytest.mark.parametrize(("name", "line"), [("images.txt", "x y.jpg"), ("image_class_labels.txt", "8 first")])
def test_a_word_where_a_number_belongs_is_refused_with_its_file(birds, name, line):
    lines = (birds / name).read_text().splitlines()
    (birds / name).write_text("\n".join([line if text.startswith("8 ") else text for text in lines]) + "\n")
    with pytest.raises(UserError, match=rf"^{birds}"):
        load(str(birds))


def test_a_photo_that_was_not_unpacked_is_named_before_training(birds):
    split = load(str(birds))
    path = birds / "images" / split.train.names[3]
    path.unlink()
    with pytest.raises(UserError, match=rf"^{path}: the image is gone"):
        load(str(birds))
    assert load(str(birds), on_bad_image="later").train.names == split.train.names
    skipped = load(str(birds), on_bad_image="skip")
    assert skipped.train.names == (*split.train.names[:3], split.train.names[4])


def test_a_damaged_photo_is_named_or_left_out(birds):
    split = load(str(birds))
    path = birds / "images" / split.query.names[4]
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UserError, match=rf"^{path}: not a readable image"):
        split.query.image(4)
    with pytest.raises(UserError, match=rf"^{path}: not a readable image"):
        load(str(birds))
    assert load(str(birds), on_bad_image="skip").query.names == split.query.names[:4]


def test_a_class_of_one_photo_is_refused_or_dropped(birds):
    for path in sorted((birds / "images" / "101.White_Pelican").iterdir())[1:]:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"single image: 101\.White_Pelican;"):
        load(str(birds), on_bad_image="skip")
    split = load(str(birds), on_bad_image="skip", on_small_class="drop")
    assert "101.White_Pelican" not in split.class_names


def test_moving_the_folder_keeps_the_fingerprint(birds, tmp_path):
    before = load(str(birds)).fingerprints[1]
    birds.rename(tmp_path / "moved")
    assert load(str(tmp_path / "moved")).fingerprints[1] == before


# --- boxes


@pytest.fixture
def boxed(birds):
    """The same folder with boxes: left, top, width and height as the authors write them."""
    lines = [f"{i} {1 + i % 3}.0 {i % 4}.0 {5 + i % 5}.0 {7 + i % 2}.0" for i in range(17, 7, -1)]
    (birds / "bounding_boxes.txt").write_text("\n".join(lines) + "\n")
    return birds


def test_images_are_cut_to_their_boxes_where_that_is_asked(boxed):
    whole, cut = load(str(boxed)), load(str(boxed), crop_box=True)
    for part, other in ((cut.train, whole.train), (cut.query, whole.query)):
        for k, name in enumerate(part.names):
            i = int(name.removesuffix(".jpg").rsplit("_", 1)[1])
            left, top = 1 + i % 3, i % 4
            expected = np.asarray(other.image(k))[top : top + 7 + i % 2, left : left + 5 + i % 5]
            np.testing.assert_array_equal(np.asarray(part.image(k)), expected)


def test_a_box_belongs_to_what_was_trained_on(boxed):
    whole, cut = load(str(boxed)).fingerprints[1], load(str(boxed), crop_box=True).fingerprints[1]
    text = (boxed / "bounding_boxes.txt").read_text()
    (boxed / "bounding_boxes.txt").write_text(text.replace("8 3.0", "8 4.0"))
    assert len({whole, cut, load(str(boxed), crop_box=True).fingerprints[1]}) == 3
    assert load(str(boxed)).fingerprints[1] == whole


@pytest.mark.parametrize("line", ["8 1.0 2.0 3.0", "8 1.0 2.0 x 4.0", "7 1.0 2.0 3.0 4.0"])
def test_an_image_without_a_box_is_named(boxed, line):
    text = (boxed / "bounding_boxes.txt").read_text().splitlines()
    (boxed / "bounding_boxes.txt").write_text("\n".join([*text[:-1], line]))
    with pytest.raises(
        UserError, match=r"bounding_boxes\.txt: image 8 has no box of four numbers; .*crop_box=false$"
    ):
        load(str(boxed), crop_box=True)
    load(str(boxed))


def test_boxes_that_were_not_unpacked_are_missed(birds):
    with pytest.raises(UserError, match=r"bounding_boxes\.txt: can't be read \(No such file"):
        load(str(birds), crop_box=True)


def test_the_word_for_boxes_is_checked(birds):
    with pytest.raises(UserError, match=r"^dataset\.crop_box=no is neither true nor false$"):
        load(str(birds), crop_box="no")


def test_a_list_in_another_encoding_is_one_line(birds):
    (birds / "images.txt").write_bytes(
        (birds / "images.txt").read_bytes().replace(b"Ovenbird", b"Ovenb\xefrd")
    )
    with pytest.raises(UserError, match=r"images\.txt: can't be read \(it is no UTF-8 text\)"):
        load(str(birds))


@pytest.mark.parametrize("name", ["/nowhere/a.jpg", "../a.jpg"])
def test_a_photo_outside_the_folder_is_refused(birds, name):
    with open(birds / "images.txt", "a") as images, open(birds / "image_class_labels.txt", "a") as labels:
        images.write(f"18 {name}\n")
        labels.write("18 102\n")
    with pytest.raises(UserError, match=rf"^{birds}/images\.txt: lists '{name}', which is not inside"):
        load(str(birds))
