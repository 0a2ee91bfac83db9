import os
import subprocess
import sys

import pytest

from deconfuse.compute import memory

# Arrays of 64 MiB come and go; prints the page faults of the last eight, and the memory before and after.
PROGRAM = """
import resource
import numpy as np
from pathlib import Path
from deconfuse.compute import memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

kept = memory.keep_freed()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    np.ones(2**23)
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
free = held()
memory.give_back()
print(kept, faults, free, held())
"""

glibc = pytest.mark.skipif(not memory._is_glibc(), reason="the C library is not glibc")


def measured(**environment):
    env = {name: value for name, value in os.environ.items() if name not in memory.VARIABLES}
    env |= {"PYTHONPATH": os.pathsep.join(sys.path), **environment}
    words = [sys.executable, "-c", PROGRAM]
    kept, *numbers = subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.split()
    return kept == "True", *map(float, numbers)


@glibc
def test_freed_memory_is_used_again_and_goes_back_when_asked():
    kept, faults, free, after = measured()
    assert kept
    assert faults < 0.1 * 8 * 2**26 / 4096  # a page of 4 KiB each, or some huge pages
    assert free - after > 60  # MiB, of the array that was kept


@glibc
def test_an_allocator_that_the_environment_sets_is_left_alone():
    kept, faults, _, _ = measured(MALLOC_MMAP_THRESHOLD_="131072", MALLOC_TRIM_THRESHOLD_="131072")
    assert not kept
    assert faults > measured()[1]


def test_elsewhere_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    memory.keep_freed.cache_clear()
    try:
        assert memory.keep_freed() is False
        memory.give_back()
    finally:
        memory.keep_freed.cache_clear()
