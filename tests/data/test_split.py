import io

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.build import build
from deconfuse.data.images import ArrayImages, FeatureRows, FileImages
from deconfuse.data.pixels import Pixels
from deconfuse.data.readable import readable
from deconfuse.data.split import ImageSpec, RowSpec
from deconfuse.system.errors import UserError

SPEC = ImageSpec(8, 1, "none")


def pixels(n, side=5, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, side, side), dtype=np.uint8)


def made(samples, images=None, **options):
    """A Split of 'class part' words, e.g. 'b train'."""
    classes, parts = zip(*(sample.split() for sample in samples), strict=True)
    images = ArrayImages(pixels(len(samples))) if images is None else images
    names = options.pop("names", [f"{c}/{i}.png" for i, c in enumerate(classes)])
    return build(images, classes, parts, names, source="dataset made", image=SPEC, **options)


TWO_A = ["a train", "a train"]
TWO_SIDES = ["m test", "b train", "a test", "z train", "m test", "b train", "a test", "z train", "z train"]


def encoded(format, side=9, seed=0):
    buffer = io.BytesIO()
    Image.fromarray(pixels(3, side, seed).transpose(1, 2, 0)).save(buffer, format)
    return buffer.getvalue()


# --- build


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
    split = made(rows, same=[0, 1, "x", "x", 4, 5, 6, 7])
    assert split.twins.tolist() == [0]
    with pytest.raises(UserError, match=r"c/1.png is in class c and, as b/0.png, in class b; keep one"):
        made(["b train", "c train", "b train", "c train", "a test", "a test"], same=[0, 0, 2, 3, 4, 5])


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


def test_only_the_given_rows_are_taken():
    split = made([*TWO_SIDES, "b test"], rows=np.array([8, 7, 2, 6, 1, 5]))
    assert split.train.rows.tolist() == [8, 7, 1, 5]
    assert split.query.rows.tolist() == [2, 6]
    assert split.class_names == ("b", "z", "a")


def test_a_class_on_both_sides_is_named():
    rows = ["b train", "b train", "z train", "z train", "b test", "b test", "a test", "a test"]
    with pytest.raises(UserError, match=r"^dataset made: 1 class\(es\) are in training and in test: b; "):
        made(rows)


def test_many_classes_on_both_sides_are_counted():
    rows = [f"c{i} {part}" for i in range(7) for part in ("train", "train", "query", "gallery")]
    with pytest.raises(UserError, match=r": 7 class\(es\) .* test: c0, c1, c2, c3, c4 and 2 more; "):
        made(rows)


SMALL = ["b train", "b train", "s train", "a test", "a test", "t test", "c train", "c train"]


def test_a_class_with_one_image_is_refused_by_name():
    with pytest.raises(UserError) as caught:
        made(SMALL)
    assert str(caught.value) == (
        "dataset made: 2 class(es) have a single image: t, s; "
        "add images, or leave them out with dataset.on_small_class=drop"
    )


def test_a_class_with_one_image_is_dropped_where_that_is_asked():
    split = made(SMALL, on_small_class="drop")
    assert split.class_names == ("b", "c", "a")
    assert split.num_classes == 2
    assert split.train.rows.tolist() == [0, 1, 6, 7]
    assert split.query.rows.tolist() == [3, 4]


def test_one_image_on_each_of_two_sides_is_one_image_on_each():
    rows = ["b train", "b train", "s train", "s test", "a test", "a test", "c train", "c train"]
    with pytest.raises(UserError, match=r"2 class\(es\) have a single image: s, s;"):
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


def test_no_sample_at_all_is_an_empty_part():
    with pytest.raises(UserError, match=r"^dataset made: no training images"):
        made(TWO_SIDES, rows=np.arange(0))


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


# --- images


def test_array_images_are_the_pixels():
    images = ArrayImages(pixels(3))
    assert len(images) == 3
    assert images[2].mode == "L"
    np.testing.assert_array_equal(np.asarray(images[2]), pixels(3)[2])
    assert images.mark(1) == pixels(3)[1].tobytes()


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG"])
def test_an_image_file_can_be_used_after_it_was_closed(tmp_path, format):
    path = tmp_path / "x"
    path.write_bytes(encoded(format))
    with Image.open(path) as image:
        expected = np.asarray(image.convert("RGB"))
    image = FileImages([path])[0]
    path.unlink()
    np.testing.assert_array_equal(np.asarray(image.convert("RGB")), expected)


