import numpy as np
import pytest
from PIL import Image

from deconfuse.data.build import build
from deconfuse.dataset import torchvision
from deconfuse.system.errors import UserError

RANDOM = np.random.default_rng(0)


def idx(path, values):
    """The format of MNIST's files: magic number, sizes, bytes."""
    magic = 0x0800 + values.ndim
    header = np.array([magic, *values.shape], dtype=">i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def mnist(tmp_path):
    """The root, and the training images, of a small MNIST."""
    images = {}
    for word, n in (("train", 40), ("t10k", 20)):
        images[word] = RANDOM.integers(0, 255, (n, 28, 28))
        idx(tmp_path / f"MNIST/raw/{word}-images-idx3-ubyte", images[word])
        idx(tmp_path / f"MNIST/raw/{word}-labels-idx1-ubyte", np.arange(n) % 10)
    return tmp_path, images


def test_a_class_with_train_and_test_is_put_together_and_split_by_class(mnist):
    root, images = mnist
    listing = torchvision.load("MNIST", str(root), seed=2)
    assert len(listing.classes) == 60
    words = "zero one two three four five six seven eight nine".split()
    assert set(listing.classes) == {f"{i} - {word}" for i, word in enumerate(words)}
    np.testing.assert_array_equal(np.asarray(listing.images[3]), images["train"][3])
    np.testing.assert_array_equal(np.asarray(listing.images[45]), images["t10k"][5])
    split = build(listing, image_size=28, channels=1)
    assert split.num_classes == 5
    assert len(split.train) == len(split.query) == 30
    assert (
        split.fingerprints == build(torchvision.load("MNIST", str(root), seed=2), image_size=28).fingerprints
    )


def test_a_class_of_one_folder_is_split_by_class(tmp_path):
    for name in ("Forest", "River", "Highway", "Pasture"):
        for i in range(3):
            path = tmp_path / f"eurosat/2750/{name}/{name}_{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(RANDOM.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    listing = torchvision.load("EuroSAT", str(tmp_path), test_classes=["River", "Forest"])
    parts = dict(zip(listing.classes, listing.parts, strict=True))
    assert parts == {"Forest": "test", "River": "test", "Highway": "train", "Pasture": "train"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MNISTT", r"^dataset.name=MNISTT is no data set of torchvision with labels; did you mean MNIST"),
        ("FashionMNIST", r"^dataset torchvision: FashionMNIST is not in .* add dataset.download=true"),
    ],
)
def test_what_is_not_there_is_one_line(mnist, name, message):
    with pytest.raises(UserError, match=message):
        torchvision.load(name, str(mnist[0]))
