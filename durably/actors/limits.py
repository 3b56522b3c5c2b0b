"""`Limit`: how many invocations run at once, or start within a second. A value, and what it takes from an argument.

A limit counts an invocation from its start to its outcome, also while it is suspended, paused or backing off. What
waits for it has not started.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from durably.actors.definition.arguments import Decoded
from durably.actors.values.type_checks import is_mapping, is_number, is_text
from durably.errors import DefinitionError, HandlerMistakeError
from durably.ids import is_storable

OWN_KEY = "self.key"
"""As `per=`: the key of the object."""
SECOND_US = 1_000_000

_Find: TypeAlias = Callable[[str, Decoded], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many invocations of the handlers that name it run at once, and how often they start.

    - `at_once: int`: so many have started and not ended, in this store. One counts from its start to its outcome, also
      while it waits, backs off or is paused.
    - `per_second: float`: so many start in a second, in the long run; `1 / 60` is one a minute. They start evenly
      spaced, and `burst` of them may start together after a quiet time. After a restart of the process there is no
      burst to begin with.
    - `per: str`: each value of this counts for itself: the name of a parameter of the handler (`"tenant"`), with dots
      for what it holds (`"order.tenant"`), or `"self.key"` for the key of the object.

    Those that wait start in the order in which they joined their mailboxes. A call made by an invocation that runs
    under the limit does not count again.

    Raises:
        ValueError, TypeError: a field that makes no sense, named.
    """

    at_once: int | None = None
    per_second: float | None = None
    burst: int = 1
    per: str | None = None

    def __post_init__(self) -> None:
        if self.at_once is None and self.per_second is None:
            raise ValueError("A Limit without at_once= and per_second= limits nothing. Give one of them, or both.")
        if self.at_once is not None:
            _check_count("at_once", self.at_once)
        _check_count("burst", self.burst)
        if self.per_second is None:
            if self.burst != 1:
                raise ValueError("Limit(burst=...) goes with per_second=: it says how many may start together.")
        elif not is_number(self.per_second):
            raise TypeError(f"Limit(per_second=...) is a number, not {self.per_second!r}.")
        elif not 0 < self.per_second < math.inf:
            raise ValueError(f"Limit(per_second=...) is more than 0 and finite, not {self.per_second!r}.")
        if self.per is not None and not (
            is_text(self.per) and all(part.isidentifier() for part in self.per.split("."))
        ):
            raise ValueError(
                f"Limit(per=...) is the name of a parameter, such as 'tenant' or 'order.tenant', or '{OWN_KEY}', not "
                f"{self.per!r}."
            )

    @property
    def interval_us(self) -> float:
        """The time between two starts; 0 where they may follow each other at once."""
        return 0.0 if self.per_second is None else SECOND_US / self.per_second

    def describe(self) -> str:
        """For people: `10 at once per tenant`, `5 per second`."""
        parts = [] if self.at_once is None else [f"{self.at_once} at once"]
        parts += [] if self.per_second is None else [f"{self.per_second:g} per second"]
        return " and ".join(parts) + ("" if self.per is None else f" per {self.per}")


def _check_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"Limit({name}=...) is a whole number, not {value!r}.")
    if value < 1:
        raise ValueError(f"Limit({name}=...) is at least 1, not {value!r}.")


class BoundLimit:
    """The limit of one handler, by its name, with the way to its key."""

    __slots__ = ("_find", "limit", "name")

    def __init__(self, name: str, limit: Limit, handler: str, parameters: Sequence[str], *, has_key: bool) -> None:
        """
        Raises:
            DefinitionError: `per=` names nothing that the handler has.
        """
        check_per(limit, handler, parameters)
        if limit.per == OWN_KEY and not has_key:
            raise DefinitionError(f"The limit of {handler} is per '{OWN_KEY}', and a service has no key.")
        self.name = name
        self.limit = limit
        self._find = _finder(limit, handler, parameters)

    def __repr__(self) -> str:
        return f"<limit {self.name}: {self.limit.describe()}>"

    @property
    def reads_arguments(self) -> bool:
        return self.limit.per not in (None, OWN_KEY)

    def key(self, object_key: str, arguments: Decoded) -> str:
        """Which part of the limit an invocation counts in.

        Raises:
            HandlerMistakeError: the arguments do not hold what `per=` names, or that is no key.
        """
        return self._find(object_key, arguments)


def name_of_shared(name: str) -> str:
    """What a limit of the runtime is called where limits of all kinds stand together: in the store, and to people.

    That is its name, unless it might be the name of a limit that a handler has for itself, `Service/handler`: names of
    services hold no colon.
    """
    return f"named:{name}" if "/" in name else name


def check_per(limit: Limit, handler: str, parameters: Sequence[str]) -> None:
    """
    Raises:
        DefinitionError: the handler has no such parameter; says what there is.
    """
    name = OWN_KEY if limit.per in (None, OWN_KEY) else limit.per.partition(".")[0]
    if name != OWN_KEY and name not in parameters:
        known = ", ".join(parameters) or "none"
        raise DefinitionError(
            f"The limit of {handler} is per {limit.per!r}, and the handler has no parameter {name!r}. Its parameters: "
            f"{known}."
        )


def _finder(limit: Limit, handler: str, parameters: Sequence[str]) -> _Find:
    per = limit.per
    if per is None:
        return _one_for_all
    if per == OWN_KEY:
        return _key_of_object
    name, *path = per.split(".")
    place = parameters.index(name)

    def find(object_key: str, arguments: Decoded) -> str:
        args, kwargs = arguments
        value = kwargs[name] if name in kwargs else args[place]
        for part in path:
            value = _member(value, part, handler, per)
        return _text_of(value, handler, per)

    return find


def _one_for_all(object_key: str, arguments: Decoded) -> str:
    return ""


def _key_of_object(object_key: str, arguments: Decoded) -> str:
    return object_key


def _member(value: Any, name: str, handler: str, per: str) -> Any:
    try:
        return value[name] if is_mapping(value) else getattr(value, name)
    except (AttributeError, KeyError):
        kind = type(value).__name__
        raise HandlerMistakeError(
            f"The limit of {handler} is per {per!r}, and the argument's {kind} has no {name!r}. Correct the limit, and "
            "resume the invocation."
        ) from None


def _text_of(value: Any, handler: str, per: str) -> str:
    """Text as it is and anything else as JSON, without the surrogates and NULs that no store keeps."""
    try:
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except (TypeError, ValueError, msgspec.MsgspecError) as error:
        raise HandlerMistakeError(
            f"The limit of {handler} is per {per!r}, and {type(value).__name__} cannot be a key: {error}. Name a part "
            "of it that is text or a number."
        ) from None
    return text if is_storable(text) else ascii(text)
