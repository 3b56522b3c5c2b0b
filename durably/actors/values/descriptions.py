"""Types and values in words, for sentences: as a programmer would write them, and no longer than a sentence bears."""

from __future__ import annotations

import re
from typing import Any

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()
"""Stands where there is no value or no annotation, since None may be either."""


def describe(annotation: Any) -> str:
    """A type as a programmer would write it: `list[str]`, `Purchase`, `int | None`."""
    if annotation is MISSING:
        return "anything"
    if isinstance(annotation, str):
        return annotation
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, type) and not hasattr(annotation, "__origin__"):
        return annotation.__name__ if not getattr(annotation, "__args__", None) else _unqualified(repr(annotation))
    return _unqualified(repr(annotation))


def named(definition: Any) -> str:
    """A class or function by its name, without the function in which it was defined: `Cart.add_ticket`."""
    return str(definition.__qualname__).rpartition("<locals>.")[2]


_QUALIFIER = re.compile(r"('[^']*'|\"[^\"]*\")|(?:[A-Za-z_]\w*\.|<locals>\.)+(?=[A-Za-z_])")
_REPR_OF_CLASS = re.compile(r"<(?:class|enum|flag) '([^']+)'>")


def _unqualified(text: str) -> str:
    return _QUALIFIER.sub(lambda found: found[1] or "", _REPR_OF_CLASS.sub(r"\1", text)).replace("NoneType", "None")


LONGEST_QUOTE_CHARACTERS = 80


def _has_no_repr(value: object) -> bool:
    """Neither the class nor a base of it defines a `__repr__`, apart from `object`."""
    return not any("__repr__" in vars(base) for base in type(value).__mro__[:-1])


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in 'aeioAEIO' else 'a'} {name}"


def _repr(value: Any) -> str:
    try:
        return repr(value)
    except USER_ERRORS as error:  # Of a class of the user's, or too deep: a sentence must not fail for it.
        let_signals_pass(error)
        return _with_article(type(value).__qualname__)


TEXT_LIMIT_CHARACTERS = 65_536
"""Of the message of an error, and of its traceback."""


def shortened(value: Any) -> str:
    # The default repr gives the address in memory, which differs on replay and is of no use to a reader.
    text = _with_article(type(value).__qualname__) if _has_no_repr(value) else _repr(value)
    text = " ".join(text.split("\n")).rstrip() if "\n" in text else text  # Some write one part to a line.
    return text if len(text) <= LONGEST_QUOTE_CHARACTERS else text[: LONGEST_QUOTE_CHARACTERS - 1] + "…"


def text_for_people(text: str) -> str:
    """The text of an error as it travels: not endless, and with escapes for lone surrogates, which have no UTF-8.

    An error may hold a whole response of a server. It is kept in memory and in the store for each attempt.
    """
    left_out = len(text) - TEXT_LIMIT_CHARACTERS
    if left_out > 0:
        text = f"{text[:TEXT_LIMIT_CHARACTERS]}… ({left_out:,} characters more were left out)"
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def shortened_bytes(data: bytes) -> str:
    if not data:
        return "nothing"
    text = data[:LONGEST_QUOTE_CHARACTERS].decode(errors="replace")
    return text if len(data) <= LONGEST_QUOTE_CHARACTERS else text[:-1] + "…"
