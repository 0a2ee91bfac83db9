import math
from functools import partial

import pytest
import torch

from deconfuse.system.errors import UserError
from deconfuse.training.recipe import Recipe

GOOD = {
    "epochs": 3,
    "classes_per_batch": 5,
    "per_class": 3,
    "embedding_size": 7,
    "optimizer": torch.optim.SGD,
    "lr_backbone": 1e-3,
    "lr_head": 0,
    "lr_proxies": 1.5,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "freeze_batchnorm": False,
    "clip_norm": None,
    "validate_every": 2,
    "eval_batch_size": 11,
    "checkpoints": 2,
    "sampling": "class_balanced",
    "clip_value": None,
    "step_epochs": 4,
    "step_factor": 0.5,
    "frozen": True,
    "whiten": 0.3,
    "hold": 2.0,
    "dropout": 0.1,
    "compile": False,
}
WHOLE = [
    "checkpoints",
    "step_epochs",
    "epochs",
    "validate_every",
    "classes_per_batch",
    "per_class",
    "embedding_size",
    "eval_batch_size",
]
RATES = ["lr_backbone", "lr_head", "lr_proxies", "warmup_epochs"]


def made(**changes):
    return Recipe(**{**GOOD, **changes})


def test_a_sampling_is_one_of_two():
    with pytest.raises(UserError, match=r"^recipe\.sampling=balanced .* Valid: class_balanced, instance_bal"):
        made(sampling="balanced")


def test_good_numbers_are_kept_as_they_are():
    assert vars(made()) == GOOD


@pytest.mark.parametrize("change", [{"whiten": 0.3}, {"hold": 1.0, "whiten": 0.3}, {"dropout": 0.5}])
def test_what_is_for_features_that_stay_is_refused_elsewhere(change):
    rest = {"whiten": None, "hold": 0.0, "dropout": 0.0}
    with pytest.raises(UserError, match=r"^recipe.whiten, recipe.hold and recipe.dropout .* recipe=frozen$"):
        made(frozen=False, **{**rest, **change})
    assert made(frozen=False, **rest).whiten is None


def test_a_head_is_held_only_to_a_whitened_start():
    with pytest.raises(
        UserError, match=r"^recipe.hold draws W to its whitened start; give recipe.whiten=0.3"
    ):
        made(whiten=None)


@pytest.mark.parametrize("key", WHOLE)
def test_one_is_the_smallest_whole_number(key):
    assert getattr(made(**{key: 1}), key) == 1
    with pytest.raises(UserError, match=rf"^recipe\.{key}=0 is too small; give 1 or more$"):
        made(**{key: 0})


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("value", [2.5, 4.0])
def test_counts_are_whole_numbers(key, value):
    with pytest.raises(UserError, match=rf"^recipe\.{key}={value} is not a whole number$"):
        made(**{key: value})


@pytest.mark.parametrize("key", RATES)
def test_zero_is_the_smallest_rate(key):
    assert getattr(made(**{key: 0.0}), key) == 0
    with pytest.raises(UserError, match=rf"^recipe\.{key}=-1e-09 is too small; give 0 or more$"):
        made(**{key: -1e-9})


@pytest.mark.parametrize("key", WHOLE + RATES)
@pytest.mark.parametrize("value", ["many", None, True, math.nan])
def test_what_is_no_number_is_refused_with_its_key(key, value):
    with pytest.raises(UserError, match=rf"^recipe\.{key}={value} is not a number$"):
        made(**{key: value})


def test_the_schedule_is_one_of_three():
    for name in ("constant", "step"):
        assert made(schedule=name).schedule == name
    with pytest.raises(UserError) as caught:
        made(schedule="cosin")
    assert str(caught.value) == (
        "recipe.schedule=cosin is not known; did you mean cosine? Valid: constant, cosine, step"
    )


@pytest.mark.parametrize("key", ["clip_norm", "clip_value"])
def test_clipping_is_none_or_a_number_from_zero_on(key):
    assert getattr(made(**{key: None}), key) is None
    assert getattr(made(**{key: 0.5}), key) == 0.5
    with pytest.raises(UserError, match=rf"^recipe\.{key}=-0\.5 is too small; give 0 or more$"):
        made(**{key: -0.5})
    with pytest.raises(UserError, match=rf"^recipe\.{key}=1e is not a number$"):
        made(**{key: "1e"})


def test_gradients_are_clipped_one_way():
    with pytest.raises(UserError, match=r"^recipe\.clip_norm=1 and recipe\.clip_value=2 are both set; "):
        made(clip_norm=1, clip_value=2)


@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_a_step_does_not_raise_the_rates(value):
    with pytest.raises(UserError, match=rf"^recipe\.step_factor={value} is out of range"):
        made(step_factor=value)


def test_a_recipe_is_not_changed_after_it_was_checked():
    with pytest.raises(AttributeError):
        made().epochs = 0


@pytest.mark.parametrize("value", ["no", "off", 1, None])
def test_freeze_batchnorm_is_true_or_false(value):
    # On Hydra's command line only true and false are truth values: recipe.freeze_batchnorm=no is a word.
    with pytest.raises(UserError, match=rf"recipe\.freeze_batchnorm={value}"):
        made(freeze_batchnorm=value)


def test_an_optimizer_that_can_not_be_made_is_named():
    with pytest.raises(UserError, match=r"^recipe\.optimizer: Invalid weight_decay value: -1"):
        made(optimizer=partial(torch.optim.SGD, weight_decay=-1))


@pytest.mark.parametrize(
    ("epochs", "checkpoints", "kept"),
    [
        (15, 5, {3, 6, 9, 12, 15}),
        (15, 1, {15}),
        (3, 5, {1, 2, 3}),
        (20, 3, {7, 13, 20}),
    ],
)
def test_checkpoints_are_kept_evenly_and_the_last_epoch_always(epochs, checkpoints, kept):
    assert made(epochs=epochs, checkpoints=checkpoints).kept_epochs == kept
