import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import sop
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(sop.load)

HEADER = "image_id class_id super_class_id path"
TRAIN = {1: ("bicycle", 2), 2: ("bicycle", 3), 10: ("mug", 2)}
TEST = {11319: ("bicycle", 3), 11320: ("sofa", 2)}


@pytest.fixture
def things(tmp_path):
    """A folder in the authors' layout: two lists with a header each, photos below category_final."""
    root = tmp_path / "Stanford_Online_Products"
    seed = 0
    for side, classes in (("train", TRAIN), ("test", TEST)):
        rows = [HEADER]
        for label, (category, size) in classes.items():
            (root / f"{category}_final").mkdir(parents=True, exist_ok=True)
            for k in range(size):
                name = f"{category}_final/{label * 1001}_{k}.JPG"
                pixels = np.random.default_rng(seed).integers(0, 256, (11, 13 + k, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name, "JPEG")
                seed += 1
                rows.append(f"{seed} {label} {3 + seed % 2} {name}")
        (root / f"Ebay_{side}.txt").write_text("\n".join(rows) + "\n")
    return root


def test_the_authors_lists_say_who_trains(things):
    split = load(str(things))
    assert split.class_names == ("bicycle 1", "bicycle 2", "mug 10", "bicycle 11319", "sofa 11320")
    assert split.num_classes == 3
    assert split.train.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert split.query.labels.tolist() == [3, 3, 3, 4, 4]
    assert split.shared_gallery
    assert (split.image.size, split.image.channels, split.image.augment) == (224, 3, "photo")
    assert split.recall_at == (1, 10, 100, 1000)
    assert load(str(things), image_size=256, image_resize=288).image.resize == 288


def test_a_sample_is_the_photo_of_its_name(things):
    split = load(str(things))
    assert split.train.names[2] == "bicycle_final/2002_0.JPG"
    for part in (split.train, split.query):
        for i, name in enumerate(part.names):
            with Image.open(things / name) as image:
                np.testing.assert_array_equal(np.asarray(part.image(i)), np.asarray(image))


def test_a_subset_of_the_lists_is_data_as_well(things):
    lines = (things / "Ebay_train.txt").read_text().splitlines()
    (things / "Ebay_train.txt").write_text("\r\n".join([*lines[:3], "", *lines[6:]]))
    assert load(str(things)).train.labels.tolist() == [0, 0, 1, 1]


def test_a_missing_list_is_named_with_its_source(things):
    (things / "Ebay_test.txt").unlink()
    with pytest.raises(UserError) as caught:
        load(str(things))
    assert str(caught.value) == (
        f"dataset sop: looked in {things} for Ebay_train.txt, Ebay_test.txt and found no Ebay_test.txt; they "
        "come in Stanford_Online_Products.zip from https://cvgl.stanford.edu/projects/lifted_struct/; unpack "
        "with deconfuse prepare sop FILES, or set dataset.root=FOLDER"
    )


@pytest.mark.parametrize("text", ["", "1 1 1 bicycle_final/1001_0.JPG\n"])
def test_a_list_without_its_header_is_refused(things, text):
    (things / "Ebay_train.txt").write_text(text)
    with pytest.raises(UserError, match=r"Ebay_train\.txt: the first line must be 'image_id class_id"):
        load(str(things))


def test_a_cut_line_is_shown(things):
    with open(things / "Ebay_test.txt", "a") as file:
        file.write("13 11320 4")
    with pytest.raises(
        UserError, match=rf"^{things}/Ebay_test\.txt: every line .* entry 6 is '13 11320 4'; "
    ):
        load(str(things))


def test_a_photo_that_is_gone_is_named_or_left_out(things):
    path = things / "bicycle_final" / "2002_1.JPG"
    path.unlink()
    with pytest.raises(UserError, match=rf"^{path}: the image is gone"):
        load(str(things))
    left = load(str(things), on_bad_image="skip")
    assert left.train.labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("name", ["/nowhere/a.jpg", "../a.jpg"])
def test_a_photo_outside_the_folder_is_refused(things, name):
    with open(things / "Ebay_test.txt", "a") as file:
        file.write(f"13 11320 4 {name}\n")
    with pytest.raises(UserError, match=rf"^{things}/Ebay_test\.txt: lists '{name}', which is not inside"):
        load(str(things))
