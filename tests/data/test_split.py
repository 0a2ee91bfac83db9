import numpy as np
import pytest

from deconfuse.data.images import ArrayImages, FileImages
from deconfuse.data.split import ImageSpec, RowSpec
from deconfuse.system.errors import UserError
from tests.samples import TWO_SIDES, encoded, made, pixels


def test_a_spec_says_how_large_an_input_is_by_the_keyword_of_its_kind():
    assert ImageSpec(16, 3, "none").model_size == {"in_channels": 3}
    assert RowSpec(20).model_size == {"in_features": 20}


def test_the_training_parts_fingerprint_does_not_see_the_test_images():
    other = pixels(len(TWO_SIDES))
    tests = [i for i, row in enumerate(TWO_SIDES) if not row.endswith("train")]
    other[tests[0], 4, 4] ^= 1
    one, two = made(TWO_SIDES).fingerprints, made(TWO_SIDES, ArrayImages(other)).fingerprints
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_the_same_data_has_the_same_fingerprint():
    assert made(TWO_SIDES).fingerprints[1] == made(TWO_SIDES).fingerprints[1]
    assert len(made(TWO_SIDES).fingerprints[1]) == 64


def test_fingerprint_changes_with_labels():
    other = [*TWO_SIDES[:-1], "b train"]
    names = [str(i) for i in range(len(TWO_SIDES))]
    assert made(TWO_SIDES, names=names).fingerprints[1] != made(other, names=names).fingerprints[1]


def test_fingerprint_changes_with_names():
    names = [str(i) for i in range(len(TWO_SIDES))]
    other = [*names[:-1], "nine"]
    assert made(TWO_SIDES, names=names).fingerprints[1] != made(TWO_SIDES, names=other).fingerprints[1]


@pytest.mark.parametrize("row", [0, 8])
def test_fingerprint_changes_with_one_pixel(row):
    other = pixels(len(TWO_SIDES))
    other[row, 4, 4] ^= 1
    assert made(TWO_SIDES).fingerprints[1] != made(TWO_SIDES, ArrayImages(other)).fingerprints[1]


def test_fingerprint_changes_with_the_order_of_samples():
    order = np.arange(len(TWO_SIDES))
    order[[1, 5]] = order[[5, 1]]  # two images of one class and part
    names = np.array([f"{i}.png" for i in range(len(order))])
    one = made(TWO_SIDES, names=names.tolist())
    other = made(TWO_SIDES, ArrayImages(pixels(len(order))[order]), names=names[order].tolist())
    assert one.fingerprints[1] != other.fingerprints[1]


def files_in(folder):
    folder.mkdir(parents=True)
    files = [folder / f"{i}.png" for i in range(len(TWO_SIDES))]
    for i, file in enumerate(files):
        file.write_bytes(encoded("PNG", seed=i))
    return FileImages(files)


def test_fingerprint_of_files_is_that_of_any_other_place(tmp_path):
    here, there = files_in(tmp_path / "here"), files_in(tmp_path / "some" / "where" / "else")
    assert made(TWO_SIDES, here).fingerprints[1] == made(TWO_SIDES, there).fingerprints[1]


def test_fingerprint_of_files_changes_with_a_files_size(tmp_path):
    images = files_in(tmp_path / "here")
    before = made(TWO_SIDES, images).fingerprints[1]
    with open(images.files[8], "ab") as file:
        file.write(b"\0")
    assert made(TWO_SIDES, images).fingerprints[1] != before


def test_fingerprint_names_a_file_that_is_gone(tmp_path):
    # With dataset.on_bad_image=later no image is opened before the fingerprint is made.
    images = files_in(tmp_path / "here")
    split = made(TWO_SIDES, images)
    images.files[4].unlink()
    with pytest.raises(UserError, match=r"here/4\.png: the image is gone"):
        split.fingerprints[1]


def test_fingerprint_is_of_a_files_size_its_two_ends_and_its_box(tmp_path):
    path = tmp_path / "long.jpg"
    content = np.random.default_rng(0).bytes(20011)
    path.write_bytes(content)
    assert FileImages([path]).content(0) == b"20011" + content[:4096] + content[-4096:]
    short = tmp_path / "short.jpg"
    short.write_bytes(content[:77])
    assert FileImages([short]).content(0) == b"77" + content[:77] * 2
    box = np.array([[1.0, 2.0, 3.0, 4.5]])
    assert FileImages([short], box).content(0) == b"77" + content[:77] * 2 + box.tobytes()


def test_fingerprint_changes_with_a_box(tmp_path):
    files = files_in(tmp_path / "here").files
    boxes = np.tile([0.0, 0, 5, 5], (len(files), 1))
    other = boxes.copy()
    other[8, 2] = 4
    found = {made(TWO_SIDES, FileImages(files, box)).fingerprints[1] for box in (None, boxes, other)}
    assert len(found) == 3
