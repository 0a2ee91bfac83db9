"""Numbers with their nouns and verbs in messages: 1 image is, 2 images are."""


def many(n: int, noun: str, form: str = "") -> str:
    """n and its noun, which is given for one: `1 image`, `2 classes`, `3 queries`.

    form: how n is written, as in f"{n:,}".
    """
    return f"{n:{form}} {noun if n == 1 else _plural(noun)}"


def agree(n: int, one: str = "is", more: str = "are") -> str:
    """The form of a word that goes with n things: `is` with one, `are` with any other number."""
    return one if n == 1 else more


def _plural(noun: str) -> str:
    """The regular plural in English."""
    if noun.endswith(("s", "x", "tch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
