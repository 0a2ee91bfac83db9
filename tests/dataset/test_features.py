import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deconfuse.dataset import features
from deconfuse.system.errors import UserError
from tests.samples import reader

load = reader(features.load)

N, D = 11, 3
SPLIT = np.array(["train"] * 5 + ["test"] * 6)
LABELS = np.array([7, 7, 10, 10, 10, 2, 2, 1, 1, 1, 2])
FEATURES = np.random.default_rng(0).normal(size=(N, D))
GOOD = {"features": FEATURES, "labels": LABELS, "split": SPLIT}


def npz(folder, **changes):
    arrays = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    np.savez(folder / "data.npz", **arrays)
    return str(folder / "data.npz")


def npy(folder, **changes):
    home = folder / "data"
    home.mkdir(exist_ok=True)
    for key, value in {**GOOD, **changes}.items():
        if value is not None:
            np.save(home / f"{key}.npy", value)
    return str(home)


@pytest.mark.parametrize("saved", [npz, npy])
def test_rows_become_samples_in_their_order(tmp_path, saved):
    split = load(saved(tmp_path))
    assert split.image.features == D
    assert split.class_names == ("10", "7", "1", "2")
    assert split.num_classes == 2
    assert split.train.labels.tolist() == [1, 1, 0, 0, 0]
    assert split.query.labels.tolist() == [3, 3, 2, 2, 2, 3]
    assert split.query.names == tuple(f"row {i}" for i in range(5, 11))
    assert split.shared_gallery
    for i in range(6):
        np.testing.assert_array_equal(split.query.image(i), FEATURES[5 + i].astype(np.float32))
        assert split.query.image(i).dtype == np.float32


def test_a_file_and_a_folder_of_the_same_numbers_are_the_same_data(tmp_path):
    one = load(npz(tmp_path)).fingerprints[1]
    assert load(npy(tmp_path)).fingerprints[1] == one
    assert load(npy(tmp_path, features=FEATURES.astype(np.float32))).fingerprints[1] == one
    other = FEATURES.copy()
    other[10, 2] += 1e-3
    assert load(npy(tmp_path, features=other)).fingerprints[1] != one


def test_a_folders_features_stay_on_disk(tmp_path):
    split = load(npy(tmp_path))
    assert isinstance(split.train.images.values, np.memmap)


def test_a_gallery_of_its_own_and_names(tmp_path):
    part = np.array(["train"] * 5 + ["query", "gallery"] * 3)
    paths = np.array([f"a/{i}.jpg" for i in range(N)])
    labels = np.array(list("xxyyy") + list("ppqqqq"))
    split = load(npz(tmp_path, split=part, paths=paths, labels=labels))
    assert not split.shared_gallery
    assert split.query.names == ("a/5.jpg", "a/7.jpg", "a/9.jpg")
    assert [split.class_names[c] for c in split.gallery.labels] == ["p", "q", "q"]


def test_words_may_be_bytes(tmp_path):
    split = load(npz(tmp_path, split=SPLIT.astype("S"), labels=LABELS.astype("S")))
    assert split.class_names == ("10", "7", "1", "2")


@pytest.mark.parametrize("dtype", [np.float16, np.int8, np.uint32])
def test_other_real_numbers_become_float32(tmp_path, dtype):
    values = np.arange(N * D).reshape(N, D).astype(dtype)
    np.testing.assert_array_equal(load(npy(tmp_path, features=values)).query.image(5), [30, 31, 32])


# --- errors


def test_a_missing_place_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        load("data.npz")
    assert str(caught.value) == (
        f"dataset features: looked for {tmp_path}/data.npz and found neither an .npz file nor a folder; it "
        "needs the arrays features, labels, split; set dataset.path=FILE.npz or FOLDER"
    )


