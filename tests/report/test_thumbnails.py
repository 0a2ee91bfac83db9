import numpy as np
import pytest
from PIL import Image

from deconfuse.data.images import ArrayImages, FileImages
from deconfuse.data.split import ImageSpec, Part
from deconfuse.report.thumbnails import CELL, COLUMNS, make

NAMES = tuple(f"{i}.png" for i in range(230))


class Counting(ArrayImages):
    """Remembers which images were read."""

    def __init__(self, pixels):
        super().__init__(pixels)
        self.read = []

    def __getitem__(self, i):
        self.read.append(i)
        return super().__getitem__(i)


def cell(folder, sheets, part, i):
    """The thumbnail of a sample, cut out of its sheet."""
    sheet, place = divmod(int(sheets.place[part][i]), COLUMNS**2)
    x, y = CELL * (place % COLUMNS), CELL * (place // COLUMNS)
    width, height = sheets.size[part][i]
    with Image.open(folder / f"{sheet}.{sheets.suffix}") as image:
        return np.asarray(image.crop((x, y, x + width, y + height)))


def test_every_picture_is_where_it_is_said_to_be(tmp_path):
    pixels = np.arange(1, 231, dtype=np.uint8)[:, None, None] * np.ones((1, 9, 7), np.uint8)
    images, labels = Counting(pixels), np.arange(230) % 3
    parts = {
        "train": Part(images, np.arange(130), labels[:130], NAMES[:130]),
        "query": Part(images, np.arange(130, 230), labels[130:], NAMES[130:]),
    }
    sheets = make(tmp_path, parts, ImageSpec(8, 1, "none"))
    for name, part in parts.items():
        for i in range(len(part)):
            np.testing.assert_array_equal(cell(tmp_path, sheets, name, i), pixels[part.rows[i]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
    assert sorted(images.read) == list(range(230))
    # Samples of a class follow each other.
    order = np.argsort(sheets.place["train"])
    assert (np.diff(labels[:130][order]) >= 0).all()
    with Image.open(tmp_path / "2.png") as last:
        assert last.size == (CELL * COLUMNS, 3 * CELL)


def test_a_picture_that_is_gone_is_named_and_the_others_are_there(tmp_path, capsys):
    for i in range(3):
        Image.new("RGB", (12, 10), (10 * i, 0, 200)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    images = FileImages([tmp_path / f"{i}.png" for i in range(3)])
    part = Part(images, np.arange(3), np.zeros(3, np.int64), NAMES[:3])
    sheets = make(tmp_path / "thumbs", {"train": part}, ImageSpec(8, 3, "none"))
    assert sheets.size["train"].tolist() == [[12, 10], [0, 0], [12, 10]]
    assert sheets.suffix == "jpg"
    inside = cell(tmp_path / "thumbs", sheets, "train", 2)[2:-3, 2:-3]  # JPEG mixes colours at an edge
    assert inside.mean((0, 1)) == pytest.approx([20, 0, 200], abs=4)
    said = capsys.readouterr().err
    assert "report: 1 picture left out" in said
    assert "1.png" in said
