import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import ArrayImages, FeatureRows, FileImages
from deconfuse.data.listing import Listing, Reading
from deconfuse.data.split import ImageSpec, RowSpec
from deconfuse.system.errors import UserError
from tests.samples import TWO_A, TWO_SIDES, encoded, made, pixels, reader


def test_class_ids_are_sorted_names_training_first():
    split = made(TWO_SIDES)
    assert split.class_names == ("b", "z", "a", "m")
    assert split.num_classes == 2
    assert split.train.labels.tolist() == [0, 1, 0, 1, 1]
    assert split.query.labels.tolist() == [3, 2, 3, 2]
    assert split.train.labels.dtype == np.int64


def test_samples_keep_their_order_names_and_images():
    images = ArrayImages(pixels(len(TWO_SIDES)))
    split = made(TWO_SIDES, images)
    assert split.train.rows.tolist() == [1, 3, 5, 7, 8]
    assert split.train.names == ("b/1.png", "z/3.png", "b/5.png", "z/7.png", "z/8.png")
    assert (len(split.train), len(split.query)) == (5, 4)
    assert split.query.names == ("m/0.png", "a/2.png", "m/4.png", "a/6.png")
    for i, row in enumerate([0, 2, 4, 6]):
        np.testing.assert_array_equal(np.asarray(split.query.image(i)), images.pixels[row])


def test_without_a_gallery_of_its_own_the_gallery_is_the_query():
    split = made(TWO_SIDES)
    assert split.gallery is split.query
    assert split.shared_gallery


def test_query_and_gallery_stay_apart_where_they_are_given():
    rows = ["b train", "q query", "q gallery", "b train", "p gallery", "p query", "q gallery", *TWO_A]
    split = made(rows)
    assert not split.shared_gallery
    assert split.query.names == ("q/1.png", "p/5.png")
    assert split.gallery.names == ("q/2.png", "p/4.png", "q/6.png")
    assert split.query.labels.tolist() == [3, 2]
    assert split.gallery.labels.tolist() == [3, 2, 3]
    assert split.twins is None


def test_a_test_sample_beside_query_and_gallery_is_both_and_knows_itself():
    split = made(["b train", "b train", "q query", "q gallery", "p test", "p test", *TWO_A])
    assert split.query.names == ("q/2.png", "p/4.png", "p/5.png")
    assert split.gallery.names == ("q/3.png", "p/4.png", "p/5.png")
    assert split.twins.tolist() == [-1, 1, 2]


def test_the_same_files_are_known_whatever_their_names():
    rows = ["b train", "b train", "q query", "q gallery", "p gallery", "p gallery", *TWO_A]
    split = made(rows, identities=[0, 1, "x", "x", 4, 5, 6, 7])
    assert split.twins.tolist() == [0]
    with pytest.raises(UserError, match=r"c/1.png is in class c and, as b/0.png, in class b; keep one"):
        made(["b train", "c train", "b train", "c train", "a test", "a test"], identities=[0, 0, 2, 3, 4, 5])


def test_one_training_class_is_refused():
    with pytest.raises(UserError, match=r"^dataset made: one training class alone, b; .* two or more"):
        made(["b train", "b train", "a test", "a test", "c test", "c test"])


def test_one_class_in_the_gallery_is_said(capsys):
    split = made(["b train", "b train", *TWO_A, "c test", "c test"])
    assert split.trivial == "R@1 is 1 by construction: all images to be found are of one class, c"
    assert capsys.readouterr().err == (
        f"warning: dataset made: {split.trivial}; test on two classes or more\n"
    )
    assert made(TWO_SIDES).trivial is None
    split = made(["b train", "b train", *TWO_A, "c query", "c gallery", "d query", "d query"])
    assert split.trivial.endswith("class, c")
    assert (
        made(["b train", "b train", *TWO_A, "c query", "c gallery", "d gallery", "d gallery"]).trivial is None
    )


def test_images_that_are_skipped_leave_rows_names_and_classes_of_the_others(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(10)]
    for i, file in enumerate(files):
        file.write_bytes(b"" if i in (0, 3, 4, 9) else encoded("PNG", seed=i))
    split = made([*TWO_SIDES, "b test"], FileImages(files), on_bad_image="skip")
    assert split.train.rows.tolist() == [1, 5, 7, 8]
    assert split.train.names == ("b/1.png", "b/5.png", "z/7.png", "z/8.png")
    assert split.query.rows.tolist() == [2, 6]
    assert split.class_names == ("b", "z", "a")


def test_a_class_on_both_sides_is_named():
    rows = ["b train", "b train", "z train", "z train", "b test", "b test", "a test", "a test"]
    with pytest.raises(UserError, match=r"^dataset made: 1 class is in training and in test: b; "):
        made(rows)


def test_many_classes_on_both_sides_are_counted():
    rows = [f"c{i} {part}" for i in range(7) for part in ("train", "train", "query", "gallery")]
    with pytest.raises(UserError, match=r": 7 classes are .* test: c0, c1, c2, c3, c4 and 2 more; "):
        made(rows)


