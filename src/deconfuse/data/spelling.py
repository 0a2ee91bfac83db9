"""The same name in two spellings: spaces around it, Unicode's several ways to write a letter, capitals."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from deconfuse.system.errors import shorten
from deconfuse.system.progress import console


def same_word(text: str) -> str:
    """What two spellings of one label have in common: NFKC, no spaces around.

    No-break spaces are spaces, full-width letters are letters, and é is é however it is composed.
    """
    return text.strip() if text.isascii() else unicodedata.normalize("NFKC", text).strip()


def same_path(text: str) -> str:
    """What two spellings of one path have in common: no ./ and no //, letters composed (NFC)."""
    return os.path.normpath(unicodedata.normalize("NFC", text))


def one_spelling(labels: Sequence[str], source: str) -> list[str]:
    """The labels, where those that are the same word get one spelling: the most frequent, without spaces
    around.

    A line names the labels that are spelt in several ways, another one those that differ in capitals alone
    and stay classes of their own.
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
            f"{source}: {len(several)} class(es) are spelt in several ways, and each is taken as one: "
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
    """In quotes; what looks like another spelling, or like nothing, as its code."""
    return repr(label) if unicodedata.is_normalized("NFC", label) else ascii(label)


class Names:
    """Finds a name however it is spelt: as it is, else the only one that is alike by `common`."""

    def __init__(self, names: Iterable[str], common: Callable[[str], str]):
        self.exact, self.common = set(names), common
        self.alike: dict[str, str | None] = {}
        for name in self.exact:
            word = common(name)
            self.alike[word] = None if word in self.alike else name

    def __call__(self, text: str) -> str:
        """The name that the text spells; the text itself where it is none."""
        if text in self.exact:
            return text
        return self.alike.get(self.common(text)) or text
