"""`Reach`: the code that some code names, function by function and class by class, and the variables that it uses.

It is followed through functions, classes and modules, as far as they are the user's own. A walk takes milliseconds, and
each bare `Simulation` needs one; so it remembers what it saw, and says whether that is still so.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator, Mapping
from inspect import isclass, isfunction, ismethod, unwrap
from os import sep
from sysconfig import get_path
from types import CodeType, CoroutineType, FunctionType, ModuleType
from typing import Any, NamedTuple, TypeAlias, cast

from durably.actors.actor import Actor
from durably.actors.handlers import Handler

Holder: TypeAlias = dict[str, Any] | type

CONSTANTS = (type(None), bool, int, float, complex, str, bytes)
_LIBRARIES = tuple(f"{get_path(name)}{sep}" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_NOT_OF_USERS = ("durably", "asyncio", "hypothesis", "pytest", "_pytest")
_MISSING: Any = object()


class Place(NamedTuple):
    """Where a variable is kept: a global of a module, or an attribute of a class."""

    title: str
    holder: Holder
    key: str
    value: Any
    """What it held when it was found."""

    def now(self) -> Any:
        """What it holds."""
        names = self.holder if isinstance(self.holder, dict) else vars(self.holder)
        return names.get(self.key, _MISSING)

    def is_as_found(self) -> bool:
        """A walk would go on from it as before."""
        value = self.now()
        return value is self.value or (isinstance(value, CONSTANTS) and isinstance(self.value, CONSTANTS))


class Reach:
    """One walk. It stops at code that is `known`."""

    def __init__(self, packages: frozenset[str], known: Mapping[int, object] | None = None) -> None:
        self.met: dict[int, object] = {**(known or {})}
        self.variables: dict[tuple[int, str], Place] = {}
        self.seen: list[Place] = []
        """All that decided where the walk went."""
        self.sizes: dict[int, tuple[Holder, int]] = {}
        """How many names each module and class had that it came by."""
        self._packages = packages
        self._values: set[int] = set()

    def uses(self, place: Place) -> bool:
        """It uses this variable, or holds the same value, under a name of its own."""
        is_same_object = not isinstance(place.value, CONSTANTS) and id(place.value) in self._values
        return (id(place.holder), place.key) in self.variables or is_same_object

    def is_as_it_was(self) -> bool:
        """A walk of now would find the same."""
        return all(len(_names(holder)) == size for holder, size in self.sizes.values()) and all(
            place.is_as_found() for place in self.seen
        )

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
                self._comes_by(vars(value))
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
            self._comes_by(one)
            for name, value in attributes.items():
                if name.startswith("__") and not isfunction(value):
                    continue
                self.seen.append(Place(name, one, name, value))
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
            if not isinstance(value, CONSTANTS) and not self.follow(value, names):
                title = f"{function.__module__}.{function.__qualname__}: the default of a parameter"
                self._keep({name: value}, name, title, value)

    def _follow_code(self, code: CodeType, namespace: dict[str, Any], module: str) -> frozenset[str]:
        names = frozenset(name for one in _codes(code) for name in one.co_names)
        self._comes_by(namespace)
        for name in names & namespace.keys():
            self._use(namespace, name, f"{namespace.get('__name__', module)}.{name}", names)
        return names

    def _use(self, namespace: dict[str, Any], name: str, title: str, names: frozenset[str]) -> None:
        value = namespace[name]
        self.seen.append(Place(title, namespace, name, value))
        if not self.follow(value, names):
            self._keep(namespace, name, title, value)

    def _keep(self, holder: Holder, key: str, title: str, value: Any) -> None:
        place = (id(holder), key)
        if place not in self.variables:
            self.variables[place] = Place(title, holder, key, value)
            self._values.add(id(value))

    def _comes_by(self, holder: Holder) -> None:
        self.sizes[id(holder)] = (holder, len(_names(holder)))

    def _is_of_users(self, module: str | None) -> bool:
        if module is None:
            return False
        package = module.partition(".")[0]
        if package in self._packages:
            return True
        file = getattr(sys.modules.get(module), "__file__", None)
        return file is not None and package not in _NOT_OF_USERS and not file.startswith(_LIBRARIES)


def _names(holder: Holder) -> Mapping[str, Any]:
    return holder if isinstance(holder, dict) else vars(holder)


def is_cache(value: Any) -> bool:
    """Made by `functools.cache` or `functools.lru_cache`."""
    return callable(value) and hasattr(value, "cache_clear") and hasattr(value, "cache_info")


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _is_descriptor(value: object) -> bool:
    return hasattr(type(value), "__get__")
