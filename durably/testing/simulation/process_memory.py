"""`ProcessMemory`: the globals of the actors' code, which a killed process loses, and which no run hands to the next.

A real process that is killed begins anew with its modules freshly imported. Simulated ones share one interpreter: what
handlers keep in globals, class attributes and caches would survive their death, and a run would find what the last one
has left. So what only the actors' code uses is restored at each death and after each run. A variable that the program
or a dependency uses too belongs to the world outside, such as the ledger of a fake; it survives crashes, and is
restored when a run begins. What other functions of the program's module use too, such as the test itself, is left
alone, and so are variables of enclosing functions.

The code that actors run is followed from their handlers: functions, classes and modules that are named there, as far as
they are the user's own.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from copy import deepcopy
from inspect import isfunction
from itertools import chain
from types import CoroutineType, ModuleType
from typing import Any, NamedTuple

from durably.actors.actor import Actor
from durably.actors.definition.definition import definition_of
from durably.actors.dependencies import Factory
from durably.actors.middleware import MiddlewareGiven
from durably.actors.values.type_checks import is_mapping
from durably.testing.histories.model_states import fingerprint
from durably.testing.simulation.code_reach import CONSTANTS, Place, Reach, is_cache

MOST_PARTS = 1_000
"""A value of more parts, such as a table of constants, is only watched for being replaced."""

MOST_REMEMBERED = 16
"""How many walks over code are remembered."""

_MISSING: Any = object()


class Variable:
    """A global or a class attribute, as it was in the beginning."""

    def __init__(self, place: Place) -> None:
        value = place.now()
        self.name = place.title
        self._place = place
        self.value = value
        self._is_constant = isinstance(value, CONSTANTS) or _parts(value, MOST_PARTS) > MOST_PARTS
        self._copy: Any = _MISSING if self._is_constant else _copied(value)
        self._print = None if self._copy is _MISSING else _fingerprint(value)

    def has_changed(self) -> bool:
        """It holds something else, or its value is no longer what it was."""
        value = self._place.now()
        if value is not self.value:
            return not (self._is_constant and type(value) is type(self.value) and value == self.value)
        if is_cache(value):
            return bool(value.cache_info().currsize)
        return self._print is not None and _fingerprint(value) != self._print

    def restore(self) -> None:
        """Make it what it was in the beginning."""
        if is_cache(self.value):
            self.value.cache_clear()
        elif self._copy is not _MISSING and not _restored_in_place(self.value, deepcopy(self._copy)):
            self.value = deepcopy(self._copy)
        if self._place.now() is not self.value:
            self._set(self.value)

    def _set(self, value: Any) -> None:
        holder, key = self._place.holder, self._place.key
        if isinstance(holder, dict):
            holder[key] = value
        else:
            setattr(holder, key, value)


class ProcessMemory:
    """The variables of some actors' code, and of what runs with it: middleware, and factories of dependencies.

    `world` is code of the world outside: the program, or a class around it.
    """

    def __init__(
        self,
        actors: Iterable[type[Actor]],
        world: Sequence[Any],
        dependencies: Mapping[Any, Any] | None = None,
        middleware: Sequence[MiddlewareGiven] = (),
    ) -> None:
        several = tuple(actors)
        values = [] if dependencies is None else [*dependencies.values()]
        given = [one for one in values if not isinstance(one, Factory)]
        beside = [one.make for one in values if isinstance(one, Factory)]
        found = _found(several, (*_middleware_of(several, middleware), *beside), world, given)
        self._of_process = [Variable(place) for place in found.of_process if not _is_one_of(place.now(), given)]
        self._of_world = [Variable(place) for place in found.of_world if not _is_one_of(place.now(), given)]

    def begin_process(self) -> list[str]:
        """A process is dead: forget what it had in memory. The names of what it had changed."""
        return _restore(self._of_process)

    def begin_run(self) -> None:
        """Make the world outside what it was."""
        _restore(self._of_world)


class _Found(NamedTuple):
    """Whose the variables are that the code of some actors uses."""

    of_process: Sequence[Place]
    of_world: Sequence[Place]
    reaches: Sequence[Reach]


_FOUND: dict[Hashable, _Found] = {}
"""By actors and programs, the last ones: bare simulations of the same are made again and again."""


def _middleware_of(actors: Iterable[type[Actor]], of_runtime: Sequence[MiddlewareGiven]) -> list[Any]:
    """The code of all middleware around the handlers of some actors."""
    definitions = [definition_of(actor) for actor in actors]
    of_handlers = (handler.middleware for one in definitions for handler in one.handlers.values())
    several = [*of_runtime, *(given for one in definitions for given in one.middleware), *chain(*of_handlers)]
    return [one if isinstance(one, type) or isfunction(one) else type(one) for one in several]


def _found(
    actors: tuple[type[Actor], ...], beside: tuple[Any, ...], world: Sequence[Any], given: Sequence[Any]
) -> _Found:
    """Look for the variables, or remember where they were if nothing has changed since."""
    if any(not isinstance(one, CoroutineType) for one in world) or any(map(_is_code, given)):
        return _looked_for(actors, beside, world, given)
    codes = tuple((one.cr_code, id(one.cr_frame.f_globals) if one.cr_frame else 0) for one in world)
    key = (actors, beside, codes, tuple(map(type, given)))
    found = _FOUND.pop(key, None)
    if found is None or not all(reach.is_as_it_was() for reach in found.reaches):
        found = _looked_for(actors, beside, world, given)
    _FOUND[key] = found
    if len(_FOUND) > MOST_REMEMBERED:
        del _FOUND[next(iter(_FOUND))]
    return found


def _looked_for(
    actors: tuple[type[Actor], ...], beside: tuple[Any, ...], world: Sequence[Any], given: Sequence[Any]
) -> _Found:
    packages = frozenset(actor.__module__.partition(".")[0] for actor in actors)
    of_actors = Reach(packages)
    for actor in actors:
        of_actors.follow_class(actor)
    for one in beside:
        of_actors.follow(one, frozenset(("__call__", "__init__")))
    of_world, of_tests = Reach(packages, of_actors.met), Reach(packages, of_actors.met)
    for one in (*world, *given):
        of_world.follow(one, frozenset())
    for one in world:
        for value in list(vars(sys.modules.get(getattr(one, "__module__", ""), sys)).values()):
            if isfunction(value):
                of_tests.follow(value, frozenset())
    in_order = sorted(of_actors.variables.values(), key=lambda place: place.title)
    theirs = [place for place in in_order if of_world.uses(place)]
    rest = [place for place in in_order if not of_world.uses(place)]
    return _Found([place for place in rest if not of_tests.uses(place)], theirs, (of_actors, of_world, of_tests))


def _is_code(value: Any) -> bool:
    """Where a walk goes from it depends on more than its class."""
    return callable(value) or isinstance(value, ModuleType | staticmethod | classmethod | property | CoroutineType)


def _is_one_of(value: Any, given: Sequence[Any]) -> bool:
    return any(value is one for one in given)


def _restore(variables: Iterable[Variable]) -> list[str]:
    changed = [variable for variable in variables if variable.has_changed()]
    for variable in changed:
        variable.restore()
    return [variable.name for variable in changed]


def _parts(value: Any, most: int) -> int:
    """How many parts a value has, counted until there are too many."""
    count, left = 0, [value]
    while left and count <= most:
        one: Any = left.pop()
        count += 1
        parts: Any = one.values() if is_mapping(one) else one
        if isinstance(one, dict | list | tuple | set | frozenset | deque):
            left.extend(parts)
    return count


def _copied(value: Any) -> Any:
    return _quietly(deepcopy, value)


def _fingerprint(value: Any) -> Any:
    return _quietly(fingerprint, value)


def _quietly(function: Callable[[Any], Any], value: Any) -> Any:
    """What cannot be taken apart, such as a lock, is not watched."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return function(value)
        except Exception:
            return _MISSING


def _is(value: object, *kinds: type) -> bool:
    """`isinstance`, for values of which the checkers need know nothing."""
    return isinstance(value, kinds)


def _restored_in_place(value: Any, copy: Any) -> bool:
    """Others may hold the same object, so it is filled again rather than replaced; whether that can be done."""
    if _is(value, list, bytearray):
        value[:] = copy
    elif _is(value, dict, set):
        value.clear()
        value.update(copy)
    elif _is(value, deque):
        value.clear()
        value.extend(copy)
    elif hasattr(value, "__dict__"):
        value.__dict__.clear()
        value.__dict__.update(vars(copy))
    else:
        return False
    return True