def test_a_missing_image_is_named_with_the_fix(tmp_path):
    path = tmp_path / "gone.png"
    with pytest.raises(UserError) as caught:
        FileImages([path])[0]
    assert str(caught.value) == f"{path}: the image is gone; restore it or take it off the list"


BAD = {
    "zero.png": b"",
    "text.png": b"this is text, not a picture\n" * 9,
    "half.jpg": encoded("JPEG", 99)[:-900],
    "half.png": encoded("PNG", 99)[:-900],
    "half.gif": encoded("GIF", 99)[:-900],
    "half.bmp": encoded("BMP", 99)[:-900],
    "head.png": encoded("PNG", 99)[:20],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_image_is_named_with_the_fix(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(BAD[name])
    with pytest.raises(UserError) as caught:
        FileImages([path])[0]
    text = str(caught.value)
    assert text.startswith(f"{path}: not a readable image (")
    assert text.endswith("); replace it or set dataset.on_bad_image=skip")
    assert "\n" not in text


def test_a_folder_in_place_of_an_image_is_named(tmp_path):
    with pytest.raises(UserError, match=r"not a readable image \(.*directory"):
        FileImages([tmp_path])[0]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_image_cut_anywhere_is_refused(tmp_path, cut):
    whole = encoded("PNG", 99)
    path = tmp_path / "cut.png"
    path.write_bytes(whole[: len(whole) * cut // 60])
    with pytest.raises(UserError, match=r"cut\.png: not a readable image"):
        FileImages([path])[0]


def folder_of(tmp_path):
    """Good and bad images in turn; returns them and the rows of the good ones."""
    good = {f"good{i}.png": encoded("PNG", seed=i) for i in range(4)}
    names = [
        "good0.png",
        "zero.png",
        "good1.png",
        "text.png",
        "half.jpg",
        "good2.png",
        "good3.png",
        "half.png",
    ]
    for name in names:
        (tmp_path / name).write_bytes({**BAD, **good}[name])
    return FileImages([tmp_path / name for name in names]), [0, 2, 5, 6]


def test_skip_drops_exactly_the_bad_rows_and_says_which(tmp_path, capsys):
    images, good = folder_of(tmp_path)
    assert readable(images, "skip").tolist() == good
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0].rpartition("/")[2] for line in said] == [
        "zero.png",
        "text.png",
        "half.jpg",
        "half.png",
    ]
    assert all(line.startswith("skipped ") and "not a readable image" in line for line in said)


def test_raise_names_the_first_bad_ones_and_their_number_before_training(tmp_path):
    images, good = folder_of(tmp_path)
    with pytest.raises(UserError) as caught:
        readable(images, "raise")
    text = str(caught.value)
    assert text.startswith(f"4 of 8 images can't be used: {tmp_path}/zero.png: not a readable image (")
    assert "text.png" in text
    assert "half.jpg" in text
    assert text.endswith(" and 1 more; mend or replace them, or set dataset.on_bad_image=skip")
    whole = FileImages([images.files[i] for i in good])
    assert readable(whole, "raise").tolist() == [0, 1, 2, 3]
    with pytest.raises(UserError, match=r"gone\.png: the image is gone; restore it"):
        readable(FileImages([tmp_path / "gone.png"]), "raise")


def test_later_looks_at_no_image(tmp_path):
    images, _ = folder_of(tmp_path)
    assert readable(images, "later").tolist() == list(range(8))


@pytest.mark.parametrize("format", ["PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF", "JPEG"])
@pytest.mark.parametrize("cut", [1, 3, 20, 400])
def test_a_file_cut_short_is_found_by_its_end_exactly_where_decoding_finds_it(tmp_path, format, cut):
    path, content = tmp_path / "x", encoded(format, 99)
    path.write_bytes(content)
    assert readable(FileImages([path]), "raise").tolist() == [0]
    path.write_bytes(content[:-cut])
    try:
        FileImages([path])[0]
    except UserError:
        with pytest.raises(UserError, match="not a readable image"):
            readable(FileImages([path]), "raise")
    else:
        assert readable(FileImages([path]), "raise").tolist() == [0]


def test_a_whole_file_is_not_decoded_for_the_look(tmp_path, monkeypatch):
    path = tmp_path / "x"
    for format in ("PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"):
        path.write_bytes(encoded(format, 99))
        with monkeypatch.context() as patch:
            patch.setattr("deconfuse.data.split.plain", lambda *args: 1 / 0)
            assert readable(FileImages([path]), "raise").tolist() == [0]


def test_a_very_large_image_is_named_in_one_line_and_not_warned_of(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    path = tmp_path / "big.png"
    Image.new("L", (15, 10)).save(path)
    images = FileImages([path])
    assert readable(images, "raise").tolist() == [0]
    assert images[0].size == (15, 10)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"very large images, read as a whole each time: {path} (15 x 10)"]


@pytest.mark.parametrize(
    ("highest", "dtype", "white"),
    [
        (200, np.uint16, 255),
        (4080, np.uint16, 4095),
        (65535, np.uint16, 65535),
        (1, np.float32, 1),
        (250, np.float32, 255),
    ],
)
def test_all_images_of_a_kind_have_the_scale_of_the_largest_value(tmp_path, capsys, highest, dtype, white):
    files = [tmp_path / f"{i}.tif" for i in range(2)]
    values = np.array([[0, highest]], dtype)
    for file, share in zip(files, (1, 0.5), strict=True):
        Image.fromarray((values * share).astype(dtype)).save(file)
    images = FileImages(files)
    readable(images, "raise")
    assert list(images.whites.values()) == [white]
    brightest = [int(np.asarray(images[i]).max()) for i in range(2)]
    assert brightest[0] == pytest.approx(255 * highest / white, abs=1)
    assert brightest[1] == pytest.approx(
        127.5 * highest / white, abs=1
    )  # half as bright stays half as bright
    assert f"{white:g} white" in capsys.readouterr().err
    assert images.mark(0).endswith(f"{float(white)}".encode())
    wide = FileImages(files, pixels=Pixels(value_range=[0, 2 * highest]))
    readable(wide, "raise")
    assert np.asarray(wide[0]).max() == pytest.approx(127.5, abs=0.5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, np.nan]], r"NaN or infinite"),
        ([[-0.5, 1]], r"values below 0, down to -0\.5"),
        ([[0, 3.0]], r"neither of 0 to 1 nor of 0 to 255\)?; set dataset\.value_range=\[0,1\]"),
    ],
)
def test_floats_without_a_scale_are_refused_with_the_files_name(tmp_path, values, said):
    path = tmp_path / "x.tif"
    Image.fromarray(np.array(values, np.float32)).save(path)
    with pytest.raises(UserError, match=rf"x\.tif: .*{said}"):
        readable(FileImages([path]), "raise")