SMALL = ["b train", "b train", "s train", "a test", "a test", "t test", "c train", "c train"]


def test_a_class_with_one_image_is_refused_by_name():
    with pytest.raises(UserError) as caught:
        made(SMALL)
    assert str(caught.value) == (
        "dataset made: 2 classes have a single image: t, s; "
        "add images, or leave them out with dataset.on_small_class=drop"
    )


def test_a_class_with_one_image_is_dropped_where_that_is_asked():
    split = made(SMALL, on_small_class="drop")
    assert split.class_names == ("b", "c", "a")
    assert split.num_classes == 2
    assert split.train.rows.tolist() == [0, 1, 6, 7]
    assert split.query.rows.tolist() == [3, 4]


def test_classes_with_one_image_that_are_dropped_are_counted_and_named(capsys):
    samples = [*SMALL, "u test", "u test"]
    made(samples, on_small_class="drop")
    assert capsys.readouterr().err.splitlines() == [
        "dataset made: 2 classes with a single image are left out, 2 images of 10 "
        "(dataset.on_small_class=drop): t, s"
    ]
    rows = [*samples, *(f"x{i} train" for i in range(5))]
    made(rows, on_small_class="drop")
    said = " ".join(capsys.readouterr().err.split())
    assert said.endswith("7 images of 15 (dataset.on_small_class=drop): t, s, x0, x1, x2 and 2 more")
    made([row for row in samples if row[0] not in "st"], on_small_class="drop")
    assert capsys.readouterr().err == ""


def test_one_image_on_each_of_two_sides_is_one_image_on_each():
    rows = ["b train", "b train", "s train", "s test", "a test", "a test", "c train", "c train"]
    with pytest.raises(UserError, match=r"2 classes have a single image: s, s;"):
        made(rows)
    assert made(rows, on_small_class="drop").class_names == ("b", "c", "a")


def test_one_query_and_one_gallery_image_are_enough():
    split = made(["b train", "b train", "q query", "q gallery", *TWO_A])
    assert split.class_names == ("a", "b", "q")


def test_a_class_name_may_hold_a_slash_and_any_letter():
    rows = ["Μ/1 train", "Μ/1 train", "а/2/3 test", "а/2/3 test", "x/y train"]
    with pytest.raises(UserError, match="single image: x/y;"):
        made(rows)


def test_a_class_with_one_image_is_kept_where_that_is_asked():
    split = made(SMALL, on_small_class="keep")
    assert split.class_names == ("b", "c", "s", "a", "t")
    assert split.train.rows.tolist() == [0, 1, 2, 6, 7]
    assert split.query.rows.tolist() == [3, 4, 5]


def test_a_single_test_image_has_no_neighbour():
    with pytest.raises(UserError) as caught:
        made(["b train", "b train", "a test"], on_small_class="keep")
    assert str(caught.value) == (
        "dataset made: the only test image has no other to be compared with; add test images"
    )
    rows = ["b train", "b train", "c train", "a query", "a gallery"]
    assert len(made(rows, on_small_class="keep").query) == 1


def test_the_word_for_small_classes_is_checked():
    with pytest.raises(UserError, match=r"^dataset\.on_small_class=dorp is not known; did you mean drop\?"):
        made(TWO_SIDES, on_small_class="dorp")


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        (["a test", "a test"], "training"),
        (["b train", "b train"], "query"),
        (["b train", "b train", "q query", "q query"], "gallery"),
        (["b train", "b train", "q gallery", "q gallery"], "query"),
        (["b train", "a test"], "training"),
    ],
)
def test_an_empty_part_is_named(rows, what):
    with pytest.raises(UserError, match=rf"^dataset made: no {what} images; give it at least two classes"):
        made(rows, on_small_class="drop")


def test_an_unknown_split_word_is_answered_with_the_nearest():
    with pytest.raises(UserError) as caught:
        made([*TWO_SIDES, "b trian"])
    assert str(caught.value) == (
        "dataset made: split=trian is not known; did you mean train? Valid: gallery, query, test, train"
    )


def test_the_recalls_of_a_data_set_are_kept():
    assert made(TWO_SIDES).recall_at == (1, 2, 4, 8)
    assert made(TWO_SIDES, recall_at=(1, 10, 100)).recall_at == (1, 10, 100)


def test_same_things_are_ids_of_this_split_in_groups_of_two_or_more():
    groups = [["a", "b", "gone"], ["gone", "z"], ["m", "z"], []]
    assert made(TWO_SIDES, same_things=groups).same_things == ((0, 2), (1, 3))


def test_a_listing_is_read_as_it_says_unless_the_settings_say_otherwise():
    assert made(TWO_SIDES).image == ImageSpec(8, 1, "none")
    common = {"image_size": 16, "image_resize": 20, "channels": 3, "augment": "photo"}
    assert made(TWO_SIDES, **common).image == ImageSpec(16, 3, "photo", 20)
    rows = FeatureRows(np.eye(9, 4))
    assert made(TWO_SIDES, rows).image == RowSpec(4)


