from dataclasses import replace

import numpy as np
import pytest
import torch

from deconfuse.launch.backbone import alone, fingerprint, in_features
from deconfuse.model.identity import Identity
from deconfuse.training.embedder import Embedder
from tests.made import model_and_data

CPU = torch.device("cpu")


def test_features_are_those_of_the_backbone_and_are_computed_once(tmp_path, monkeypatch):
    model, data = model_and_data()
    found = in_features(data.split, model, tmp_path, 0, CPU)
    with torch.no_grad():
        want = model.backbone.eval()(torch.stack([data.item(data.split.train, i) for i in range(3)]))
    np.testing.assert_allclose([found.train.image(i) for i in range(3)], want, atol=1e-5)
    assert found.train.names == data.split.train.names
    assert found.image.features == model.backbone.num_features
    assert found.gallery is found.query
    (file,) = tmp_path.glob("features/*.npz")
    written = file.stat().st_mtime_ns
    monkeypatch.setattr(model.backbone, "forward", None)  # a second pass would fail
    again = in_features(data.split, model, tmp_path, 0, CPU)
    np.testing.assert_array_equal(again.query.image(2), found.query.image(2))
    assert file.stat().st_mtime_ns == written


def test_other_weights_and_other_images_have_features_of_their_own(tmp_path):
    model, data = model_and_data()
    in_features(data.split, model, tmp_path, 0, CPU)
    smaller = replace(data.split, image=replace(data.split.image, size=12))
    in_features(smaller, model, tmp_path, 0, CPU)
    with torch.no_grad():
        next(model.backbone.parameters()).add_(0.1)
    in_features(data.split, model, tmp_path, 0, CPU)
    assert len(list(tmp_path.glob("features/*.npz"))) == 3


def test_the_fingerprint_is_of_names_and_values():
    one, two = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    assert fingerprint(one) != fingerprint(two)
    two.load_state_dict(one.state_dict())
    assert fingerprint(one) == fingerprint(two)


def test_rows_of_features_stay_as_they_are(tmp_path):
    model, data = model_and_data()
    rows = in_features(data.split, model, tmp_path, 0, CPU)
    head = alone(model)
    assert isinstance(head.backbone, Identity)
    assert head.head.in_features == model.backbone.num_features
    assert in_features(rows, head, tmp_path, 0, CPU) is rows
    assert alone(head) is head


@pytest.mark.parametrize("hold", [0.0, 2.0])
def test_the_pull_is_the_relative_squared_distance_from_the_start(hold):
    model, _ = model_and_data()
    held = Embedder(model.backbone, model.loss, replace(model.recipe, frozen=True, whiten=0.3, hold=hold))
    assert held.pull() == 0
    held.held = held.head.weight.detach() * 0.5
    # W = 2 W0, so ||W - W0||^2 = ||W0||^2.
    assert torch.as_tensor(held.pull()).item() == pytest.approx(hold, rel=1e-5)
