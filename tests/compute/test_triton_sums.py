"""The Triton kernel in Triton's interpreter, which computes on a processor."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="triton is not installed")

COMPARE = """
import torch
from deconfuse.compute.exp_sums import by_operators
from deconfuse.compute.triton_sums import sums
from tests.compute.test_exp_sums import drawn
for b, t, c in [(1, 1, 1), (3, 7, 5), (9, 17, 130), (8, 8, 64), (17, 40, 65)]:
    parts = drawn(b, t, c, seed=b)
    want = by_operators(*(each.double() for each in parts))
    torch.testing.assert_close(sums(*parts).double(), want, rtol=5e-6, atol=0)
    turned = parts[1].transpose(1, 2).contiguous().transpose(1, 2)  # reach in another order in memory
    torch.testing.assert_close(sums(parts[0], turned, *parts[2:]).double(), want, rtol=5e-6, atol=0)
print("equal")
"""


def test_the_kernel_equals_float64_on_odd_sizes():
    """In a process of its own, as the interpreter is chosen when the kernel is first imported."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": "src"}
    done = subprocess.run(
        [sys.executable, "-c", COMPARE], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.stdout.strip() == "equal", done.stderr
