import pytest
import timm
import torch

from deconfuse.model.timm import TimmBackbone, meant
from deconfuse.system.errors import UserError
from deconfuse.system.files import file_hash


def test_resnet_pools_by_maximum_and_normalises_without_weights():
    backbone = TimmBackbone("resnet18", in_channels=3, weights="none").eval()
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        found = backbone(images)
        pooled = backbone.network.forward_features(images).amax((2, 3))
    want = (pooled - pooled.mean(1, keepdim=True)) / (
        pooled.var(1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 512)
    assert backbone.num_features == 512
    assert not list(backbone.norm.parameters())
    assert backbone.mean == pytest.approx((0.485, 0.456, 0.406))


def test_grey_images():
    backbone = TimmBackbone("resnet18", in_channels=1, weights="none").eval()
    assert backbone(torch.randn(1, 1, 32, 32)).shape == (1, 512)


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(UserError, match="did you mean resnet50"):
        TimmBackbone("resnet500", weights="none")
    for word in ("imagenett", "weights/resnet18", "a.pickle", "A.SAFETENSORS"):
        with pytest.raises(UserError, match=rf"model.weights={word} is not known.*FILE.pth.*imagenet, none"):
            TimmBackbone("resnet18", weights=word)


def test_weights_that_cannot_be_had_are_one_line(monkeypatch):
    def refuse(*args, **settings):
        raise OSError("Name or service not known\nlong story")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(UserError, match=r"could not fetch .*not known.*model.weights=none") as caught:
        TimmBackbone("resnet18")
    assert "\n" not in str(caught.value)


def test_an_image_size_that_the_network_does_not_take_is_named():
    backbone = TimmBackbone("vit_tiny_patch16_224", weights="none", pool="avg")
    with pytest.raises(UserError, match=r"=vit_tiny_patch16_224: .*32.*224.*; set dataset.image_size=224"):
        backbone(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize(("name", "size"), [("mobilenetv3_small_050", 1024), ("ghostnet_050", 1280)])
def test_networks_with_a_layer_behind_num_features(name, size):
    backbone = TimmBackbone(name, weights="none").eval()
    assert backbone.num_features == size
    assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, size)


def test_a_file_gives_its_weights_and_its_fingerprint(tmp_path):
    source, path = timm.create_model("test_resnet", global_pool="max").eval(), tmp_path / "a.pth"
    torch.save({"model": source.state_dict()}, path)
    backbone = TimmBackbone("test_resnet", weights=str(path)).eval()
    source.reset_classifier(0, "max")
    images = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        want = torch.nn.functional.layer_norm(source(images), (backbone.num_features,))
        torch.testing.assert_close(backbone(images), want, rtol=1e-4, atol=1e-5)
    assert backbone.fingerprint == file_hash(path)
    assert TimmBackbone("test_resnet", weights="none").fingerprint == ""
    loud = path.rename(tmp_path / "A.PTH")
    assert TimmBackbone("test_resnet", weights=str(loud)).fingerprint == backbone.fingerprint
    path = loud.rename(path)
    with pytest.raises(UserError, match=r"a.pth: not the weights of test_vit"):
        TimmBackbone("test_vit", weights=str(path), pool="avg")


def ran_in_order(backbone, side):
    """The names of each module's own parameters, in the order in which a forward pass comes by them."""
    order = []
    for place, module in backbone.named_modules():
        names = [f"{place}.{name}" for name, _ in module.named_parameters(recurse=False)]
        if names:
            module.register_forward_pre_hook(lambda module, args, names=names: order.append(names))
    with torch.no_grad():
        backbone(torch.randn(1, 3, side, side))
    return order


@pytest.mark.parametrize(
    ("name", "side", "places"),
    [
        ("resnet18", 32, ["layer4.1"]),
        ("resnet10t", 32, ["layer4.0"]),
        ("vit_tiny_patch16_224", 224, ["blocks.11", "fc_norm"]),
        ("convnext_atto", 32, ["stages.3.blocks.1", "head.norm"]),
        ("tf_efficientnet_lite0", 32, ["blocks.6.0", "conv_head", "bn2"]),
        ("mobilenetv3_small_050", 32, ["blocks.5.0", "conv_head"]),
        ("swin_tiny_patch4_window7_224", 224, ["layers.3.blocks.1", "norm"]),
        ("densenet121", 32, ["features.denseblock4", "features.norm5"]),
        ("poolformer_s12", 64, ["stages.3.blocks.1", "head.norm"]),
        ("dla34", 32, ["level5"]),
    ],
)
def test_the_last_block_and_what_follows_it_run_last(name, side, places):
    backbone = TimmBackbone(name, weights="none", pool="avg").eval()
    last = backbone.last_block
    in_places = [
        p for p, _ in backbone.named_parameters() if p.startswith(tuple(f"network.{x}." for x in places))
    ]
    assert last == in_places
    order = ran_in_order(backbone, side)
    start = next(i for i, names in enumerate(order) if set(names) & set(last))
    assert sorted(name for names in order[start:] for name in names) == sorted(last)


def test_features_to_a_power_keep_their_sign_and_have_a_finite_derivative():
    torch.manual_seed(0)
    plain = TimmBackbone("test_resnet", 3, "none", "avg").eval()
    root = TimmBackbone("test_resnet", 3, "none", "avg", 0.5).eval()
    root.load_state_dict(plain.state_dict())
    images = torch.randn(3, 3, 32, 32)
    pooled = plain.network(images)
    want = torch.nn.functional.layer_norm(pooled.sign() * pooled.abs().sqrt(), (plain.num_features,))
    torch.testing.assert_close(root(images), want, atol=1e-4, rtol=1e-4)
    root(torch.zeros(2, 3, 32, 32)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in root.parameters() if p.grad is not None)
    assert repr(root) != repr(plain)  # features that are kept by what is printed are told apart


def test_auto_is_what_serves_a_trained_or_a_frozen_backbone():
    assert meant({"pool": "auto", "power": "auto"}, True) == {"pool": "avg", "power": 0.5}
    assert meant({"pool": "auto", "power": 2.0, "name": "x"}, False) == {"pool": "max"}
    assert meant({"width": 4}, True) == {}
