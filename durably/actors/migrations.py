"""`@migrate`: how the state of an object that older code has written becomes the state that today's code reads.

A class says with `state_version=` which version its state has; what was written without one has the first. A migration
goes from one version to the next, and several are carried out one after the other.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from durably.actors.values.descriptions import named
from durably.actors.values.type_checks import is_int
from durably.errors import DefinitionError
from durably.ids import STATE_VERSION_FIELD

FIRST_STATE_VERSION = 1

PlainState: TypeAlias = dict[str, Any]
"""State by stored name, as plain data: what JSON reads; bytes where a field has a Serde of its own."""
MigrationFunction: TypeAlias = Callable[[PlainState], Mapping[str, Any]]


class Migration:
    """A migration as it stands in its class. It can be called, as tests do."""

    def __init__(self, function: MigrationFunction, from_version: int) -> None:
        self.function = function
        self.from_version = from_version
        self.__doc__ = function.__doc__

    def __call__(self, old: PlainState, /) -> Mapping[str, Any]:
        return self.function(old)

    def __repr__(self) -> str:
        return f"<migration {named(self.function)} from state version {self.from_version}>"


def recorded_state_version(state: Mapping[str, bytes]) -> int:
    """The version that stored state says it has.

    Raises:
        ValueError: it says nothing that could be one.
    """
    recorded = state.get(STATE_VERSION_FIELD)
    if recorded is None:
        return FIRST_STATE_VERSION
    version = int(recorded)
    if version < FIRST_STATE_VERSION:
        raise ValueError(f"a state version is {FIRST_STATE_VERSION} or more, not {version}")
    return version


def migrate(*, from_version: int) -> Callable[[MigrationFunction], Migration]:
    """Make a plain function in a class a migration of its state: from this version to the next.

        class Cart(VirtualObject, state_version=2):
            @migrate(from_version=1)
            @staticmethod
            def split_name(old: dict[str, Any]) -> dict[str, Any]:
                first, _, last = old.pop("name").partition(" ")
                return {**old, "first": first, "last": last}

    The function is given the old state by stored name, as plain data (what JSON reads; `bytes` of a field with a Serde
    of its own), and returns the new one. What it leaves out is deleted. It does no I/O, and looks at no clock and no
    chance. It runs when the object is next used, between two invocations, and its result is durable with that.

    Raises:
        DefinitionError: it cannot be a migration; says what to write.
    """
    if not is_int(from_version) or from_version < FIRST_STATE_VERSION:
        raise DefinitionError(f"@migrate(from_version={from_version!r}): state versions are whole numbers from 1 on.")

    def decorate(function: MigrationFunction, /) -> Migration:
        plain: Any = function.__func__ if isinstance(function, staticmethod) else function
        if not inspect.isfunction(plain) or inspect.iscoroutinefunction(plain) or inspect.isgeneratorfunction(plain):
            raise DefinitionError(
                f"@migrate(from_version={from_version}) stands above a plain function of the old state, and here it is "
                f"on {function!r}. Write `def name(old): ... return new`, without self."
            )
        if len(inspect.signature(plain).parameters) != 1:
            raise DefinitionError(
                f"The migration {named(plain)} takes the old state and nothing else, not even self. Write "
                f"`def {plain.__name__}(old): ...`."
            )
        if plain.__name__ == migrate.__name__:
            raise DefinitionError(
                f"The migration {named(plain)} has the name of its decorator, and hides it in the rest of the class. "
                "Call the function something else."
            )
        return Migration(plain, from_version)

    return decorate