def test_what_lies_behind_transparent_pixels_is_the_settings(tmp_path):
    files = [tmp_path / f"{i}.png" for i in range(9)]
    for i, file in enumerate(files):
        Image.fromarray(np.full((4, 4, 2), (i, 0), np.uint8), "LA").save(file)
    for background, value in ((None, 255), ("black", 0), (77, 77)):
        common = {} if background is None else {"background": background}
        assert (
            np.asarray(made(TWO_SIDES, FileImages(files), **common).train.image(0)).tolist()
            == [[value] * 4] * 4
        )


@pytest.mark.parametrize("key", ["background", "on_bad_image", "image_size"])
def test_a_key_without_meaning_for_the_samples_is_refused(key):
    images = FeatureRows(np.eye(9, 4)) if key == "image_size" else ArrayImages(pixels(9))
    with pytest.raises(UserError, match=rf"^dataset\.{key} has no meaning for dataset made; leave it out "):
        made(TWO_SIDES, images, **{key: "raise"})


def listed(number, word="w"):
    """A made data set that has keys of its own."""
    names = [f"{word}{i}" for i in range(number)]
    classes = [f"c{i % 4}" for i in range(number)]
    parts = ["train" if i % 4 < 2 else "test" for i in range(number)]
    return Listing(ArrayImages(pixels(number)), classes, parts, names, "listed", reading=Reading(8))


def test_keys_go_to_the_function_and_to_the_reading_by_their_names():
    split = reader(listed)(number=9, word="x", channels=1, augment="none")
    assert split.train.names == ("x0", "x1", "x4", "x5", "x8")
    assert split.image == ImageSpec(8, 1, "none")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"number": 9, "image_sise": 9},
            "there is no key dataset.image_sise; did you mean image_size? Valid: ",
        ),
        ({"number": 9, "wort": "x"}, "there is no key dataset.wort; did you mean word? Valid: "),
        ({"word": "x"}, "dataset.number has no default; give it as dataset.number=VALUE"),
        ({"_target_": "nowhere.load"}, "dataset._target_=nowhere.load: no function of that name ("),
        (
            {"_target_": "tests.samples.lost"},
            "dataset._target_=tests.samples.lost: no function of that name (",
        ),
        ({"_target_": "load"}, "dataset._target_=load: no function of that name ("),
    ],
)
def test_a_key_that_nobody_has_and_one_that_is_missing_are_named(keys, message):
    with pytest.raises(UserError) as caught:
        reader(listed)(**keys)
    assert str(caught.value).startswith(message)


def random_listing(seed):
    """What the checks are compared on: samples of few classes, files and parts, so that any may collide."""
    random = np.random.default_rng(seed)
    n = int(random.integers(8, 14))
    parts = random.choice(["train", "test", "query", "gallery"], n, p=[0.5, 0.2, 0.15, 0.15]).tolist()
    classes = [
        f"{'t' if part == 'train' else 'q'}{c}"
        for part, c in zip(parts, random.integers(2, size=n), strict=True)
    ]
    files = [int(i) if random.random() < 0.9 else int(random.integers(n)) for i in range(n)]
    return classes, parts, files


def slow(classes, parts, files):
    """The gallery row of each query's own file by loops over pairs; None for samples to be refused."""
    sides = {"train": ("train",), "query": ("test", "query"), "gallery": ("test", "gallery")}
    of = {side: [i for i, part in enumerate(parts) if part in words] for side, words in sides.items()}
    for side, others in (
        ("train", "query"),
        ("train", "gallery"),
        ("query", "query"),
        ("gallery", "gallery"),
    ):
        if any(i != j and files[i] == files[j] for i in of[side] for j in of[others]):
            return None
    for side, others in (("train", "train"), ("query", "gallery")):
        if any(files[i] == files[j] and classes[i] != classes[j] for i in of[side] for j in of[others]):
            return None
    if not all(of.values()) or len({classes[i] for i in of["train"]}) < 2:
        return None
    if of["query"] == of["gallery"]:
        return [] if len(of["query"]) > 1 else None
    own = [next((k for k, j in enumerate(of["gallery"]) if files[i] == files[j]), -1) for i in of["query"]]
    return own if max(own) >= 0 else []


def test_files_and_twins_are_found_as_loops_over_all_pairs_find_them():
    kept = 0
    for seed in range(400):
        classes, parts, files = random_listing(seed)
        wanted = slow(classes, parts, files)
        samples = [f"{c} {part}" for c, part in zip(classes, parts, strict=True)]
        names = [f"{i}.png" for i in range(len(samples))]
        if wanted is None:
            with pytest.raises(UserError):
                made(samples, names=names, identities=files, on_small_class="keep")
            continue
        kept += 1
        twins = made(samples, names=names, identities=files, on_small_class="keep").twins
        assert (wanted or None) == (None if twins is None else twins.tolist())
    assert 40 < kept < 360
