import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deconfuse.dataset import cars
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(cars.load)

NAMES = [f"Make {i:03} Coupe 2012" for i in range(1, 197)]
NAMES[97] = "Ram C/V Cargo Van Minivan 2012"
# (class, box counted from 1 with the last pixel in it), the authors' x1, y1, x2, y2
CARS = [
    (98, (1, 1, 13, 11)),
    (99, (2, 3, 6, 8)),
    (1, (5, 4, 5, 4)),
    (196, (1, 2, 12, 11)),
    (98, (3, 1, 9, 2)),
    (1, (2, 2, 4, 9)),
    (99, (4, 5, 13, 11)),
    (196, (7, 7, 8, 8)),
    (99, (1, 1, 2, 2)),
]
EDGES = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def photo(path, i):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(i).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def annotated(path, rows, fields, **more):
    """A .mat file with the 1 x n struct array `annotations`, as MATLAB writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    struct = np.empty((1, len(rows)), dtype=[(field, object) for field in fields])
    for i, row in enumerate(rows):
        struct[0, i] = tuple(np.uint16(value) if isinstance(value, int) else value for value in row)
    savemat(path, {"annotations": struct, **more})


def names_cell():
    cell = np.empty((1, len(NAMES)), dtype=object)
    cell[0, :] = NAMES
    return cell


def one_folder(root):
    """cars_annos.mat and car_ims/."""
    rows = []
    for i, (label, box) in enumerate(CARS):
        name = f"car_ims/{i + 1:06}.jpg"
        photo(root / name, i)
        rows.append((name, *box, label, i % 2))
    fields = ("relative_im_path", *EDGES, "class", "test")
    annotated(root / "cars_annos.mat", rows, fields, class_names=names_cell())
    return root


def devkit(root, home="", labelled="devkit/"):
    """devkit/, cars_train/ and cars_test/: every other car is the authors' test."""
    for part, first in (("train", 0), ("test", 1)):
        rows = []
        for i in range(first, len(CARS), 2):
            label, box = CARS[i]
            name = f"{i // 2 + 1:05}.jpg"
            photo(root / home / f"cars_{part}" / name, i)
            rows.append((*box, label, name))
        file = (
            "devkit/cars_train_annos.mat" if part == "train" else f"{labelled}cars_test_annos_withlabels.mat"
        )
        annotated(root / home / file, rows, (*EDGES, "class", "fname"))
    savemat(root / home / "devkit" / "cars_meta.mat", {"class_names": names_cell()})
    return root


@pytest.fixture
def cars(tmp_path):
    return one_folder(tmp_path / "cars")


def test_the_first_98_classes_train_and_the_rest_test(cars):
    split = load(str(cars))
    assert split.class_names == (NAMES[0], NAMES[97], NAMES[98], NAMES[195])
    assert split.num_classes == 2
    assert split.train.labels.tolist() == [1, 0, 1, 0]
    assert split.query.labels.tolist() == [2, 3, 2, 3, 2]
    assert split.train.names == tuple(f"car_ims/{i:06}.jpg" for i in (1, 3, 5, 6))
    assert split.shared_gallery


@pytest.mark.parametrize(
    ("home", "labelled"), [("", "devkit/"), ("", ""), ("stanford_cars/", ""), ("stanford_cars/", "devkit/")]
)
def test_the_devkit_holds_the_same_cars(cars, tmp_path, home, labelled):
    one, other = load(str(cars)), load(str(devkit(tmp_path / "other", home, labelled)))
    assert other.class_names == one.class_names
    assert other.train.names == (
        "cars_train/00001.jpg",
        "cars_train/00002.jpg",
        "cars_train/00003.jpg",
        "cars_test/00003.jpg",
    )
    for mine, theirs in ((one.train, other.train), (one.query, other.query)):
        seen = [
            sorted((int(part.labels[i]), np.asarray(part.image(i)).tobytes()) for i in range(len(part)))
            for part in (mine, theirs)
        ]
        assert seen[0] == seen[1]


