"""Stand-ins for dependencies that were not given, for tests that never call them.

A stand-in has the methods of its class, with their annotations, so that `ctx.run("charge", self.payments.charge)` knows
the type of the recorded result. All that needs the real dependency raises an error that says so: calling a method,
looking at an attribute that only an instance has, operators that the class defines.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, NoReturn

from durably.errors import HandlerMistakeError

_OF_ANY_OBJECT = frozenset({
    "__class__", "__class_getitem__", "__del__", "__delattr__", "__dir__", "__getattr__", "__getattribute__",
    "__getstate__", "__init__", "__init_subclass__", "__new__", "__reduce__", "__reduce_ex__", "__repr__",
    "__setattr__", "__str__", "__subclasshook__",
})  # fmt: skip
"""Special methods that say how instances are made, kept and shown: a stand-in has its own."""


class StandIn:
    """Stands in for an instance of a class."""

    def __init__(self, cls: type) -> None:
        self._stands_for = cls

    def __repr__(self) -> str:
        return f"<stand-in for {self._stands_for.__name__}>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{self!r} has no {name}")
        found = inspect.getattr_static(self._stands_for, name, None)
        if isinstance(found, staticmethod | classmethod) or inspect.isroutine(found):
            return _refusing(self._stands_for, name)
        if found is None or hasattr(found, "__get__"):
            _refuse(self._stands_for, name)
        return found


def stand_in_for(cls: type) -> StandIn:
    """A stand-in for an instance of `cls`."""
    special = [name for name in dir(cls) if name.startswith("__") and name not in _OF_ANY_OBJECT]
    own = {name: _refusing(cls, name) for name in special if _defines(cls, name)}
    made: type[StandIn] = type(f"StandInFor{cls.__name__}", (StandIn,), own)
    return made(cls)


def _defines(cls: type, name: str) -> bool:
    found = getattr(cls, name, None)
    return inspect.isroutine(found) and found is not getattr(object, name, None)


def _refusing(cls: type, name: str) -> Callable[..., Any]:
    """A function that looks like the method and raises."""

    @functools.wraps(getattr(cls, name))
    def refuse(*_arguments: Any, **_options: Any) -> NoReturn:
        _refuse(cls, name)

    return refuse


def _refuse(cls: type, name: str) -> NoReturn:
    raise HandlerMistakeError(
        f"{cls.__name__}.{name} was used on replay, and {cls.__name__} was not given, so only a stand-in is there. "
        "Side effects belong into ctx.run, whose actions are not run again. If this one is meant to be here, write "
        f"dependencies={{{cls.__name__}: ...}}."
    )
