"""Say what is installed, which devices there are, and what is missing: `deconfuse doctor`."""

import argparse
import importlib.metadata as metadata
import os
import platform
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from deconfuse import __version__
from deconfuse.system.errors import invoked

GIB = 2**30
# What an extra is for; the packages of each are those that pyproject.toml names.
EXTRAS = {
    "cleanlab": "detector=cleanlab",
    "pml": "loss=pml",
    "offline": "model=efficientnet_lite0, ImageNet weights without a network",
    "umap": "report=umap",
    "datasets": "dataset=huggingface",
    "tables": "dataset=table from Parquet and Arrow files",
    "tensorboard": "logger=tensorboard",
    "mlflow": "logger=mlflow",
    "parallel": "hydra/launcher=joblib",
    "slurm": "hydra/launcher=slurm",
}
SPECIFIER = re.compile(r"(>=|<=|==|!=|~=|<|>)\s*([\w.]+)")


@dataclass(frozen=True)
class Package:
    """A package that is asked for: its name, the versions asked for, the one there (None: none), its
    extra."""

    name: str
    asked: str
    found: str | None
    extra: str | None

    @property
    def fits(self) -> bool:
        """Whether a version is there, and among those that are tested."""
        return self.found is not None and within(self.found, self.asked)


def packages() -> list[Package]:
    """All packages that this one asks for, those of its extras last."""
    found = []
    for line in metadata.requires("deconfuse") or []:
        name, asked, extra = taken_apart(line)
        if extra is None or (extra in EXTRAS and name != "deconfuse"):
            found.append(Package(name, asked, installed(name), extra))
    return sorted(found, key=lambda package: package.extra or "")


def taken_apart(line: str) -> tuple[str, str, str | None]:
    """(name, versions, extra) of a line such as `cleanlab<3,>=2.9; extra == "cleanlab"`."""
    asked, _, marker = line.partition(";")
    name = re.match(r"[\w.-]+", asked.strip())[0]
    extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
    versions = ",".join(sorted("".join(pair) for pair in SPECIFIER.findall(asked)))
    return name, versions, extra[1] if extra else None


def installed(name: str) -> str | None:
    """The version of a package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def within(version: str, asked: str) -> bool:
    """Whether a version is in a range such as >=2.6,<2.15; what follows the numbers, as +cu130, is
    ignored."""
    own = numbers(version)
    for operator, bound in SPECIFIER.findall(asked):
        other = numbers(bound)
        width = max(len(own), len(other))
        one, two = (value + (0,) * (width - len(value)) for value in (own, other))
        good = {">=": one >= two, "<=": one <= two, "==": one == two, "!=": one != two, "<": one < two}
        good |= {">": one > two, "~=": one >= two and own[: len(other) - 1] == other[:-1]}
        if not good[operator]:
            return False
    return True


def numbers(version: str) -> tuple[int, ...]:
    """(2, 14, 1) of 2.14.1+cu130."""
    return tuple(int(part) for part in re.match(r"\d+(?:\.\d+)*", version)[0].split("."))


def machine() -> list[tuple[str, str]]:
    """Cores, memory, disk, and torch's devices."""
    import torch

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    disk = shutil.disk_usage(Path.cwd())
    lines = [
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("Processor", f"{os.cpu_count()} cores, {torch.get_num_threads()} used by torch"),
        ("Memory", f"{memory / GIB:.0f} GiB"),
        ("Disk", f"{disk.free / GIB:.0f} GiB free in {Path.cwd()}"),
        ("Allocator", allocator()),
    ]
    for i in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(i)
        lines.append((f"GPU {i}", f"{device.name}, {device.total_memory / GIB:.0f} GiB"))
    if not torch.cuda.is_available():
        lines.append(("GPU", "none that torch can use; runs take the processor"))
    if "PYTORCH_CUDA_ALLOC_CONF" in os.environ:
        lines.append(("PYTORCH_CUDA_ALLOC_CONF", os.environ["PYTORCH_CUDA_ALLOC_CONF"]))
    return lines


def allocator() -> str:
    """Which allocator of memory the process uses, by the libraries that it has mapped."""
    try:
        mapped = Path("/proc/self/maps").read_text("utf-8")
    except OSError:
        return "the system's"
    found = next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in mapped), None)
    return found or "the C library's"


def main(words: list[str]) -> int:
    """Print it all; exit code 1 where something that is needed is missing or of an untested version."""
    parser = argparse.ArgumentParser(prog=invoked("doctor"), description=__doc__)
    parser.parse_args(words)
    print(f"deconfuse {__version__}\n")
    for name, value in machine():
        print(f"{name:<24} {value}")
    print()
    there = packages()
    needed = [package for package in there if package.extra is None]
    for package in needed:
        state = (
            "missing" if package.found is None else "" if package.fits else "not among the tested versions"
        )
        print(f"{package.name:<24} {package.found or '-':<14} {package.asked:<16} {state}".rstrip())
    print("\nExtras")
    for extra, purpose in EXTRAS.items():
        some = [package for package in there if package.extra == extra]
        fits = bool(some) and all(package.fits for package in some)
        print(f"{extra:<24} {'there' if fits else 'missing':<14} {purpose}")
    wrong = [package for package in needed if not package.fits]
    missing = [extra for extra in EXTRAS if not all(p.fits for p in there if p.extra == extra)]
    print()
    if missing:
        print(f"What you need of these: pip install 'deconfuse[{','.join(missing)}]'")
    if wrong:
        asked = " ".join(f"'{package.name}{package.asked}'" for package in wrong)
        print(f"To be right: pip install {asked}")
    print("All that is needed is there." if not wrong else f"{len(wrong)} package(s) are not as tested.")
    return 1 if wrong else 0
