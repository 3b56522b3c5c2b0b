"""Places in a value, as errors name them: `$` is the whole, `$.lines[0]["a.b"]` an item of a list in a field of it.

msgspec does not say under which key of a dict something does not fit: it writes `$.prices[...]`. Which one it is, is
found by leaving items of that dict out until the error changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from durably.actors.values.type_checks import is_mapping, is_sequence
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

WHOLE: Final = "$"
MOST_SEARCHED_BYTES: Final = 64 * 1024
"""Larger values are not read again and again to name a key."""
MOST_SHOWN_CHARACTERS: Final = 60

_NAME: Final = re.compile(r"[^\W\d]\w*")
_PATH: Final = re.compile(r" - at (`key` in )?`(\$[^`]*)`$")
_ANY_KEY: Final = "[...]"
_STEP: Final = re.compile(r"\[\.\.\.\]|\[\d+\]|\.[^.\[]+")


def below(path: str, key: object) -> str:
    """The place of a field, or of what a dict has under a key."""
    if not isinstance(key, str):
        return f"{path}[{key!r}]"
    if len(key) > MOST_SHOWN_CHARACTERS:
        key = f"{key[:MOST_SHOWN_CHARACTERS]}…"
    return f"{path}.{key}" if _NAME.fullmatch(key) else f"{path}[{json.dumps(key, ensure_ascii=not key.isprintable())}]"


def located(
    error: BaseException,
    data: bytes,
    decode: Callable[[bytes], Any],
    *,
    form: Any = msgspec.json,
) -> tuple[str, str]:
    """Where `data` did not fit, as a path from `$`, and why. `form` is the module of msgspec for these bytes."""
    path, reason = _path_and_reason(error)
    if _ANY_KEY not in path or len(data) > MOST_SEARCHED_BYTES:
        return path, reason
    try:
        whole = form.decode(data)
    except msgspec.DecodeError:  # What does not fit comes before what is malformed.
        return path, reason
    return _Search(decode, form, (path, reason)).path(whole), reason


def _path_and_reason(error: BaseException) -> tuple[str, str]:
    text = str(error)
    found = _PATH.search(text)
    if found is None:
        return WHOLE, text.rstrip(".") or type(error).__name__
    reason = text[: found.start()].rstrip(".")
    return (f"{found[2]}{_ANY_KEY}", f"{reason} as a key") if found[1] else (found[2], reason)


class _Search:
    """Replaces each `[...]` in a path of msgspec's by the key that is meant."""

    def __init__(self, decode: Callable[[bytes], Any], form: Any, expected: tuple[str, str]) -> None:
        self._decode = decode
        self._form = form
        self._expected = expected

    def path(self, whole: Any) -> str:
        steps = _STEP.findall(self._expected[0])
        self._holder = holder = [whole]
        found = WHOLE
        parent: Any = holder
        at: Any = 0
        for number, step in enumerate(steps):
            part = parent[at]
            if step == _ANY_KEY and is_mapping(part):
                key = self._key(parent, at, part)
                found = below(found, key)
            elif step.startswith(".") and is_mapping(part) and step[1:] in part:
                key = step[1:]
                found = below(found, key)
            elif step.startswith("[") and step != _ANY_KEY and is_sequence(part):
                key = int(step[1:-1])
                found += step
            else:  # It is read in another way than it is written: the rest stays as msgspec says it.
                return found + "".join(steps[number:])
            parent, at = parent[at], key
        return found

    def _key(self, parent: Any, at: Any, items: Mapping[Any, Any]) -> Any:
        """The first key with whose item what is read fails as the whole does: items before it fit.

        Those behind it stay away, because in one of them something else may not fit in the same way.
        """
        keys = list(items)
        low, high = 0, len(keys) - 1
        while low < high:
            middle = (low + high) // 2
            parent[at] = {key: items[key] for key in keys[: middle + 1]}
            low, high = (low, middle) if self._fails() else (middle + 1, high)
        parent[at] = {key: items[key] for key in keys[: low + 1]}
        return keys[low]

    def _fails(self) -> bool:
        try:
            self._decode(self._form.encode(self._holder[0]))
        except USER_ERRORS as error:  # Validators of users' classes may raise anything.
            let_signals_pass(error)
            return _path_and_reason(error) == self._expected
        return False