@pytest.mark.parametrize("make", [one_folder, devkit])
def test_images_are_cut_to_their_boxes_where_that_is_asked(tmp_path, make):
    root = str(make(tmp_path / "cars"))
    whole, cut = load(root), load(root, crop_box=True)
    assert whole.fingerprints[1] != cut.fingerprints[1]
    seen = 0
    for part, other in ((cut.train, whole.train), (cut.query, whole.query)):
        for i, name in enumerate(part.names):
            number = int(name[-9:-4]) - 1
            car = number if make is one_folder else 2 * number + name.startswith("cars_test")
            x1, y1, x2, y2 = CARS[car][1]
            expected = np.asarray(other.image(i))[y1 - 1 : y2, x1 - 1 : x2]
            np.testing.assert_array_equal(np.asarray(part.image(i)), expected)
            seen += 1
    assert seen == len(CARS)


def test_a_box_turned_round_is_named(cars):
    rows = [(f"car_ims/{i + 1:06}.jpg", *box, label, 0) for i, (label, box) in enumerate(CARS)]
    rows[4] = (rows[4][0], 9, 1, 3, 2, 98, 0)
    fields = ("relative_im_path", *EDGES, "class", "test")
    annotated(cars / "cars_annos.mat", rows, fields, class_names=names_cell())
    with pytest.raises(UserError, match=r"car_ims/000005\.jpg: the box \(8, 0, 3, 2\), .*has no area"):
        load(str(cars), crop_box=True)
    assert len(load(str(cars)).train) == 4


def test_a_missing_file_is_named_with_its_layout(cars, tmp_path):
    (cars / "cars_annos.mat").unlink()
    with pytest.raises(UserError) as caught:
        load(str(cars))
    assert str(caught.value) == (
        f"dataset cars: looked in {cars} for cars_annos.mat, car_ims and found no cars_annos.mat; they come "
        "in car_ims.tgz and cars_annos.mat (or car_devkit.tgz, cars_train.tgz, cars_test.tgz and "
        "cars_test_annos_withlabels.mat), once at https://ai.stanford.edu/~jkrause/cars/car_dataset.html; "
        "unpack with deconfuse prepare cars FILES, or set dataset.root=FOLDER"
    )
    other = devkit(tmp_path / "other")
    (other / "devkit" / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"and found no devkit/cars_test_annos_withlabels\.mat; they"):
        load(str(other))


@pytest.mark.parametrize(
    ("length", "reason"), [(0, ": not a readable"), (100, ": not a readable"), (1000, ".* cut short")]
)
def test_a_cut_mat_file_is_refused_with_its_name(cars, length, reason):
    path = cars / "cars_annos.mat"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=rf"^{path}{reason}"):
        load(str(cars))


def test_annotations_without_labels_are_refused(tmp_path):
    # cars_test_annos.mat, which the devkit has, renamed.
    root = devkit(tmp_path / "cars")
    path = root / "devkit" / "cars_test_annos_withlabels.mat"
    annotated(path, [(1, 1, 2, 2, "00001.jpg")], (*EDGES, "fname"))
    with pytest.raises(UserError, match=rf"^{path}: annotations have no class; it is not"):
        load(str(root))


def test_another_mat_file_is_refused(cars):
    savemat(cars / "cars_annos.mat", {"other": 1})
    with pytest.raises(UserError, match=r"cars_annos\.mat: no variable class_names; it is"):
        load(str(cars))


def test_a_class_that_has_no_name_is_refused(cars):
    fields = ("relative_im_path", *EDGES, "class", "test")
    annotated(
        cars / "cars_annos.mat",
        [("car_ims/000001.jpg", 1, 1, 2, 2, 197, 0)],
        fields,
        class_names=names_cell(),
    )
    with pytest.raises(UserError, match=r"has 196 class_names, and 000001\.jpg is of class 197; unpack"):
        load(str(cars))


@pytest.mark.parametrize("name", ["/nowhere/a.jpg", "../a.jpg"])
def test_a_photo_outside_the_folder_is_refused(tmp_path, name):
    fields = ("relative_im_path", *EDGES, "class")
    (tmp_path / "car_ims").mkdir()
    annotated(tmp_path / "cars_annos.mat", [(name, 1, 1, 2, 2, 1)], fields, class_names=names_cell())
    with pytest.raises(UserError, match=rf"^{tmp_path}/cars_annos\.mat: lists '{name}', which is not inside"):
        load(str(tmp_path))
