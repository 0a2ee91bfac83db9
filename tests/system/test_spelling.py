import pytest

from deconfuse.system.spelling import Names, one_spelling, same_path, same_word

SAME = [
    ("cat", " cat ", "cat\u00a0", "\tcat", "ｃａｔ"),
    ("café", "cafe\u0301"),
    ("New York", "New\u00a0York"),
    ("007", "００７"),
]


@pytest.mark.parametrize("spelt", SAME)
def test_spellings_of_one_word_are_the_same(spelt):
    assert len(set(map(same_word, spelt))) == 1


@pytest.mark.parametrize("pair", [("cat", "Cat"), ("cafe", "café"), ("7", "007"), ("a", "а"), ("ab", "a b")])
def test_other_words_are_others(pair):
    assert same_word(pair[0]) != same_word(pair[1])


def test_paths_are_the_same_but_for_dots_and_how_letters_are_composed():
    assert len({*map(same_path, ["p/é.png", "./p/é.png", "p//e\u0301.png", "q/../p/é.png"])}) == 1
    assert same_path("p/X.png") != same_path("p/x.png")


def test_the_most_frequent_spelling_is_taken_and_said(capsys):
    labels = ["cat ", "cat", "cat", "dog", "ｄog", "ｄog", " ant"]
    assert one_spelling(labels, "list.csv") == ["cat", "cat", "cat", "ｄog", "ｄog", "ｄog", "ant"]
    assert capsys.readouterr().err == (
        "list.csv: 2 classes are spelt in several ways, and each is taken as one: "
        "'cat' and 'cat ', 'dog' and 'ｄog'\n"
    )


def test_what_looks_alike_is_told_by_its_codes(capsys):
    assert one_spelling(["café", "cafe\u0301"], "s") == ["café", "café"]
    assert "'cafe\\u0301' and 'café'" in capsys.readouterr().err
    one_spelling(["a b", "a\u00a0b"], "s")
    assert "'a b' and 'a\\xa0b'" in capsys.readouterr().err


def test_capitals_alone_are_a_warning_with_both_names(capsys):
    labels = ["Cat", "cat", "STRASSE", "straße", "dog"]
    assert one_spelling(labels, "s") == labels
    assert capsys.readouterr().err == (
        "warning: s: labels that differ in capitals alone are classes of their own: "
        "Cat and cat, STRASSE and straße; where they mean the same, spell them alike\n"
    )


def test_labels_that_are_one_spelling_each_are_let_be(capsys):
    labels = ["Ωmega, the last", "x y", "'=1", "NA"]
    assert one_spelling(labels, "s") == labels
    assert capsys.readouterr().err == ""


def test_a_name_is_found_as_it_is_else_where_only_one_is_alike():
    names = Names(["cat", "K", "\u212a", "New\u00a0York"], same_word)  # the letter K, and the sign for kelvin
    assert names(" cat") == "cat"
    assert names("New York") == "New\u00a0York"
    assert [names("K"), names("\u212a")] == ["K", "\u212a"]
    assert names("Ｋ") == "Ｋ"  # alike to two
    assert names("Cat") == "Cat"
