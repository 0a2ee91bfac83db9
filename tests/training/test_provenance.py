from pathlib import Path

import pytest

from deconfuse.system.errors import UserError
from deconfuse.training import provenance

PATH = Path("model.ckpt")


def test_the_stamp_is_taken_off_whoever_asks():
    for settings in (None, {"seed": 3, "recipe": {"lr": 0.1}}):
        content = provenance.stamped({"weight": 1}, {"recipe": {"lr": 0.1}, "seed": 3})
        assert content.keys() == {"weight", provenance.KEY}
        provenance.check(PATH, content, settings)
        assert content == {"weight": 1}
    assert provenance.stamped({"weight": 1}, None) == {"weight": 1}
    provenance.check(PATH, {"weight": 1}, None)


def test_a_checkpoint_without_settings_is_refused_like_one_with_others():
    with pytest.raises(UserError) as caught:
        provenance.check(PATH, {"weight": 1}, {"seed": 3})
    assert str(caught.value) == (
        "model.ckpt: does not say which settings it was made with; put the folder's own checkpoint back, or "
        "delete it and run again"
    )


@pytest.mark.parametrize(
    ("there", "here", "told"),
    [
        ({"seed": 1}, {"seed": 2}, "seed is 1 in it, 2 here"),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": True, "d": [1]}}}, "a.b.d is not set in it, [1] here"),
        ({"noise": None}, {"noise": {"ratio": 0.1}}, "noise.ratio is not set in it, 0.1 here"),
        ({"data": "ab" * 30}, {"data": "cd" * 30}, "data is abababab... in it, cdcdcdcd... here"),
        (
            dict.fromkeys("abcdefg", 1),
            dict.fromkeys("abcdefg", 2),
            "e is 1 in it, 2 here and 2 more); put the folder's own checkpoint back",
        ),
    ],
)
def test_the_keys_that_differ_are_named_with_both_values(there, here, told):
    with pytest.raises(UserError) as caught:
        provenance.check(PATH, provenance.stamped({}, there), here)
    assert str(caught.value).startswith("model.ckpt: made with other settings (")
    assert told in str(caught.value)
