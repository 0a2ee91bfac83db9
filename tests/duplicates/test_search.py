import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from deconfuse.data.images import ArrayImages
from deconfuse.data.split import ImageSpec, Part, RowSpec, Split
from deconfuse.duplicates.search import Search, search
from deconfuse.system.errors import UserError


def scene(seed, side=200):
    """A made-up picture: some random shapes on a gradient."""
    random = np.random.default_rng(seed)
    x, y = np.meshgrid(*[np.linspace(0, 1, side)] * 2)
    pixels = 90 * (random.uniform(-1, 1) * x + random.uniform(-1, 1) * y) + 128
    for _ in range(9):
        (a, b), r = random.uniform(0, 1, 2), random.uniform(0.08, 0.3)
        pixels[(x - a) ** 2 + (y - b) ** 2 < r**2] = random.uniform(0, 255)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def jpeg(image, quality=40):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("L")


def same_size(image):
    return np.asarray(image.resize((64, 64), Image.Resampling.BICUBIC))


COPIES = {
    "resized": lambda image: image.resize((120, 120), Image.Resampling.LANCZOS),
    "cropped": lambda image: image.crop((10, 0, 200, 190)),
    "jpeg": jpeg,
}


def data(pictures, train, labels, z, image=None):
    """(a split with the pictures, the first of them for training; the embeddings by part)."""
    images = ArrayImages(np.stack(pictures))
    names = tuple(f"{i}.png" for i in range(len(pictures)))
    labels = np.array(labels)
    parts = [
        Part(images, np.arange(len(pictures))[some], labels[some], names[some])
        for some in (slice(0, train), slice(train, None))
    ]
    split = Split(*parts, parts[1], tuple("abxy"), 2, image or ImageSpec(64, 1, "none"))
    return split, {"train": z[:train], "query": z[train:], "gallery": z[train:]}


def test_made_up_copies_are_found_and_other_pictures_are_not():
    originals = [scene(i) for i in range(24)]
    copies = [make(originals[i]) for i, make in enumerate(COPIES.values())]
    pictures = [same_size(image) for image in [*originals, *copies, originals[20]]]
    z = torch.randn(len(pictures), 16, generator=torch.Generator().manual_seed(0))
    for copy, of in zip(range(24, 28), [0, 1, 2, 20], strict=True):
        z[copy] = z[of] + 0.02 * z[copy]
    z[5] = z[4] + 0.02 * z[5]  # near, but another picture
    split, sides = data(pictures, 20, [0] * 10 + [1] * 10 + [2] * 4 + [3] * 4, 100 * z)
    found = search(Search(True, False), split, sides)
    groups = [
        [
            (part, int(row))
            for part, row in zip(found.part[found.group == g], found.row[found.group == g], strict=True)
        ]
        for g in range(4)
    ]
    assert groups == [[("train", k), ("query", 4 + k)] for k in range(3)] + [[("query", 0), ("query", 7)]]
    assert len(found.row) == 8
    e = z.double() / z.double().norm(dim=1, keepdim=True)
    wanted = [((e[a] - e[b]) ** 2).sum().item() for a, b in ((0, 24), (1, 25), (2, 26), (20, 27))]
    assert found.distance[::2] == pytest.approx(wanted, rel=1e-4)
    assert found.bits[-1] == 0  # the same pixels
    assert found.rows("train").tolist() == [0, 1, 2]


def test_mirrored_pictures_are_copies_where_that_is_asked():
    pictures = [same_size(scene(i)) for i in range(6)]
    pictures.append(same_size(ImageOps.mirror(scene(2))))
    z = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
    z[6] = z[2]
    split, sides = data(pictures, 4, [0, 0, 1, 1, 2, 2, 3], z)
    assert len(search(Search(True, False), split, sides).row) == 0
    assert search(Search(True, True), split, sides).row.tolist() == [2, 2]


def test_finished_features_have_no_pictures_and_are_compared_by_themselves():
    rows = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    rows[7] = 3 * rows[1]
    rows[8] = rows[0] + 0.01
    split, sides = data([np.zeros((8, 8), np.uint8)] * 9, 5, [0, 0, 1, 1, 1, 2, 2, 3, 3], rows, RowSpec(4))
    found = search(Search(True, False), split, sides)
    assert [(part, int(row)) for part, row in zip(found.part, found.row, strict=True)] == [
        ("train", 1),
        ("query", 2),
    ]
    assert found.bits.tolist() == [-1, -1]


def test_one_file_that_is_query_and_gallery_is_no_copy():
    pictures = [same_size(scene(i)) for i in range(6)]
    split, sides = data(pictures, 4, [0, 0, 1, 1, 2, 3], torch.randn(6, 8))
    gallery = Part(split.query.images, np.array([5, 4, 4]), np.array([3, 2, 2]), ("5", "4", "again"))
    split = Split(
        split.train, split.query, gallery, split.class_names, 2, split.image, twins=np.array([1, 0])
    )
    sides["gallery"] = sides["query"][[1, 0, 0]]
    found = search(Search(True, False), split, sides)
    assert sorted(zip(found.part.tolist(), found.row.tolist(), strict=True)) == [
        ("gallery", 1),
        ("gallery", 2),
        ("query", 0),
    ]


def test_none_are_sought_where_that_is_not_asked_for_or_among_too_many(monkeypatch, capsys):
    assert search(Search(False, False), None, {}) is None
    split, sides = data([np.asarray(scene(i)) for i in range(6)], 4, [0, 0, 1, 1, 2, 3], torch.randn(6, 8))
    monkeypatch.setattr("deconfuse.duplicates.search.LARGEST", 5)
    assert search(Search(True, False), split, sides) is None
    assert "not looked for among 6 samples, more than 5" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"duplicates.find=maybe is neither true nor false"):
        Search("maybe", False)


def test_samples_that_were_left_out_are_in_no_group():
    pictures = [same_size(scene(i)) for i in (0, 1, 2, 0, 1, 3)]
    split, sides = data(pictures, 4, [0, 0, 1, 1, 2, 3], torch.randn(6, 8))
    found = search(Search(True, False), split, sides, torch.tensor([1, 2, 3]))
    assert list(zip(found.part, found.row.tolist(), strict=True)) == [("train", 1), ("query", 0)]