def test_missing_arrays_are_named(tmp_path):
    with pytest.raises(
        UserError, match=r"data\.npz: no labels, split; it needs features, labels, split and may"
    ):
        load(npz(tmp_path, labels=None, split=None))
    with pytest.raises(UserError, match=r"data: no labels\.npy; it needs features\.npy, .* have paths\.npy$"):
        load(npy(tmp_path, labels=None))


@pytest.mark.parametrize("saved", [npz, npy])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": FEATURES[:, 0]}, r"features are float64 of shape \(11,\); give real numbers"),
        ({"features": FEATURES[:, :0]}, r"features are float64 of shape \(11, 0\)"),
        ({"features": FEATURES.astype(complex)}, r"features are complex128 of shape"),
        ({"features": FEATURES.astype(str)}, r"features are <U\d+ of shape"),
        ({"labels": LABELS[:-1]}, r"labels has shape \(10,\), for 11 rows of features it must be \(11,\)"),
        ({"split": SPLIT[:, None]}, r"split has shape \(11, 1\), for 11 rows"),
        ({"paths": np.array(["a"])}, r"paths has shape \(1,\)"),
        ({"labels": LABELS + 0.5}, r"labels are float64; give whole numbers or strings"),
        ({"labels": LABELS > 5}, r"labels are bool; give whole numbers or strings"),
        ({"split": LABELS}, r"split are int64; give strings"),
        ({"labels": np.array(["a"] * 10 + [""])}, r"labels\[10\] is empty; fill it"),
        ({"labels": np.array([b"\xff"] * 11)}, r"labels are bytes that are no UTF-8"),
        ({"split": np.array(["trian"] * 11)}, r"split=trian is not known; did you mean train"),
        ({"labels": LABELS * 0}, r"is in training and in test: 0"),
        ({"labels": np.arange(11)}, r"11 classes have a single image"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, saved, changes, message):
    with pytest.raises(UserError, match=message):
        load(saved(tmp_path, **changes))


@pytest.mark.parametrize("saved", [npz, npy])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, r"1e\+39")])
def test_a_number_that_is_not_finite_as_float32_is_found_by_its_place(
    tmp_path, monkeypatch, saved, value, word
):
    monkeypatch.setattr("deconfuse.dataset.features.CHECKED_BYTES", 4 * D * 4)  # four rows at a time
    features = FEATURES.copy()
    features[9, 1] = value
    with pytest.raises(
        UserError, match=rf"features\[9, 1\] is {word}; every number must be finite as float32"
    ):
        load(saved(tmp_path, features=features))


@pytest.mark.parametrize("saved", [npz, npy])
def test_python_objects_are_never_unpickled(tmp_path, saved):
    labels = np.array([LABELS.tolist()[i] for i in range(N)], dtype=object)
    with pytest.raises(UserError, match=r"labels.*: holds Python objects; save it as an array"):
        load(saved(tmp_path, labels=labels))
    with pytest.raises(UserError, match=r"features.*: holds Python objects; save it as an array"):
        load(saved(tmp_path, features=FEATURES.astype(object)))


@pytest.mark.parametrize("part", range(1, 10))
def test_a_cut_file_is_refused_wherever_it_ends(tmp_path, part):
    whole = Path(npz(tmp_path)).read_bytes()
    (tmp_path / "data.npz").write_bytes(whole[: len(whole) * part // 10])
    with pytest.raises(UserError, match=r"data\.npz: not a whole \.npz file"):
        load(str(tmp_path / "data.npz"))


@pytest.mark.parametrize("name", ["features", "labels", "split"])
def test_a_cut_array_is_refused_with_its_name(tmp_path, name):
    home = npy(tmp_path)
    file = tmp_path / "data" / f"{name}.npy"
    whole = file.read_bytes()
    for length in (0, 7, len(whole) - 3):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=rf"^{file}: not a whole array \(.+\); save it again$"):
            load(home)


def test_an_array_damaged_inside_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, FEATURES)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("features.npy", buffer.getvalue()[:-9])
        for key in ("labels", "split"):
            buffer = io.BytesIO()
            np.save(buffer, GOOD[key])
            file.writestr(f"{key}.npy", buffer.getvalue())
    with pytest.raises(UserError, match=r"data\.npz, features: not a whole array"):
        load(str(path))


