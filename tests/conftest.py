"""Shapes and types of all mathematics in src are checked while the tests run (jaxtyping, beartype)."""

import os
import signal
import sys
from pathlib import Path

os.environ["DECONFUSE_PROGRESS"] = "0"
os.environ["WANDB_MODE"] = "offline"
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # before torch is imported: workers that share the cores take one each
    os.environ["OMP_NUM_THREADS"] = "1"

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - the hook looks it up by name

MATHS = (
    *("attribution.curvature", "attribution.features", "attribution.head", "attribution.kronecker"),
    *("attribution.network", "detector", "influence", "labels.evidence", "labels.relabel", "labels.taxonomy"),
    *("loss", "model", "retraining.counterfactual", "retraining.parallel_heads", "retrieval", "target"),
    *("frozen.start_derivative", "frozen.weighted_start", "training.embedder", "unrolling"),
)
install_import_hook([f"deconfuse.{name}" for name in MATHS], "tests.typechecker.check")

import pytest
import torch
from hypothesis import HealthCheck, settings

from deconfuse.attribution.head import Training
from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.loss.softtriple import SoftTriple
from tests.minimise import minimise

# The same examples each time, few enough for seconds; the first ones check shapes and types, which is slow.
settings.register_profile(
    "suite",
    derandomize=True,
    max_examples=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
STOPS = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT


def restored():
    """Set back what a command sets for the rest of its process, and end the W&B run that it left."""
    environment, handlers = dict(os.environ), {number: signal.getsignal(number) for number in STOPS}
    deterministic, threads = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    yield
    run = getattr(sys.modules.get("wandb"), "run", None)  # which the next logger would go on with
    if run is not None:
        run.finish()
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    for number, handler in handlers.items():
        signal.signal(number, handler)
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
    torch.set_num_threads(threads)


# No test hangs on one before it, nor does a file on the fixtures of another, made before its first test.
as_found = pytest.fixture(autouse=True)(restored)
file_as_found = pytest.fixture(autouse=True, scope="module")(restored)


@pytest.fixture
def golden():
    """Load a recorded file of the authors' own results, or skip."""

    def load(name: str):
        path = SHARED / "golden" / f"omniglot_{name}.npz"
        if not path.exists():
            pytest.skip(f"no recorded vectors at {path}")
        import numpy as np

        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}

    return load


@pytest.fixture(params=["proxynca", "softtriple", "softtriple3"])
def toy(request):
    """A small training side in float64: n 23, D 11, m 5, c 4, and a test side of 9 samples."""
    generator = torch.Generator().manual_seed(7)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    make = {
        "proxynca": lambda: ProxyNCA(4, 5),
        "softtriple": lambda: SoftTriple(4, 5),
        "softtriple3": lambda: SoftTriple(4, 5, centres=3),
    }
    loss = make[request.param]().double()
    loss.proxies.data = draw(*loss.proxies.shape)
    labels = torch.randint(0, 4, (23,), generator=generator)
    training = Training(draw(23, 11), labels, draw(5, 11) / 3, draw(5) / 3, loss.requires_grad_(False))
    return training, draw(9, 11)


@pytest.fixture
def toy_convex():
    """A head trained to convergence with weight decay on a softmax loss: (training, test, retrain(k)).

    The objective is mean loss + 0.05/2 ||W||^2, so its Hessian is H + 0.05 I; retrain(k) leaves k out.
    """
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    labels = (features[:, 0] + 0.5 * torch.randn(40, generator=generator, dtype=torch.float64) > 0).long()
    proxies = torch.eye(3, dtype=torch.float64)[:2]
    bias = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    class Linear(torch.nn.Module):
        """Plain softmax on z . p: convex in W."""

        def __init__(self):
            super().__init__()
            self.proxies = torch.nn.Parameter(proxies, requires_grad=False)

        def forward(self, z, y):
            return torch.nn.functional.cross_entropy(z @ self.proxies.T, y, reduction="none")

    loss = Linear()

    def solve(weights):
        def objective(weight):
            value = (weights * loss(features @ weight.T + bias, labels)).sum()
            return value + 0.05 / 2 * weight.square().sum()

        return minimise(objective, torch.zeros(3, 6, dtype=torch.float64))

    even = torch.full((40,), 1 / 40, dtype=torch.float64)

    def retrain(k):
        weights = even.clone()
        weights[k] = 0
        return solve(weights)

    test = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    return Training(features, labels, solve(even), bias, loss), test, retrain


@pytest.fixture(scope="session")
def reported(tmp_path_factory):
    """A small run with a quarter of the labels flipped and its report, beside a run of another method."""
    from tests.test_story import TINY, go

    output = tmp_path_factory.mktemp("reported")
    go(output, *TINY, "noise=flip_10", "noise.ratio=0.25", "influence=random", "report=false")
    return go(output, *TINY, "noise=flip_10", "noise.ratio=0.25")
