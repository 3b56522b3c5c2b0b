"""Companions: classes of virtual objects that run beside a class of the user's, and call its methods.

A companion takes the dependencies of that class and makes a host by its constructor. Each call goes to a copy of the
host, so what a method leaves in `self` is gone after it, as in every handler.
"""

from __future__ import annotations

import inspect
from copy import copy
from typing import Any

_HOST = "_host"


def constructor_beside(cls: type[Any]) -> Any:
    """The `__init__` of a companion of this class, with its parameters."""
    has_own = cls.__init__ is not object.__init__

    def construct(self: Any, *args: Any, **kwargs: Any) -> None:
        host = object.__new__(cls)
        if has_own:
            cls.__init__(host, *args, **kwargs)
        self.__dict__[_HOST] = host

    construct.__signature__ = (  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        inspect.signature(cls.__init__)
        if has_own
        else inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)])
    )
    return construct


def host_of(companion: object) -> Any:
    """What to call a method on: the dependencies of the class and what its methods share, without state."""
    return copy(vars(companion)[_HOST])
