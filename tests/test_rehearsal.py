import pytest

from src import loop
from src.errors import UserError
from src.model.identity import Identity
from src.model.small_cnn import SmallCNN
from src.rehearsal import input_size, plan_of
from src.split import ImageSpec, RowSpec

CHOICES = {"dataset": "mine", "model": "yours"}
LOOP = {"rounds": 2, "sure": 0.9, "clean": False}


def test_a_plan_holds_the_keys_below_its_own():
    assert plan_of(loop.Plan, "loop", {"loop": LOOP, "seed": 3}) == loop.Plan(2, 0.9, False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "loop=3 is not a group of keys; give loop.rounds=VALUE"),
        ({**LOOP, "round": 1}, "loop has the keys rounds, sure, clean; look at round"),
        ({"rounds": 2}, "loop has the keys rounds, sure, clean; look at clean, sure"),
    ],
)
def test_what_is_no_plan_is_named(given, message):
    with pytest.raises(UserError) as caught:
        plan_of(loop.Plan, "loop", {"loop": given})
    assert str(caught.value) == message


def test_a_model_is_told_how_large_its_input_is():
    assert input_size(ImageSpec(16, 1, "none"), SmallCNN, CHOICES) == ImageSpec(16, 1, "none").model_size
    assert input_size(RowSpec(7), Identity, CHOICES) == RowSpec(7).model_size


@pytest.mark.parametrize(
    ("spec", "model", "message"),
    [
        (
            RowSpec(7),
            SmallCNN,
            "dataset=mine has no images for model=yours; add model=identity or",
        ),
        (ImageSpec(16, 1, "none"), Identity, "dataset=mine has images, which model=yours does not take"),
    ],
)
def test_a_model_that_takes_another_kind_of_input_is_named(spec, model, message):
    with pytest.raises(UserError, match=message):
        input_size(spec, model, CHOICES)
