"""What a checkpoint was made with, written into it: one of another configuration is told from ours."""

import json
from pathlib import Path

from deconfuse.system.errors import UserError, shorten

KEY = "made_with"  # in a checkpoint: the settings that its weights depend on, as JSON
LONGEST = 40  # letters of a value that is shown; a fingerprint is cut


def stamped(content: dict, settings: dict | None) -> dict:
    """A checkpoint's content with the settings it was made with (None: without)."""
    if settings is not None:
        content[KEY] = json.dumps(settings, sort_keys=True, default=str)
    return content


def check(path: Path, content: dict, settings: dict | None) -> None:
    """Take the stamp off a checkpoint's content; UserError, naming the keys, where it is not of `settings`.

    A checkpoint without a stamp, of an older version, and settings None are let pass.
    """
    made_with = content.pop(KEY, None)
    if made_with is None or settings is None:
        return
    there, here = _flat(json.loads(made_with)), _flat(json.loads(json.dumps(settings, default=str)))
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    if keys:
        told = (f"{key} is {_word(there.get(key))} in it, {_word(here.get(key))} here" for key in keys)
        raise UserError(
            f"{path}: made with other settings ({shorten(told)}); put the folder's own checkpoint back, or "
            "delete it and run again"
        )


def _flat(value: dict, above: str = "") -> dict[str, object]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for key, item in value.items():
        flat |= _flat(item, f"{above}{key}.") if isinstance(item, dict) else {f"{above}{key}": item}
    return flat


def _word(value: object) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:8]}..."
