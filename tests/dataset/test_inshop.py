import numpy as np
import pytest
from PIL import Image

from deconfuse.dataset import inshop
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(inshop.load)

# item: (its categories in turn, parts of its images)
ITEMS = {
    "id_00000002": (["WOMEN/Dresses"], ["train", "train"]),
    "id_00000004": (["MEN/Denim", "WOMEN/Denim"], ["train", "train", "train"]),
    "id_00000006": (["WOMEN/Skirts"], ["train"]),
    "id_00000001": (["WOMEN/Tees_Tanks"], ["gallery", "query", "query"]),
    "id_00000007": (["MEN/Sweaters"], ["query", "gallery"]),
}


def made(root, lists="Eval/", home="Img/", items=ITEMS):
    """The benchmark's folder as its authors lay it out."""
    rows, seed = [], 0
    for item, (categories, parts) in items.items():
        for k, part in enumerate(parts):
            name = f"img/{categories[k % len(categories)]}/{item}/{k + 1:02}_1_front.jpg"
            path = root / home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(seed).integers(0, 256, (16, 11 + k, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            seed += 1
            rows.append(f"{name:<72}{item} {part:<10}")
    path = root / lists / "list_eval_partition.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([str(len(rows)), "image_name item_id evaluation_status", *rows]) + "\n")
    return root


@pytest.fixture
def shop(tmp_path):
    return made(tmp_path / "shop")


def test_queries_and_gallery_are_kept_apart(shop):
    split = load(str(shop))
    assert split.recall_at == (1, 10, 20, 30, 40, 50)
    assert load(str(shop), image_size=256, image_resize=288).image.resize == 288
    assert not split.shared_gallery
    assert split.class_names == ("id_00000002", "id_00000004", "id_00000006", "id_00000001", "id_00000007")
    assert split.num_classes == 3
    assert split.train.labels.tolist() == [0, 0, 1, 1, 1, 2]
    assert split.query.labels.tolist() == [3, 3, 4]
    assert split.gallery.labels.tolist() == [3, 4]
    assert split.gallery.names == (
        "img/WOMEN/Tees_Tanks/id_00000001/01_1_front.jpg",
        "img/MEN/Sweaters/id_00000007/02_1_front.jpg",
    )


def test_a_sample_is_the_photo_of_its_name(shop):
    split = load(str(shop))
    for part in (split.train, split.query, split.gallery):
        for i, name in enumerate(part.names):
            with Image.open(shop / "Img" / name) as image:
                np.testing.assert_array_equal(np.asarray(part.image(i)), np.asarray(image))


@pytest.mark.parametrize(("lists", "home"), [("Eval/", ""), ("", "Img/"), ("", "")])
def test_the_list_and_the_photos_may_be_at_the_top(tmp_path, shop, lists, home):
    other = made(tmp_path / "other", lists, home)
    assert load(str(other)).fingerprints[1] == load(str(shop)).fingerprints[1]


def test_an_item_with_one_training_image_stays_unless_it_is_unwanted(shop):
    with pytest.raises(UserError, match=r"1 class has a single image: id_00000006"):
        load(str(shop), on_small_class="raise")
    assert load(str(shop), on_small_class="drop").num_classes == 2


def test_a_missing_list_is_named_with_its_source(shop):
    (shop / "Eval" / "list_eval_partition.txt").unlink()
    with pytest.raises(UserError) as caught:
        load(str(shop))
    assert str(caught.value) == (
        f"dataset inshop: looked in {shop} for Eval/list_eval_partition.txt, Img/img and found no "
        "Eval/list_eval_partition.txt; they come in img.zip and list_eval_partition.txt of the In-shop "
        "Clothes Retrieval Benchmark from https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion.html; unpack "
        "with deconfuse prepare inshop FILES, or set dataset.root=FOLDER"
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "img/x.jpg id_00000009",
            r"every line must be 'image_name item_id evaluation_status', and entry 12 is",
        ),
        ("img/x.jpg id_00000009 test", r"split=test is not known; Valid: gallery, query, train$"),
        ("/nowhere/x.jpg id_00000009 query", r"lists '/nowhere/x\.jpg', which is not inside the data set's"),
        ("img/../../x.jpg id_00000009 query", r"lists 'img/\.\./\.\./x\.jpg', which is not inside"),
        ("img/x.jpg id_00000009 galery", r"split=galery is not known; did you mean gallery\?"),
        (
            "img/MEN/Sweaters/id_00000007/02_1_front.jpg id_00000007 gallery",
            r"img/.*/02_1_front\.jpg is listed twice",
        ),
        ("img/x.jpg id_00000002 query", r"1 class is in training and in test: id_00000002"),
    ],
)
def test_a_bad_row_is_named_with_the_list(shop, row, message):
    path = shop / "Eval" / "list_eval_partition.txt"
    with open(path, "a") as file:
        file.write(row)
    with pytest.raises(UserError, match=rf"^{path}: {message}"):
        load(str(shop), on_bad_image="later")


def test_a_list_of_test_rows_is_another_data_set(shop):
    path = shop / "Eval" / "list_eval_partition.txt"
    path.write_text(path.read_text().replace(" query ", " test ").replace(" gallery ", " test "))
    with pytest.raises(UserError, match=rf"^{path}: split=test is not known; Valid: gallery, query, train$"):
        load(str(shop))
