import numpy as np
import pytest
import torch
from PIL import Image

import deconfuse as dc
from deconfuse.adapt.pictures import Pictures, of_numbers, pictured
from deconfuse.system.errors import UserError
from tests.api.data import rows


@pytest.mark.parametrize(
    ("values", "mode", "pixel"),
    [
        (torch.full((3, 9, 8), 0.5), "RGB", (128, 128, 128)),
        (torch.full((1, 9, 8), 1.0), "L", 255),
        (np.full((9, 8, 3), 7, np.uint8), "RGB", (7, 7, 7)),
        (np.full((9, 8), 200, np.uint8), "L", 200),
        (np.full((4, 9, 8), 0.2), "RGB", (51, 51, 51)),
    ],
)
def test_arrays_of_every_layout_are_pictures(values, mode, pixel):
    image = of_numbers(values)
    assert (image.size, image.mode) == ((8, 9), mode)
    assert image.getpixel((3, 4)) == pixel


def test_normalised_inputs_are_scaled_from_their_smallest_to_their_largest():
    values = torch.linspace(-2, 3, 8 * 8).view(1, 8, 8)
    pixels = np.asarray(of_numbers(values))
    assert (pixels.min(), pixels.max()) == (0, 255)
    np.testing.assert_allclose(pixels.ravel(), np.linspace(0, 255, 64), atol=0.51)


def test_rows_and_small_things_are_no_pictures():
    assert pictured(lambda i: torch.zeros(12), 3) is None
    assert pictured(lambda i: torch.zeros(3, 4, 4), 3) is None
    assert pictured(lambda i: torch.zeros(7, 9, 9), 3) is None
    assert pictured(lambda i: "text", 3) is None
    assert len(pictured(lambda i: torch.zeros(3, 9, 9), 5)) == 5


def test_files_arrays_and_pillows_images_are_shown_with_embeddings(tmp_path):
    train, test = rows(12, 3, 0), rows(9, 3, 1, first=3)
    files = []
    for i in range(12):
        Image.new("RGB", (20, 10), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        files.append(tmp_path / f"{i}.png")
    arrays = [np.full((10, 20, 3), i, np.uint8) for i in range(9)]
    found = dc.explain(train=train, test=test, images={"train": files, "test": arrays})
    split = found.findings.split
    assert split.train.image(4).getpixel((0, 0)) == (40, 0, 0)
    assert split.query.image(4).getpixel((0, 0)) == (4, 4, 4)
    report = found.report(tmp_path / "report")
    assert list((report.parent / "thumbs").iterdir())
    only_one = dc.explain(train=train, test=test, images={"train": files})
    assert "<img" not in only_one._repr_html_()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], r"^images of train: 0 for 3 samples"),
        (["/nowhere.png"] * 3, r"^/nowhere.png: not a readable image"),
        ([np.zeros((2, 3, 4, 5))] * 3, r"^images of train: the first is no picture \(shape \(2, 3, 4, 5\)"),
        ([7] * 3, r"^images of train: the first is no picture"),
    ],
)
def test_what_is_no_picture_is_one_line(images, message):
    with pytest.raises(UserError, match=message):
        Pictures.of(images, 3, "train")
