"""Measure the feature pass: python -m scripts.bench_features. Ratios to timm's forward, from one run.

Random images, weights untrained, float32. Bare is timm's network on images in memory, as timm makes it. The
ways of one network are timed in turns, so that what else the machine does hits all of them; medians.
Writes benchmarks/features.json.
"""

import io
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader

from deconfuse.attribution.features import extract
from deconfuse.data.split import ImageSpec, Part
from deconfuse.data.transforms import ImageDataset, transforms
from deconfuse.launch.command_line import CONF
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.timm import TimmBackbone
from deconfuse.system.files import write_json
from deconfuse.system.progress import console
from deconfuse.training.embedder import Embedder
from deconfuse.training.recipe import Recipe

NETWORKS = ("resnet18", "tf_efficientnet_lite0")
SIDE, N, BATCH, TURNS = 224, 256, 64, 3  # BATCH as in recipe=photo
AIM = 0.95


class Photos(Sequence):
    """The same JPEG of 256 x 256 pixels, in memory, decoded every time."""

    def __init__(self, n: int):
        file, self.n = io.BytesIO(), n
        smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
        smooth.resize((256, 256)).save(file, "jpeg", quality=90)
        self.file = file.getvalue()

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Image.Image:
        return Image.open(io.BytesIO(self.file))


def turns(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median seconds of each way, each taken in turn; a first round is not counted."""
    laps: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            laps[name].append(time.perf_counter() - start)
    return {name: statistics.median(each[1:]) for name, each in laps.items()}


def forward(network: nn.Module, images: Tensor) -> None:
    """All images through the network, batch by batch, nothing kept."""
    with torch.no_grad():
        for batch in images.split(BATCH):
            network(batch)


def drain(batches: Iterable) -> None:
    """Every batch, and nothing done with it."""
    for _ in batches:
        pass


def recipe() -> Recipe:
    """recipe=photo, as the command line makes it."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("config", ["recipe=photo"]).recipe)


def measure(name: str) -> dict[str, float | str]:
    """One network: images a second of the bare forward, and the other ways as shares of it."""
    torch.manual_seed(0)
    bare = TimmBackbone(name, weights="none").eval().network
    backbone = TimmBackbone(name, weights="none")
    model = Embedder(backbone, ProxyNCA(10, 512), recipe())
    images = torch.randn(N, 3, SIDE, SIDE)
    memory = DataLoader([(image, 0, i) for i, image in enumerate(images)], batch_size=BATCH)
    part = Part(Photos(N), np.arange(N), np.zeros(N, dtype=int), ("",) * N)
    _, evaluation = transforms(ImageSpec(SIDE, 3, "photo"), backbone.mean, backbone.std)
    photos = DataLoader(ImageDataset(part, part.labels, evaluation, 3), batch_size=BATCH, collate_fn=list)
    seconds = turns(
        {
            "bare": partial(forward, bare, images),
            "pass": lambda: drain(extract(model, memory, "bench")),
            "memory": partial(drain, memory),
            "photos": partial(drain, photos),
        }
    )
    return {
        "network": name,
        "bare_images_per_second": N / seconds["bare"],
        "pass_to_bare": seconds["bare"] / seconds["pass"],
        "memory_loader_share": seconds["memory"] / seconds["pass"],
        "photo_loader_share": seconds["photos"] / (seconds["photos"] + seconds["pass"] - seconds["memory"]),
    }


def main() -> None:
    """Measure, print, write."""
    console.quiet = True
    machine = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    print(
        f"torch {machine['torch']}, {machine['threads']} threads; {N} images of {SIDE} px, batches of {BATCH}"
    )
    rows = []
    for name in NETWORKS:
        row = measure(name)
        rows.append(row)
        print(
            f"{name}: bare {row['bare_images_per_second']:.1f} images/s, pass {row['pass_to_bare']:.2f} of "
            f"it (aim >= {AIM}); of the pass, loading takes {row['memory_loader_share']:.1%} from tensors in "
            f"memory, {row['photo_loader_share']:.1%} from JPEGs in memory",
            flush=True,
        )
    write_json(Path("benchmarks/features.json"), {"machine": machine, "rows": rows})
    print("written to benchmarks/features.json")


if __name__ == "__main__":
    main()
