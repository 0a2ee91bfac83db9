import pytest

from deconfuse.runs.settings import differences, frame
from tests.finished import finish


@pytest.fixture
def runs(tmp_path):
    recipe = {"optimizer": {"lr": 0.1}}
    settings = {
        "a": {"recipe": {"epochs": 5, **recipe}, "params": "head"},
        "b": {"recipe": {"epochs": 9, **recipe}, "params": "all"},
        "c": {"model": {"width": 4}, "params": "all"},
    }
    models = {"a": "small_cnn", "b": "small_cnn", "c": "resnet50"}
    return [
        finish(tmp_path, name, settings=settings[name], choices={"model": model})
        for name, model in models.items()
    ]


def test_what_runs_differ_in_is_said_as_on_the_command_line(runs):
    assert differences(runs[:2]) == ["params=head, recipe.epochs=5", "params=all, recipe.epochs=9"]
    assert differences(runs[:2], without=("params",)) == ["recipe.epochs=5", "recipe.epochs=9"]
    assert differences(runs[:2], without=("recipe", "params")) == ["", ""]
    assert differences(runs[:1]) == differences([runs[0], runs[0]])[:1] == [""]
    # A choice stands for its keys.
    lr = "recipe.optimizer.lr"
    assert differences(runs) == [
        f"model=small_cnn, params=head, recipe.epochs=5, {lr}=0.1",
        f"model=small_cnn, params=all, recipe.epochs=9, {lr}=0.1",
        f"model=resnet50, params=all, recipe.epochs=null, {lr}=null",
    ]


def test_runs_with_the_same_option_differ_in_its_keys(tmp_path):
    made, runs = {"a": ("small", 5), "b": ("small", 9), "c": ("photo", 5)}, []
    for name, (option, epochs) in made.items():
        settings = {"recipe": {"epochs": epochs, "more": name}}
        runs.append(finish(tmp_path, name, choices={"recipe": option}, settings=settings))
    assert differences(runs, without=("recipe.more",)) == [
        "recipe=small, recipe.epochs=5", "recipe=small, recipe.epochs=9", "recipe=photo",
    ]  # fmt: skip
    assert differences(runs, only=("model",)) == ["", "", ""]


def test_words_are_those_of_the_command_line(tmp_path):
    values = (True, None, 0.5)
    runs = [finish(tmp_path, str(x), settings={"recipe": {"clip": x}}) for x in values]
    assert differences(runs) == ["recipe.clip=true", "recipe.clip=null", "recipe.clip=0.5"]


def test_of_what_was_not_done_it_is_said_that_it_is_off(tmp_path):
    loops = [{"rounds": 3, "sure": 0.9}, {"rounds": 3, "sure": 0.8}, {"rounds": 0, "sure": 0.8}]
    runs = [finish(tmp_path, str(i), settings={"loop": loop}) for i, loop in enumerate(loops)]
    assert differences(runs) == [
        "loop.rounds=3, loop.sure=0.9",
        "loop.rounds=3, loop.sure=0.8",
        "loop.rounds=0",
    ]


def test_rows_that_look_the_same_say_what_they_are(runs):
    one, other, third = runs
    rows = [
        (one, {"dataset": "glyphs", "models": 1, "AP": "0.1"}),
        (third, {"dataset": "omniglot", "models": 1, "AP": "0.1"}),
        (other, {"dataset": "glyphs", "models": 1, "AP": "0.1"}),
    ]
    found = frame(rows)
    assert list(found) == ["dataset", "setting", "models", "AP"]
    assert found["setting"].tolist() == ["params=head, recipe.epochs=5", "", "params=all, recipe.epochs=9"]
    assert list(frame(rows[:2])) == ["dataset", "models", "AP"]
    assert list(frame(rows, before="AP")) == ["dataset", "models", "setting", "AP"]
    assert list(frame(rows, without=("params", "recipe"))) == ["dataset", "models", "AP"]
    assert frame([]).empty