def test_skip_of_nothing_but_bad_images_leaves_none(tmp_path):
    (tmp_path / "zero.png").write_bytes(b"")
    rows = readable(FileImages([tmp_path / "zero.png"] * 3), "skip")
    assert rows.tolist() == []
    with pytest.raises(UserError, match="no training images"):
        made(["a train", "a train", "b test"], rows=rows)


def test_the_word_for_bad_images_is_checked(tmp_path):
    with pytest.raises(UserError, match=r"^dataset\.on_bad_image=skipp is not known; did you mean skip\?"):
        readable(FileImages([]), "skipp")


# --- boxes


def boxed(tmp_path, box, size=(9, 7)):
    """One image of other numbers everywhere, and its box."""
    path = tmp_path / "bird.png"
    pixels = np.arange(size[0] * size[1], dtype=np.uint8).reshape(size[1], size[0])
    Image.fromarray(pixels).save(path)
    return FileImages([path], np.array([box], dtype=float)), pixels


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((2, 1, 5, 6), slice(1, 6), slice(2, 5)),
        ((0, 0, 9, 7), slice(0, 7), slice(0, 9)),
        ((1.6, 0.4, 4.4, 3.6), slice(0, 4), slice(2, 4)),
        ((-1, -1, 5, 8), slice(0, 7), slice(0, 5)),  # past the edge, by less than half
        ((8, 6, 9, 7), slice(6, 7), slice(8, 9)),
        ((3.1, 2.1, 3.2, 2.2), slice(2, 3), slice(3, 4)),  # thinner than a pixel
        ((8.6, 6.6, 9, 7), slice(6, 7), slice(8, 9)),
    ],
)
def test_an_image_is_cut_to_its_box(tmp_path, box, rows, columns):
    images, pixels = boxed(tmp_path, box)
    np.testing.assert_array_equal(np.asarray(images[0]), pixels[rows, columns])


