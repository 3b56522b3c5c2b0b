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

import functools
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from inspect import isclass, isfunction, ismethod, unwrap
from os import sep
from sysconfig import get_path
from types import CodeType, CoroutineType, FunctionType, ModuleType
from typing import Any, TypeAlias, cast

from durably.actors.actor import Actor
from durably.actors.handlers import Handler
from durably.actors.values.type_checks import is_mapping
from durably.testing.histories.model_states import fingerprint

Holder: TypeAlias = dict[str, Any] | type

MOST_PARTS = 1_000
"""A value of more parts, such as a table of constants, is only watched for being replaced."""

_LIBRARIES = tuple(f"{get_path(name)}{sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_NOT_OF_USERS = ("durably", "asyncio", "hypothesis", "pytest", "_pytest")
_CONSTANTS = (type(None), bool, int, float, complex, str, bytes)
_MISSING: Any = object()


class Variable:
    """A global or a class attribute, as it was in the beginning."""

    def __init__(self, name: str, holder: Holder, key: str, value: Any) -> None:
        self.name = name
        self._holder = holder
        self._key = key
        self.value = value
        self._is_constant = isinstance(value, _CONSTANTS) or _parts(value, MOST_PARTS) > MOST_PARTS
        self._copy: Any = _MISSING if self._is_constant else _copied(value)
        self._print = None if self._copy is _MISSING else _fingerprint(value)

    def has_changed(self) -> bool:
        """It holds something else, or its value is no longer what it was."""
        value = self._get()
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
        if self._get() is not self.value:
            self._set(self.value)

    def _get(self) -> Any:
        names = self._holder if isinstance(self._holder, dict) else vars(self._holder)
        return names.get(self._key, _MISSING)

    def _set(self, value: Any) -> None:
        if isinstance(self._holder, dict):
            self._holder[self._key] = value
        else:
            setattr(self._holder, self._key, value)


class ProcessMemory:
    """The variables of some actors' code. `world` is code of the world outside: the program, or a class around it."""

    def __init__(
        self, actors: Iterable[type[Actor]], world: Sequence[Any], dependencies: Mapping[Any, Any] | None = None
    ) -> None:
        packages = frozenset(actor.__module__.partition(".")[0] for actor in actors)
        of_actors = _Reach(packages)
        for actor in actors:
            of_actors.follow_class(actor)
        given = [] if dependencies is None else [*dependencies.values()]
        of_world, of_tests = _Reach(packages, of_actors.met), _Reach(packages, of_actors.met)
        for one in (*world, *given):
            of_world.follow(one, frozenset())
        for one in world:
            for value in list(vars(sys.modules.get(getattr(one, "__module__", ""), sys)).values()):
                if isfunction(value):
                    of_tests.follow(value, frozenset())
        self._of_process: list[Variable] = []
        self._of_world: list[Variable] = []
        in_order = sorted(of_actors.variables.items(), key=lambda item: item[1].name)
        for place, variable in in_order:
            if any(variable.value is one for one in given):
                continue
            if of_world.uses(place, variable):
                self._of_world.append(variable)
            elif not of_tests.uses(place, variable):
                self._of_process.append(variable)

    def begin_process(self) -> list[str]:
        """A process is dead: forget what it had in memory. The names of what it had changed."""
        return _restore(self._of_process)

    def begin_run(self) -> None:
        """Make the world outside what it was."""
        _restore(self._of_world)


def _restore(variables: Iterable[Variable]) -> list[str]:
    changed = [variable for variable in variables if variable.has_changed()]
    for variable in changed:
        variable.restore()
    return [variable.name for variable in changed]


class _Reach:
    """The code that some code names, and the variables that it uses. It stops at code that is `known`."""

    def __init__(self, packages: frozenset[str], known: Mapping[int, object] | None = None) -> None:
        self.met: dict[int, object] = {**(known or {})}
        self.variables: dict[tuple[int, str], Variable] = {}
        self._packages = packages
        self._values: set[int] = set()

    def uses(self, place: tuple[int, str], variable: Variable) -> bool:
        """It uses this variable, or holds the same value, under a name of its own."""
        is_same_object = not isinstance(variable.value, _CONSTANTS) and id(variable.value) in self._values
        return place in self.variables or is_same_object

    def follow(self, value: Any, names: frozenset[str]) -> bool:
        """Follow a value if it is code; whether it was. `names` are the attributes that the code beside it uses."""
        if is_cache(value):
            self.follow(value.__wrapped__, names)
            return False
        if isinstance(value, functools.partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.follow(part, names)
            return True
        if isinstance(value, Handler):
            self.follow(value.signature.function, names)
            return True
        if isinstance(value, staticmethod | classmethod):
            return self.follow(getattr(cast("Any", value), "__func__", None), names)
        if isinstance(value, property):
            for accessor in (value.fget, value.fset, value.fdel):
                self.follow(accessor, names)
            return True
        if isinstance(value, CoroutineType):
            self._follow_code(value.cr_code, value.cr_frame.f_globals if value.cr_frame else {}, value.__qualname__)
            return True
        if ismethod(value):
            self.follow(value.__self__, names)
            return self.follow(value.__func__, names)
        if isfunction(value):
            self._follow_function(value)
            return True
        if isinstance(value, ModuleType):
            if self._is_of_users(value.__name__):
                for name in names & vars(value).keys():
                    self._use(vars(value), name, f"{value.__name__}.{name}", names)
            return True
        if isclass(value):
            if not issubclass(value, Actor):
                self.follow_class(value)
            return True
        self.follow_class(value.__class__)
        return False

    def follow_class(self, cls: type) -> None:
        """The methods and attributes of a class of the user's, and of what it inherits from."""
        for one in cls.__mro__:
            if id(one) in self.met or not self._is_of_users(one.__module__):
                continue
            self.met[id(one)] = one
            attributes: dict[str, Any] = {**vars(one)}
            for name, value in attributes.items():
                if name.startswith("__") and not isfunction(value):
                    continue
                if not self.follow(value, frozenset()) and not _is_descriptor(value):
                    self._keep(one, name, f"{one.__module__}.{one.__qualname__}.{name}", value)

    def _follow_function(self, function: FunctionType) -> None:
        if id(function) in self.met or not self._is_of_users(function.__module__):
            return
        self.met[id(function)] = function
        inner = unwrap(function)
        if inner is not function:
            self.follow(inner, frozenset())
        names = self._follow_code(function.__code__, function.__globals__, function.__module__)
        for cell in function.__closure__ or ():
            try:
                self.follow(cell.cell_contents, names)
            except ValueError:  # Not yet bound.
                continue
        defaults = {str(place): value for place, value in enumerate(function.__defaults__ or ())}
        for name, value in {**defaults, **(function.__kwdefaults__ or {})}.items():
            if not isinstance(value, _CONSTANTS) and not self.follow(value, names):
                title = f"{function.__module__}.{function.__qualname__}: the default of a parameter"
                self._keep({name: value}, name, title, value)

    def _follow_code(self, code: CodeType, namespace: dict[str, Any], module: str) -> frozenset[str]:
        names = frozenset(name for one in _codes(code) for name in one.co_names)
        for name in names & namespace.keys():
            self._use(namespace, name, f"{namespace.get('__name__', module)}.{name}", names)
        return names

    def _use(self, namespace: dict[str, Any], name: str, title: str, names: frozenset[str]) -> None:
        value = namespace[name]
        if not self.follow(value, names):
            self._keep(namespace, name, title, value)

    def _keep(self, holder: Holder, key: str, title: str, value: Any) -> None:
        place = (id(holder), key)
        if place not in self.variables:
            self.variables[place] = Variable(title, holder, key, value)
            self._values.add(id(value))

    def _is_of_users(self, module: str | None) -> bool:
        if module is None:
            return False
        package = module.partition(".")[0]
        if package in self._packages:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is not None and package not in _NOT_OF_USERS and not file.startswith(_LIBRARIES)


def is_cache(value: Any) -> bool:
    """Made by `functools.cache` or `functools.lru_cache`."""
    return callable(value) and hasattr(value, "cache_clear") and hasattr(value, "cache_info")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


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


def _is_descriptor(value: object) -> bool:
    return hasattr(type(value), "__get__")


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
