import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from deconfuse.system.errors import UserError
from deconfuse.training.weights import fit, read

FILE = Path("some.pth")


def network(name="test_resnet", channels=3, classes=0):
    return timm.create_model(name, num_classes=classes, in_chans=channels).eval()


def written(path, content):
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path


def same(found, want):
    assert list(found) == list(want)
    assert all(torch.equal(found[name], want[name]) for name in want)


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("a.pth", lambda state: state),
        ("a.safetensors", lambda state: state),
        ("a.pt", lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {}}}),
        ("a.pth", lambda state: {"model": {f"module.{name}": t for name, t in state.items()}}),
        ("a.pth", lambda state: {"state_dict": {f"model.backbone.{name}": t for name, t in state.items()}}),
        ("a.pth", lambda state: {f"module._orig_mod.{name}": t for name, t in state.items()}),
    ],
)
def test_every_tensor_arrives_from_every_wrapping_without_its_classifier(tmp_path, name, wrap):
    source = network(classes=7)
    found = fit(read(written(tmp_path / name, wrap(source.state_dict()))), network(), 3, FILE)
    same(found, {name: t for name, t in source.state_dict().items() if not name.startswith("fc.")})


def test_the_average_of_the_weights_is_taken_where_there_is_one(tmp_path):
    last, average = network(), network()
    path = written(
        tmp_path / "a.pth", {"state_dict": last.state_dict(), "state_dict_ema": average.state_dict()}
    )
    same(read(path), average.state_dict())


def test_a_grey_image_gives_the_features_of_its_three_equal_channels():
    colour, grey = network(), network(channels=1)
    before = {name: tensor.clone() for name, tensor in colour.state_dict().items()}
    grey.load_state_dict(fit(colour.state_dict(), grey, 1, FILE))
    images = torch.randn(2, 1, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    same(colour.state_dict(), before)


def test_a_grey_networks_own_file_is_taken_as_it_is():
    source = network(channels=1)
    same(fit(source.state_dict(), network(channels=1), 1, FILE), source.state_dict())


def test_the_publishers_names_are_translated_by_timm():
    source = network("test_convnext", classes=5)
    theirs = {}
    for name, tensor in source.state_dict().items():
        name = re.sub(r"^stem\.", "downsample_layers.0.", name)
        name = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", name)
        name = re.sub(r"\.blocks\.(\d)\.", r".\1.", name).replace("conv_dw", "dwconv")
        name = name.replace("mlp.fc", "pwconv").replace("head.fc.", "head.").replace("head.norm.", "norm.")
        theirs[name] = tensor
    assert "downsample_layers.1.0.weight" in theirs
    found = fit({"model": theirs}["model"], network("test_convnext"), 3, FILE)
    same(found, {name: t for name, t in source.state_dict().items() if not name.startswith("head.fc.")})


def test_older_files_do_not_count_batches():
    state = network().state_dict()
    old = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(state)
    same(fit(old, network(), 3, FILE), state)


def spoilt(change):
    state = dict(network().state_dict())
    change(state)
    return state


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("bn1.bias"), r"bn1.bias \(32,\) is not in the file; give"),
        (lambda s: s.update(extra=torch.zeros(2, 3)), r"extra \(2, 3\) is not in the network; give"),
        (
            lambda s: s.update({"bn1.bias": torch.zeros(23)}),
            r"bn1.bias is \(23,\) in the file, \(32,\) in the network; give",
        ),
        (
            lambda s: s.update({"conv1.0.weight": torch.zeros(16, 2, 3, 3)}),
            r"conv1.0.weight is \(16, 2, 3, 3\) in the file, \(\d+, 3, 3, 3\) in the network",
        ),
        (dict.clear, r"is not in the file, .* and \d+ more; give"),
    ],
)
def test_what_does_not_fit_is_named_with_both_shapes(change, message):
    with pytest.raises(UserError, match=r"some.pth: not the weights of test_resnet: .*" + message):
        fit(spoilt(change), network(), 3, FILE)


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_efficientnet", "vit_tiny_patch16_224"])
def test_another_networks_file_is_one_line(name):
    with pytest.raises(UserError, match=f"some.pth: not the weights of {name}") as caught:
        fit(network().state_dict(), network(name), 3, FILE)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_foreign_objects_are_never_unpickled(tmp_path):
    sprung = tmp_path / "sprung"
    trap = written(tmp_path / "trap.pth", {"weight": torch.zeros(2), "more": Trap(sprung)})
    old = tmp_path / "old.pt"
    old.write_bytes(pickle.dumps({"weight": Trap(sprung)}))
    for path in (trap, old, written(tmp_path / "whole.pth", network())):
        with pytest.raises(UserError) as caught:
            read(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not sprung.exists()
    with pytest.raises(UserError, match=r"whole.pth: holds Python objects \(.*save the tensors alone"):
        read(tmp_path / "whole.pth")


def test_timm_is_asked_for_tensors_only_whatever_its_default(tmp_path, monkeypatch):
    asked = []
    real = timm.models.load_state_dict
    monkeypatch.setattr(
        "deconfuse.training.weights.timm.models.load_state_dict",
        lambda *a, **k: asked.append(k) or real(*a, **k),
    )
    read(written(tmp_path / "a.pth", {"w": torch.zeros(1)}))
    assert asked == [{"weights_only": True}]


def test_a_missing_damaged_or_other_file_is_one_line(tmp_path):
    whole = {name: written(tmp_path / name, network().state_dict()) for name in ("a.pth", "a.safetensors")}
    for name, path in whole.items():
        content = path.read_bytes()
        for length in (0, 7, 1000, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:length])
            with pytest.raises(UserError, match=f"{name}: not a whole file of weights") as caught:
                read(path)
            assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"b.pth: no such file of weights; give model.weights=FILE"):
        read(tmp_path / "b.pth")
    (tmp_path / "c.pth").mkdir()
    with pytest.raises(UserError, match=r"c.pth: no such file"):
        read(tmp_path / "c.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(UserError, match=r"page.pth: not a whole file of weights \(it does not begin as"):
        read(tmp_path / "page.pth")
    for content in ([torch.zeros(2)], torch.zeros(2)):
        with pytest.raises(UserError, match=r"d.pth: not a"):
            read(written(tmp_path / "d.pth", content))
    with pytest.raises(UserError, match=r"d.pth: not a state dict \(it is empty\)"):
        read(written(tmp_path / "d.pth", {}))
    with pytest.raises(UserError, match=r"d.pth: not a state dict \(epoch, optimizer is no tensor\)"):
        read(written(tmp_path / "d.pth", {"epoch": 3, "optimizer": {}, "w": torch.zeros(1)}))
