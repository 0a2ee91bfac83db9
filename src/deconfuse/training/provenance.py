"""A checkpoint stores the settings that it was made with; a checkpoint of other settings is refused."""

import json
from pathlib import Path

from deconfuse.system.errors import UserError, shorten

KEY = "made_with"  # a checkpoint's key for the settings that its weights depend on, as JSON
LONGEST = 40  # longer values, such as fingerprints, are cut to eight letters in a message


def stamped(content: dict, settings: dict | None) -> dict:
    """A checkpoint's content with the settings that it was made with, unless settings is None."""
    if settings is not None:
        content[KEY] = json.dumps(settings, sort_keys=True, default=str)
    return content


def check(path: Path, content: dict, settings: dict | None) -> None:
    """Remove the settings from a checkpoint's content, and raise UserError if they are not `settings`.

    The error names the keys that differ and both values. A checkpoint that stores no settings is refused too.
    If settings is None, nothing is compared.
    """
    made_with = content.pop(KEY, None)
    if settings is None:
        return
    if made_with is None:
        raise UserError(
            f"{path}: does not say which settings it was made with; put the folder's own checkpoint back, or "
            "delete it and run again"
        )
    there, here = _flat(json.loads(made_with)), _flat(json.loads(json.dumps(settings, default=str)))
    keys = [key for key in {**here, **there} if there.get(key) != here.get(key)]
    if keys:
        differences = (f"{key} is {_word(there.get(key))} in it, {_word(here.get(key))} here" for key in keys)
        raise UserError(
            f"{path}: made with other settings ({shorten(differences)}); put the folder's own checkpoint "
            "back, or delete it and run again"
        )


def _flat(value: dict, above: str = "") -> dict[str, object]:
    """{'a': {'b': 1}} -> {'a.b': 1}."""
    flat = {}
    for key, item in value.items():
        flat |= _flat(item, f"{above}{key}.") if isinstance(item, dict) else {f"{above}{key}": item}
    return flat


def _word(value: object) -> str:
    """A value as it is shown in a message."""
    text = "not set" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:8]}..."