@pytest.mark.parametrize("box", [(9, 0, 12, 7), (0, 7, 9, 9), (-5, 0, 0, 7), (5, 0, 14, 7), (0, -8, 9, 7)])
def test_a_box_outside_its_image_is_named_when_it_is_read(tmp_path, box):
    images, _ = boxed(tmp_path, box)
    edges = ", ".join(map(str, box))
    with pytest.raises(UserError) as caught:
        images[0]
    assert str(caught.value) == (
        f"{tmp_path}/bird.png: the box ({edges}), left, top, right, bottom, lies outside the image, 9 x 7 "
        "pixels; correct it or set dataset.crop_box=false"
    )
    assert readable(images, "skip").tolist() == []


@pytest.mark.parametrize("box", [(3, 1, 3, 5), (3, 5, 6, 5), (6, 1, 3, 5), (3, 6, 5, 2), (0, 0, np.nan, 7)])
def test_a_box_of_no_area_is_named_before_anything_is_read(tmp_path, box):
    with pytest.raises(
        UserError, match=r"bird\.png: the box \(.*\), left, top, right, bottom, has no area; "
    ):
        boxed(tmp_path, box)


# --- rows of features


def test_rows_are_float32_whatever_is_stored(tmp_path):
    for dtype in (np.float64, np.float16, np.int32):
        values = np.arange(15).reshape(5, 3).astype(dtype)
        rows = FeatureRows(values)
        assert (len(rows), rows[3].dtype, rows[3].tolist()) == (5, np.float32, [9, 10, 11])
        assert rows.mark(4) == np.array([12, 13, 14], dtype=np.float32).tobytes()


def test_what_is_done_to_a_row_changes_nothing_stored():
    values = np.ones((2, 3), dtype=np.float32)
    FeatureRows(values)[0][:] = 7
    assert (values == 1).all()


def test_a_spec_says_how_large_an_input_is_by_the_keyword_of_its_kind():
    assert ImageSpec(16, 3, "none").model_size == {"in_channels": 3}
    assert RowSpec(20).model_size == {"in_features": 20}


# --- fingerprint


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
    rows = np.arange(len(TWO_SIDES))
    swapped = rows.copy()
    swapped[[1, 5]] = swapped[[5, 1]]
    assert made(TWO_SIDES, rows=rows).fingerprints[1] != made(TWO_SIDES, rows=swapped).fingerprints[1]


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
    # dataset.on_bad_image=raise opens no image before the fingerprint does.
    images = files_in(tmp_path / "here")
    split = made(TWO_SIDES, images)
    images.files[4].unlink()
    with pytest.raises(UserError, match=r"here/4\.png: the image is gone"):
        split.fingerprints[1]


def test_fingerprint_is_of_a_files_size_its_two_ends_and_its_box(tmp_path):
    path = tmp_path / "long.jpg"
    content = np.random.default_rng(0).bytes(20011)
    path.write_bytes(content)
    assert FileImages([path]).mark(0) == b"20011" + content[:4096] + content[-4096:]
    short = tmp_path / "short.jpg"
    short.write_bytes(content[:77])
    assert FileImages([short]).mark(0) == b"77" + content[:77] * 2
    box = np.array([[1.0, 2.0, 3.0, 4.5]])
    assert FileImages([short], box).mark(0) == b"77" + content[:77] * 2 + box.tobytes()


def test_fingerprint_changes_with_a_box(tmp_path):
    files = files_in(tmp_path / "here").files
    boxes = np.tile([0.0, 0, 5, 5], (len(files), 1))
    other = boxes.copy()
    other[8, 2] = 4
    marks = {made(TWO_SIDES, FileImages(files, box)).fingerprints[1] for box in (None, boxes, other)}
    assert len(marks) == 3
