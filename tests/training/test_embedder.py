import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from deconfuse.loss.proxynca import ProxyNCA
from deconfuse.model.identity import Identity
from deconfuse.system.errors import UserError
from deconfuse.training.embedder import Embedder
from tests.made import model_and_data, recipe


def with_trainer(model, steps=40, epochs=4):
    model._trainer = SimpleNamespace(estimated_stepping_batches=steps, max_epochs=epochs)
    return model.configure_optimizers()


def test_three_parameter_groups_hold_every_parameter_once():
    model, _ = model_and_data(lr_backbone=1e-3, lr_head=2e-3, lr_proxies=3e-2)
    made = with_trainer(model)
    groups = {group["name"]: group for group in made["optimizer"].param_groups}
    assert {name: group["initial_lr"] for name, group in groups.items()} == {
        "backbone": 1e-3,
        "head": 2e-3,
        "proxies": 3e-2,
    }
    assert groups["proxies"]["weight_decay"] == 0
    assert groups["head"]["weight_decay"] == 0.01
    held = [id(p) for group in groups.values() for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


def test_embeddings_that_are_given_stay_and_their_proxies_learn():
    model, _ = model_and_data()
    rows = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    backbone, loss = Identity(5, embeds=True), ProxyNCA(3, 5)
    model = Embedder(backbone, loss, replace(model.recipe, embedding_size=5))
    given = model(rows)  # up to a power of two for each row
    assert torch.equal(torch.frexp(given / rows)[0], torch.full_like(rows, 0.5))
    assert not any(p.requires_grad for p in model.head.parameters())  # nor has it a part in clip_norm
    made = with_trainer(model)
    before = loss.proxies.detach().clone()
    for _ in range(3):
        made["optimizer"].zero_grad()
        loss(model(rows), torch.arange(6) % 3).mean().backward()
        made["optimizer"].step()
        made["lr_scheduler"]["scheduler"].step()
    assert torch.equal(model(rows), given)
    assert (loss.proxies.detach() - before).abs().min() > 0


def test_rates_warm_up_then_follow_a_cosine_to_zero():
    made = with_trainer(model_and_data(warmup_epochs=1.0)[0])
    (rate,) = set(made["lr_scheduler"]["scheduler"].lr_lambdas)
    assert [rate(step) for step in (0, 4, 9)] == [1 / 11, 5 / 11, 10 / 11]
    assert rate(10) == 1
    assert rate(25) == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert rate(40) == pytest.approx(0)


def test_a_constant_schedule_stays():
    made = with_trainer(model_and_data(schedule="constant", warmup_epochs=0.0)[0])
    (rate,) = set(made["lr_scheduler"]["scheduler"].lr_lambdas)
    assert {rate(step) for step in (0, 17, 39)} == {1.0}


def test_steps_by_epoch():
    settings = {"schedule": "step", "step_epochs": 3, "step_factor": 0.5}
    made = with_trainer(model_and_data(warmup_epochs=0.0, **settings)[0], steps=70, epochs=10)
    (rate,) = set(made["lr_scheduler"]["scheduler"].lr_lambdas)
    by_epoch = [{rate(step) for step in range(7 * epoch, 7 * epoch + 7)} for epoch in range(10)]
    assert by_epoch == [{0.5 ** (epoch // 3)} for epoch in range(10)]
    warm = with_trainer(model_and_data(warmup_epochs=2.0, **settings)[0], steps=70, epochs=10)
    (rate,) = set(warm["lr_scheduler"]["scheduler"].lr_lambdas)
    assert [rate(step) for step in (0, 13, 14, 20, 21)] == [1 / 15, 14 / 15, 1, 1, 0.5]


def test_embeddings_are_the_head_of_the_backbone():
    model, _ = model_and_data()
    model.eval()
    images = torch.randn(3, 1, 16, 16)
    want = model.backbone(images) @ model.head.weight.T + model.head.bias
    torch.testing.assert_close(model(images), want)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_batchnorm_keeps_its_statistics(frozen):
    model, _ = model_and_data(freeze_batchnorm=frozen)
    model.train()
    norm = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d))
    before = norm.running_mean.clone()
    model(torch.randn(8, 1, 16, 16))
    assert torch.equal(before, norm.running_mean) is frozen
    assert model.head.training


def test_a_loss_that_is_no_number_names_batch_and_rate():
    model, _ = model_and_data(lr_backbone=0.5)
    model.log = lambda *args, **settings: None
    model.head.weight.data.fill_(float("nan"))
    batch = torch.randn(4, 1, 16, 16), torch.zeros(4, dtype=torch.long), torch.arange(4)
    with pytest.raises(
        UserError,
        match=r"became nan in epoch 1, batch 3; lower recipe.lr_backbone \(now 0.5\).* recipe.clip_norm=1$",
    ):
        model.training_step(batch, 2)
    # Both at once are refused.
    model.recipe = recipe(clip_value=1.0)
    with pytest.raises(UserError, match=r"recipe.lr_head \(now 0.002\)$"):
        model.training_step(batch, 2)
