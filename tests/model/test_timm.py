import pytest
import torch

from src.errors import UserError
from src.model.timm import TimmBackbone


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
    with pytest.raises(UserError, match=r"model.weights=imagenett is not known"):
        TimmBackbone("resnet18", weights="imagenett")


def test_weights_that_cannot_be_had_are_one_line(monkeypatch):
    def refuse(*args, **settings):
        raise OSError("Name or service not known\nlong story")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(UserError, match=r"could not fetch .*not known.*model.weights=none") as caught:
        TimmBackbone("resnet18")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "size"), [("mobilenetv3_small_050", 1024), ("ghostnet_050", 1280)])
def test_networks_with_a_layer_behind_num_features(name, size):
    backbone = TimmBackbone(name, weights="none").eval()
    assert backbone.num_features == size
    assert backbone(torch.randn(1, 3, 64, 64)).shape == (1, size)
