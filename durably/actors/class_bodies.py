"""`ClassBody`: the class statement in which handlers are made, known before its class exists.

It finds two mistakes that Python itself hides. A decorator above `@handler` replaces the handler, so that nothing of
it reaches the class. And Python 3.11 wraps what `__set_name__` raises into a RuntimeError, but not what is raised while
that method is looked up.
"""

from __future__ import annotations

import inspect
from collections.abc import MutableMapping
from types import FrameType
from typing import Any, Protocol

CLASS_BODY = "__durably_class_body__"
"""Where it stands in the namespace of the class, until the class is defined."""
FRAMES_LOOKED_AT = 6
"""How many calls may lie between the class statement and a decorator."""


class MadeInClass(Protocol):
    """A handler."""

    attribute: str
    owner: type | None
    """The class in which it stands; None: it has not been found in any."""


class ClassBody:
    """What one class statement has made, in order."""

    def __init__(self) -> None:
        self.owner: type | None = None
        """The class, as soon as it exists."""
        self.made: list[MadeInClass] = []

    def __set_name__(self, owner: type, attribute: str) -> None:
        # Asked before the handlers are: it was put into the namespace while the first of them was made.
        self.owner = owner


def class_body_of(qualified_name: str, frame: FrameType | None) -> ClassBody | None:
    """The class statement, under way in this frame or above, that a function of this name is defined in."""
    for _ in range(FRAMES_LOOKED_AT):
        if frame is None:
            return None
        if not frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # A module or the body of a class.
            return _of_namespace(qualified_name, frame.f_locals)
        frame = frame.f_back
    return None


def _of_namespace(qualified_name: str, namespace: MutableMapping[str, Any]) -> ClassBody | None:
    if namespace.get("__qualname__") != qualified_name.rpartition(".")[0]:
        return None
    found: ClassBody = namespace.setdefault(CLASS_BODY, ClassBody())
    return found