def test_a_single_array_is_not_enough(tmp_path):
    np.save(tmp_path / "features.npy", FEATURES)
    with pytest.raises(
        UserError, match=r"features\.npy: not a whole \.npz file; give one that numpy\.savez wrote"
    ):
        load(str(tmp_path / "features.npy"))


# --- names and what is one sample


def test_repeated_paths_get_numbers_in_each_part(tmp_path, capsys):
    paths = np.array(["a", "a", "a (2)", "b", "a", "a", "c", "c", "d", "e", "f"])
    split = load(npz(tmp_path, paths=paths))
    assert split.train.names == ("a", "a (3)", "a (2)", "b", "a (4)")
    assert split.query.names == ("a", "c", "c (2)", "d", "e", "f")
    assert capsys.readouterr().err.endswith(
        "3 of 11 rows have the path of an earlier one (crops of one image?) and get a number: "
        "paths[1] is named a (3)\n"
    )


def test_paths_that_are_there_once_stay_as_they_are(tmp_path, capsys):
    load(npz(tmp_path, paths=np.array([f"{i}.png" for i in range(N)])))
    assert capsys.readouterr().err == ""


def test_a_query_that_is_in_the_gallery_is_known_by_path_and_features(tmp_path):
    part = np.array(["train"] * 5 + ["query"] * 3 + ["gallery"] * 3)
    labels = np.array([0, 0, 1, 1, 1, 2, 3, 3, 3, 2, 3])
    paths = np.array([*"tuvwx", "p", "q", "q", "q", "p", "q"])
    features = FEATURES.copy()
    features[[8, 9]] = features[[6, 5]] * (1 + 1e-5)  # as another batch rounds; the third q is another crop
    split = load(npz(tmp_path, split=part, labels=labels, paths=paths, features=features))
    assert split.query.names == ("p", "q", "q (2)")
    assert split.twins.tolist() == [1, 0, -1]
    assert load(npz(tmp_path, split=part, labels=labels, features=features)).twins is None


def test_a_query_is_found_in_the_gallery_behind_another_row_of_its_path(tmp_path):
    part = np.array(["train"] * 5 + ["query"] * 3 + ["gallery"] * 3)
    labels = np.array([0, 0, 1, 1, 1, 2, 3, 3, 3, 2, 3])
    features = FEATURES.copy()
    features[[10, 8, 9]] = features[[5, 6, 7]]
    labels[[10, 8, 9]] = labels[[5, 6, 7]]
    split = load(npz(tmp_path, split=part, labels=labels, paths=np.full(N, "1.jpg"), features=features))
    assert split.twins.tolist() == [2, 0, 1]
    # Of one path a part, too: training has the path first, with other features.
    paths = np.array([*"abcde", *"abc", *"bca"])
    split = load(npz(tmp_path, split=part, labels=labels, paths=paths, features=features))
    assert split.twins.tolist() == [2, 0, 1]


def test_each_of_equal_crops_has_a_row_of_the_gallery_to_itself(tmp_path):
    part = np.array(["train"] * 5 + ["query"] * 3 + ["gallery"] * 3)
    labels, features = np.array([0, 0, 1, 1, 1, 2, 2, 3, 2, 2, 3]), FEATURES.copy()
    features[[6, 8, 9]] = features[5]
    features[10] = features[7]
    paths = np.array([*"tuvwx", "p", "p", "q", "p", "p", "q"])
    split = load(npz(tmp_path, split=part, labels=labels, paths=paths, features=features))
    assert split.twins.tolist() == [0, 1, 2]


