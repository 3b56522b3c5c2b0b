"""`fingerprint`: a name for the code of a handler. Other code has another one; comments and moved lines change nothing.

It covers what runs inside an advance and changes with a deployment: the handler's function, what it uses of its class,
functions and classes of its module that it names, all the way down, and the same of the middleware around it. What it
imports is not in it: libraries have versions of their own. It is taken from code objects, not from source files, which
may have been replaced by then; so each minor version of Python has its own. Replay proves whether code follows a
journal; a fingerprint only tells which code it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any, cast

FINGERPRINT_CHARACTERS = 12
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis))


def fingerprint(function: object, cls: type, middleware: Sequence[object] = ()) -> str:
    """The fingerprint of a handler's function in a class, with what stands around it."""
    digest = hashlib.sha256()
    seen: set[CodeType] = set()
    for one in middleware:
        around = getattr(one, "given", one)  # The class of what is made at the start.
        _add(digest, _of_middleware(around), around if isinstance(around, type) else type(around), seen)
    _add(digest, _functions_in(function), cls, seen)
    return digest.hexdigest()[:FINGERPRINT_CHARACTERS]


def _add(digest: Any, functions: Iterable[FunctionType], cls: type, seen: set[CodeType]) -> None:
    waiting = [*functions]
    while waiting:
        one = waiting.pop()
        if one.__code__ in seen:
            continue
        seen.add(one.__code__)
        for part in (*_parts(one.__code__), *_parts(one.__defaults__), *_parts(one.__kwdefaults__)):
            digest.update(part.encode(errors="backslashreplace"))
            digest.update(b"\0")
        waiting += reversed([*_used_by(one, cls)])


def _of_middleware(around: object) -> Iterator[FunctionType]:
    """The code of middleware: a function, or the `__call__` of a class with the functions that an object of it has."""
    if isinstance(around, FunctionType):
        yield around
        return
    yield from _functions_in(getattr(around if isinstance(around, type) else type(around), "__call__", None))  # noqa: B004
    for value in getattr(around, "__dict__", {}).values() if not isinstance(around, type) else ():
        yield from _functions_in(value)


def _parts(value: object) -> Iterator[str]:
    """What a constant or a code object says, without where it stands or how it is kept in memory."""
    match value:
        case CodeType():
            yield value.co_name
            yield value.co_code.hex()
            yield " ".join((*value.co_names, "|", *value.co_varnames, "|", *value.co_freevars))
            yield str((value.co_argcount, value.co_kwonlyargcount, value.co_posonlyargcount, value.co_flags))
            constants = value.co_consts
            # The first constant of a function is its docstring, if it has one; no code refers to it.
            for constant in constants[1:] if constants and isinstance(constants[0], str) else constants:
                yield from _parts(constant)
        case frozenset():
            members = cast("frozenset[object]", value)
            # They come in another order in each process.
            yield " ".join(sorted("".join(_parts(member)) for member in members))
        case tuple():
            for member in cast("tuple[object, ...]", value):
                yield from _parts(member)
        case dict():
            for name, member in cast("dict[str, object]", value).items():
                yield name
                yield from _parts(member)
        case _:
            yield f"{type(value).__name__} {value!r}" if isinstance(value, _PLAIN) else type(value).__name__


def _used_by(function: FunctionType, cls: type) -> Iterator[FunctionType]:
    """Functions that the code of a function names: of its class, of its module, and those in its closure."""
    names = [*_names(function.__code__)]
    for name in names:
        for base in cls.__mro__:
            if name in vars(base):
                yield from _functions_in(vars(base)[name])
                break
        named: Any = function.__globals__.get(name)
        if getattr(named, "__module__", None) == function.__module__:
            yield from _functions_in(named)
    for cell in function.__closure__ or ():
        try:
            yield from _functions_in(cell.cell_contents)
        except ValueError:  # It is empty.
            continue


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _functions_in(value: object) -> Iterator[FunctionType]:
    """The functions of a function, a method in a class, a property or a plain class."""
    if isinstance(value, FunctionType):
        yield value
    elif isinstance(value, staticmethod | classmethod):
        yield from _functions_in(cast("Any", value).__func__)
    elif isinstance(value, property):
        for one in (value.fget, value.fset, value.fdel):
            yield from _functions_in(one)
    elif isinstance(value, type) and not hasattr(value, "__durably__"):
        for member in vars(value).values():
            if not isinstance(member, type):
                yield from _functions_in(member)
