"""Spellings of one name: spaces around it, and Unicode's several ways to write a letter."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from deconfuse.system.errors import shorten
from deconfuse.system.progress import console
from deconfuse.system.words import agree, many


def same_word(text: str) -> str:
    """A form that is equal for all spellings of a label: NFKC without spaces around it.

    No-break spaces become spaces, full-width letters become letters, and é is the same in all its forms.
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).strip()


def same_path(text: str) -> str:
    """A form that is equal for all spellings of a path: without ./ and //, with composed letters (NFC)."""
    return os.path.normpath(unicodedata.normalize("NFC", text))


def one_spelling(labels: Sequence[str], source: str) -> list[str]:
    """The labels, each in the most frequent of its spellings and without spaces around it.

    Prints a line that names labels with several spellings, and a warning that names labels that differ only
    in capitals, which stay separate classes.
    """
    counts = Counter(labels)
    words: dict[str, list[str]] = {}
    for label in sorted(counts):
        words.setdefault(same_word(label), []).append(label)
    chosen = {}
    for word, spelt in words.items():
        best = max(spelt, key=lambda label, word=word: (counts[label], label == word))
        chosen |= dict.fromkeys(spelt, best.strip() or best)
    several = [f"{' and '.join(map(_shown, spelt))}" for spelt in words.values() if len(spelt) > 1]
    if several:
        console.print(
            f"{source}: {many(len(several), 'class')} {agree(len(several))} spelt in several ways, and "
            "each is taken as one: "
            f"{shorten(several, 3)}"
        )
    _warn_of_capitals(words, chosen, source)
    return [chosen[label] for label in labels]


def _warn_of_capitals(words: dict[str, list[str]], chosen: dict[str, str], source: str) -> None:
    folded: dict[str, list[str]] = {}
    for word, spelt in words.items():
        folded.setdefault(word.casefold(), []).append(chosen[spelt[0]])
    alike = [" and ".join(names) for names in folded.values() if len(names) > 1]
    if alike:
        console.print(
            f"warning: {source}: labels that differ in capitals alone are classes of their own: "
            f"{shorten(alike, 3)}; where they mean the same, spell them alike"
        )


def _shown(label: str) -> str:
    """The label in quotes, with escapes for letters that are not composed (NFC)."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)


class Names:
    """Finds the name that a text spells: the same text, or else the only name of equal `common` form."""

    def __init__(self, names: Iterable[str], common: Callable[[str], str]):
        self.exact, self.common = set(names), common
        self.alike: dict[str, str | None] = {}
        for name in self.exact:
            word = common(name)
            self.alike[word] = None if word in self.alike else name

    def __call__(self, text: str) -> str:
        """The name that the text spells; the text itself if it spells none."""
        if text in self.exact:
            return text
        return self.alike.get(self.common(text)) or text
