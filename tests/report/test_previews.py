import os

import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import ArrayImages, FileImages
from deconfuse.data.split import Part
from deconfuse.report import previews


@pytest.fixture
def part(tmp_path):
    random = np.random.default_rng(0)
    files = []
    for i, (w, h) in enumerate([(800, 400), (90, 60), (100, 300)]):
        path = tmp_path / "data" / f"c{i}" / f"{i}.png"
        path.parent.mkdir(parents=True)
        noise = random.integers(0, 256, (h // 50 + 1, w // 50 + 1, 3)).astype(np.uint8)
        Image.fromarray(noise).resize((w, h), Image.Resampling.BICUBIC).save(path)
        files.append(path)
    (tmp_path / "data" / "bad.png").write_bytes(b"no picture")
    names = ("c0/0.png", "c1/1.png", "c2/2.png", "bad.png")
    files.append(tmp_path / "data" / "bad.png")
    return Part(FileImages(files), np.arange(4), np.zeros(4, int), names)


def test_previews_are_of_the_originals_pixels(part, tmp_path):
    sizes = previews.make(tmp_path / "p", {"train": part}, {"train": [0, 1, 3, 2, 0]}, 3)
    assert sizes == {"train": {0: [800, 400], 1: [90, 60], 2: [100, 300]}}
    written = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert written == ["train-0.webp", "train-2.webp"]  # the second is no larger than its thumbnail
    with Image.open(tmp_path / "p" / "train-0.webp") as found:
        assert found.size == (320, 160)
        made = part.image(0).resize((320, 160), Image.Resampling.LANCZOS)
        off = np.abs(np.asarray(found.convert("RGB"), int) - np.asarray(made.convert("RGB"), int))
    assert off.mean() < 3  # of 255: what WebP loses of a smooth picture
    with Image.open(tmp_path / "p" / "train-2.webp") as found:
        assert found.size == (100, 300)  # smaller originals keep their size


def test_no_more_previews_than_allowed(part, tmp_path, monkeypatch):
    monkeypatch.setattr(previews, "MOST", 1)
    assert previews.make(tmp_path / "p", {"train": part}, {"train": [2, 0]}, 3) == {"train": {2: [100, 300]}}


def test_originals_are_found_from_the_report(part, tmp_path):
    report = tmp_path / "out" / "run" / "report"
    found = previews.originals(part, report)
    assert found == {"prefix": "../../../data/"}
    for name in part.names:
        assert os.path.exists(os.path.normpath(report / (found["prefix"] + name)))
    other = Part(part.images, part.rows, part.labels, ("a", "b", "c", "d"))
    assert previews.originals(other, report)["paths"][1] == "../../../data/c1/1.png"
    drawn = Part(ArrayImages(np.zeros((1, 8, 8), np.uint8)), np.arange(1), np.zeros(1, int), ("a",))
    assert previews.originals(drawn, report) is None