def test_many_crops_of_one_path_are_matched_as_by_comparing_every_pair():
    draw = np.random.default_rng(1)
    crops = draw.normal(size=(300, 40)) * draw.choice([1e-9, 1.0, 1e9], (300, 1))
    order = draw.permutation(300)
    near = crops[order] * (1 + draw.choice([1e-5, 5e-3], (300, 1)))  # the others are of another crop
    rows, parts = np.concatenate([crops, near]), ["query"] * 300 + ["gallery"] * 300
    distance = np.linalg.norm(near[:, None] - crops[None], axis=2)
    same = distance <= features.SAME * np.linalg.norm(near, axis=1)[:, None]
    assert 100 < same.sum() < 200
    want = [int(np.flatnonzero(row)[0]) if row.any() else 300 + i for i, row in enumerate(same)]
    assert features._identities(rows, ["1.jpg"] * 600, parts) == [*range(300), *want]


def test_the_same_row_in_training_and_in_test_is_named(tmp_path):
    paths, features = np.array([f"{i}.png" for i in range(N)]), FEATURES.copy()
    paths[7] = "2.png"
    assert len(load(npz(tmp_path, paths=paths)).query) == 6  # another crop of it
    features[7] = features[2]
    with pytest.raises(UserError, match=r"1 file is in training and in test: 2.png; keep each"):
        load(npz(tmp_path, paths=paths, features=features))


def test_labels_of_one_word_are_one_class(tmp_path):
    labels = np.array(["x", "x\u00a0", "ｙ", "y", "y", *"ppqqqq"])
    assert load(npz(tmp_path, labels=labels)).class_names == ("x", "y", "p", "q")


@pytest.mark.parametrize("saved", [npz, npy])
@pytest.mark.parametrize("nothing", [0.0, 1e-60, 1e-40])
def test_a_row_of_zeros_is_named(tmp_path, saved, nothing):
    """Also numbers that float32 takes for zeros, or keeps few digits of."""
    zero = FEATURES.copy()
    zero[3] = nothing
    want = r"data(.npz)?: features\[3\] is all zeros, as float32 at least, .*keep ="
    with pytest.raises(UserError, match=want):
        load(saved(tmp_path, features=zero))


def test_rows_of_zeros_are_counted_in_any_chunks(tmp_path, monkeypatch):
    zero = FEATURES.copy()
    zero[[1, 4, 5, 9, 10]] = 0
    zero[0, :2] = 0  # one number is enough for a direction
    want = r"5 rows are all zeros, features\[1\], features\[4\], features\[5\] and 2 more, as float32"
    for size in (64, 4 * D):
        monkeypatch.setattr("deconfuse.dataset.features.CHECKED_BYTES", size)
        with pytest.raises(UserError, match=want):
            load(npz(tmp_path, features=zero))


@pytest.mark.parametrize(("scale", "exponent"), [(1e-18, 59), (1e18, -60), (1e-30, 99), (1e37, -123)])
def test_huge_and_tiny_numbers_are_multiplied_by_one_power_of_two(tmp_path, capsys, scale, exponent):
    rows = (FEATURES / np.abs(FEATURES).max() * scale).astype(np.float32)
    split = load(npz(tmp_path, features=rows))
    assert f"so all of them are multiplied by 2^{exponent}" in " ".join(capsys.readouterr().err.split())
    given = np.concatenate([[part.image(i) for i in range(len(part))] for part in (split.train, split.query)])
    np.testing.assert_array_equal(given.astype(np.float64), rows.astype(np.float64) * 2.0**exponent)
    assert 0.5 <= np.abs(given).max() <= 1


def test_usual_numbers_stay_as_they_are(tmp_path, capsys):
    rows = (FEATURES * 1000).astype(np.float32)
    split = load(npz(tmp_path, features=rows))
    np.testing.assert_array_equal(split.query.image(0), rows[5])
    assert "multiplied" not in capsys.readouterr().err
