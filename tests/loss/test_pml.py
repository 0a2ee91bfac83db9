import inspect
import sys

import pytest
import torch
import yaml
from pytorch_metric_learning import losses
from pytorch_metric_learning.losses import SubCenterArcFaceLoss

from deconfuse.launch.command_line import CONF
from deconfuse.loss.pml import LOSSES, OURS, load
from deconfuse.system.errors import UserError
from tests import agree

NONE = {"margin": None, "scale": None, "temperature": None, "sub_centers": None}
# Scales at which a toy's losses are neither all zero nor as steep as a step.
CASES = {
    "ArcFaceLoss": {"scale": 8.0},
    "CosFaceLoss": {"scale": 8.0},
    "LargeMarginSoftmaxLoss": {"margin": 3},
    "NormalizedSoftmaxLoss": {"temperature": 0.2},
    "SphereFaceLoss": {"margin": 2},
    "SubCenterArcFaceLoss": {"scale": 8.0, "sub_centers": 2},
}


def made(name, c=4, m=5, **arguments):
    torch.manual_seed(0)
    loss = load(c, m, name, {**NONE, **arguments}).double()
    return loss, torch.randn(23, m, dtype=torch.float64), torch.randint(0, c, (23,))


def library(loss, name, c=4, m=5, **arguments):
    other = getattr(losses, name)(num_classes=c, embedding_size=m, **arguments).double()
    other.W.data = loss.proxies.detach().T.contiguous()
    return other


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("changed", [False, True])
def test_the_mean_and_each_value_are_the_librarys(name, changed):
    arguments = CASES[name] if changed else {}
    loss, z, y = made(name, **arguments)
    other = library(loss, name, **arguments)
    found = loss(z, y)
    assert found.shape == (23,)
    torch.testing.assert_close(found.mean(), other(z, y), rtol=1e-9, atol=1e-10)
    each = torch.stack([other(z[i : i + 1], y[i : i + 1]) for i in range(23)])
    torch.testing.assert_close(found, each, rtol=1e-9, atol=1e-10)
    assert loss.regulariser().item() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_influence_and_detectors_agree_two_ways(name):
    agree.check(made(name, **CASES[name])[0], 4)


@pytest.mark.parametrize("name", ["NormalizedSoftmaxLoss", "CosFaceLoss"])
@pytest.mark.parametrize("changed", [False, True])
def test_what_is_a_softmax_of_cosines_takes_the_faster_path(name, changed):
    loss, z, y = made(name, **(CASES[name] if changed else {}))
    cosine = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(loss.proxies).T
    torch.testing.assert_close(loss.from_cosine(cosine, y), loss(z, y))
    a, b = loss.softmax()
    logits = a * (cosine - b * torch.nn.functional.one_hot(y, 4))
    torch.testing.assert_close(-logits.log_softmax(1)[torch.arange(23), y], loss(z, y))


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"NormalizedSoftmaxLoss", "CosFaceLoss"}))
def test_what_is_not_takes_the_general_path(name):
    loss, _, _ = made(name)
    assert not hasattr(loss, "from_cosine")
    assert not hasattr(loss, "softmax")


def test_rows_of_proxies_are_grouped_by_class():
    loss, z, _ = made("SubCenterArcFaceLoss", sub_centers=3)
    assert loss.proxies.shape == (12, 5)
    other = library(loss, "SubCenterArcFaceLoss", sub_centers=3)
    assert isinstance(other, SubCenterArcFaceLoss)
    cosine = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(loss.proxies).T
    torch.testing.assert_close(other.get_cosine(z), cosine.view(-1, 4, 3).amax(2))


@pytest.mark.parametrize("name", LOSSES)
def test_all_that_training_moves_is_the_proxies(name):
    loss, z, y = made(name)
    (parameter,) = loss.parameters()
    before = loss.proxies.detach().clone()
    loss(z, y).mean().backward()
    with torch.no_grad():
        parameter -= parameter.grad
    assert not torch.equal(loss.proxies, before)


def test_every_loss_of_the_library_with_a_weight_per_class_is_known():
    # P2SGrad comes reduced, MarginLoss is one of triplets.
    known = {*LOSSES, *OURS, "P2SGradLoss", "MarginLoss"}
    found = {
        name
        for name, item in vars(losses).items()
        if inspect.isclass(item)
        and any("num_classes" in inspect.signature(base.__init__).parameters for base in item.__mro__)
    }
    assert found == known


def test_the_yaml_lists_every_argument_and_name():
    text = (CONF / "loss" / "pml.yaml").read_text()
    assert set(yaml.safe_load(text)["arguments"]) == {key for keys in LOSSES.values() for key in keys}
    assert all(name in text for name in LOSSES)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("ArcfaceLoss", {}, r"did you mean ArcFaceLoss\? Valid: ArcFaceLoss, CosFaceLoss"),
        ("TripletMarginLoss", {}, r"TripletMarginLoss is no classification loss"),
        ("ProxyAnchorLoss", {}, r"loss.name=ProxyAnchorLoss is a loss of its own here: loss=proxyanchor"),
        ("CosFaceLoss", {"temperature": 1}, r"loss.arguments.temperature is not known to CosFaceLoss; it "),
        ("CosFaceLoss", {"scale": 0}, r"loss.arguments.scale=0 is too small"),
        ("CosFaceLoss", {"margin": "wide"}, r"loss.arguments.margin=wide is not a number"),
        ("SphereFaceLoss", {"margin": 1.5}, r"loss.arguments.margin=1.5 is not a whole number"),
        ("SubCenterArcFaceLoss", {"sub_centers": 0}, r"loss.arguments.sub_centers=0 is too small"),
        ("NormalizedSoftmaxLoss", {"temperature": 0}, r"loss.arguments.temperature=0 is too small"),
    ],
)
def test_what_can_not_be_is_one_line(name, arguments, message):
    with pytest.raises(UserError, match=message):
        load(4, 5, name, {**NONE, **arguments})


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning", None)
    with pytest.raises(UserError, match=r"pip install 'deconfuse\[pml\]'"):
        load(4, 5, "ArcFaceLoss", NONE)


@pytest.mark.parametrize("name", LOSSES)
def test_no_arguments_at_all_are_the_librarys(name):
    _, z, y = made(name)
    torch.manual_seed(0)
    torch.testing.assert_close(load(4, 5, name, None).double()(z, y), made(name)[0](z, y), rtol=0, atol=0)
