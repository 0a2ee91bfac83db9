import pytest

from deconfuse.system.words import agree, many


@pytest.mark.parametrize(
    ("n", "noun", "text"),
    [
        (0, "file", "0 files"),
        (1, "file", "1 file"),
        (2, "training image", "2 training images"),
        (1, "query", "1 query"),
        (3, "query", "3 queries"),
        (2, "day", "2 days"),
        (1, "class", "1 class"),
        (12, "class", "12 classes"),
        (2, "box", "2 boxes"),
        (2, "match", "2 matches"),
        (3, "epoch", "3 epochs"),
    ],
)
def test_a_number_with_its_noun(n, noun, text):
    assert many(n, noun) == text


def test_a_number_is_written_in_the_form_that_is_asked_for():
    assert many(12345, "image", ",") == "12,345 images"
    assert many(1, "image", ",") == "1 image"


def test_a_verb_goes_with_its_number():
    assert [agree(n) for n in (0, 1, 2)] == ["are", "is", "are"]
    assert [agree(n, "has", "have") for n in (1, 5)] == ["has", "have"]
