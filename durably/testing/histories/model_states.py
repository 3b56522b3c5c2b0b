"""`ModelStates`: the states a plain Python model goes through, each kept once, and what each call does in each of them.

A model is any object; its state is what `copy.deepcopy` copies of it. A call runs on a copy, so a state never changes
once it is here, and it runs once for each state: a model has to answer the same in the same state. Two states are the
same if they are built of the same parts. The `__eq__` of these parts is not asked, because a wrong "the same" would
make wrong verdicts. Types count (`True` is not `1`), and so does sharing: two names for one list are not two equal
lists. The order of a set or a dict does not count, that of an `OrderedDict` does, as where Python compares them: a
model whose answers depend on the order of a dict has to use an `OrderedDict`. A model whose own class has both `__eq__`
and `__hash__` decides itself which of its states are the same.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from inspect import iscoroutine
from types import BuiltinFunctionType, EllipsisType, FunctionType, NoneType, NotImplementedType
from typing import Any, cast

from durably.errors import DefinitionError, TerminalError

_ATOMS = frozenset(
    {NoneType, bool, int, float, complex, str, bytes, range}
    | {FunctionType, BuiltinFunctionType, EllipsisType, NotImplementedType}
)
"""Types whose values have no parts that could change."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: with a result, or with an error."""

    result: Any = None
    error: TerminalError | None = None

    def is_like(self, other: Answer) -> bool:
        """Equal results; or errors whose class has the same name and that say the same."""
        if self.error is None or other.error is None:
            return self.error is other.error and bool(self.result == other.result)
        return _error_identity(self.error) == _error_identity(other.error)

    def fingerprint(self) -> Hashable:
        """Two answers with the same fingerprint are alike to every model and to every comparison."""
        return fingerprint(self.result) if self.error is None else _error_identity(self.error)


def _error_identity(error: TerminalError) -> tuple[str, str, str]:
    return type(error).__module__, type(error).__qualname__, str(error)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of the model and what it is called with."""

    handler: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


class ModelStates:
    """The states that were reached so far; each is known by its number, the first one is 0."""

    __slots__ = ("_answers", "_models", "_numbers", "_operations")

    def __init__(self, model: Callable[[], Any], operations: Iterable[Operation]) -> None:
        self._models: list[Any] = []
        self._numbers: dict[Hashable, int] = {}
        self._answers: dict[tuple[int, int], tuple[Answer, int]] = {}
        self._operations = tuple(operations)
        first = model()
        _require_methods(first, {operation.handler for operation in self._operations})
        self._number_of(first)

    def __len__(self) -> int:
        return len(self._models)

    def answer(self, state: int, operation: int) -> tuple[Answer, int]:
        """What the model answers to an operation in a state, and the state it is in then.

        A `TerminalError` is an answer, and what the model changed before it raised stays changed. Any other error is
        the model's own mistake and passes through.
        """
        known = self._answers.get((state, operation))
        if known is None:
            model = _copy(self._models[state])
            answer = _call(model, self._operations[operation])
            known = self._answers[state, operation] = (answer, self._number_of(model))
        return known

    def describe(self, state: int) -> str:
        """A state for people: the model's own `repr`, or its class and attributes."""
        model = self._models[state]
        if _own(model, "__repr__") is not None:
            return repr(model)
        attributes = ", ".join(f"{name}={value!r}" for name, value in getattr(model, "__dict__", {}).items())
        return f"{type(model).__name__}({attributes})"

    def _number_of(self, model: Any) -> int:
        key: Hashable = model if _decides_itself(model) else fingerprint(model)
        number = self._numbers.setdefault(key, len(self._models))
        if number == len(self._models):
            self._models.append(model)
        return number


def _require_methods(model: Any, handlers: Iterable[str]) -> None:
    for handler in sorted(handlers):
        if not callable(getattr(model, handler, None)):
            public = [name for name in dir(model) if not name.startswith("_") and callable(getattr(model, name))]
            raise DefinitionError(
                f"The model {type(model).__name__} has no method `{handler}`, which the history calls. "
                f"It has: {', '.join(public) or 'none'}. Give it a method for every handler that is called."
            )


def _own(model: Any, method: str) -> object:
    """A special method that the model's class does not have from `object`, or None."""
    found: object = getattr(cast("type[object]", type(model)), method)
    return None if found is getattr(object, method) else found


def _decides_itself(model: Any) -> bool:
    return _own(model, "__eq__") is not None and _own(model, "__hash__") is not None


def _copy(value: Any) -> Any:
    try:
        return deepcopy(value)
    except TypeError as error:
        error.add_note(f"A model's state has to be plain data that copy.deepcopy can copy; here it is {value!r}.")
        raise


def _call(model: Any, operation: Operation) -> Answer:
    args, kwargs = _copy((operation.args, dict(operation.kwargs)))
    try:
        result = getattr(model, operation.handler)(*args, **kwargs)
    except TerminalError as error:
        return Answer(error=error.with_traceback(None))
    except Exception as error:
        error.add_note(
            f"The model {type(model).__name__} raised this in `{operation.handler}`. "
            "A model says that a call fails by raising the TerminalError that the handler raises."
        )
        raise
    if iscoroutine(result):
        result.close()
        raise DefinitionError(
            f"The model's method `{operation.handler}` is an `async def`. A model is plain Python: write `def`."
        )
    return Answer(result)


def fingerprint(value: object) -> Hashable:
    """A value that two objects share exactly if they are built of the same parts; see the top of this file."""
    return _Fingerprint().of(value, ())


class _Fingerprint:
    """One walk over an object and its parts, in the words in which `copy` and `pickle` take objects apart."""

    __slots__ = ("_met",)

    def __init__(self) -> None:
        # The object is kept with its path: the id of one that is gone may come back as that of another.
        self._met: dict[int, tuple[Hashable, object]] = {}

    def of(self, value: Any, path: Hashable) -> Hashable:
        kind = cast("type[object]", type(value))
        if kind in _ATOMS or isinstance(value, Enum | type):
            return kind, value
        if kind is tuple:
            return kind, self._in_order(value, path)
        if id(value) in self._met:
            return "again", self._met[id(value)][0]
        self._met[id(value)] = (path, value)
        if kind is list:
            return kind, self._in_order(value, path)
        if kind is dict:
            return kind, self._pairs(value.items(), path)
        if kind is set or kind is frozenset:
            return kind, _in_any_order(self._in_order(value, path))
        return kind, self._reduced(value, path)

    def _in_order(self, values: Iterable[Any], path: Hashable) -> tuple[Hashable, ...]:
        return tuple([self.of(value, (path, place)) for place, value in enumerate(values)])

    def _pairs(self, pairs: Iterable[tuple[Any, Any]], path: Hashable) -> Hashable:
        return _in_any_order(self._pairs_in_order(pairs, path))

    def _pairs_in_order(self, pairs: Iterable[tuple[Any, Any]], path: Hashable) -> tuple[Hashable, ...]:
        keyed = [(self.of(key, (path, "key", place)), value) for place, (key, value) in enumerate(pairs)]
        return tuple([(key, self.of(value, (path, key))) for key, value in keyed])

    def _reduced(self, value: Any, path: Hashable) -> Hashable:
        reduced: str | tuple[Any, ...] = value.__reduce_ex__(4)
        if isinstance(reduced, str):  # The name of something there is one of.
            return reduced
        make, args, state, items, pairs = (*reduced, None, None, None)[:5]
        in_order = self._pairs_in_order if isinstance(value, OrderedDict) else self._pairs
        return (
            self.of(make, (path, "make")),
            self.of(args, (path, "args")),
            self.of(state, (path, "state")),
            self._in_order(items or (), (path, "items")),
            in_order(pairs or (), (path, "pairs")),
        )


def _in_any_order(values: Iterable[Hashable]) -> Hashable:
    # Counted, because two objects that are the same to us may be two members to their set.
    return frozenset(Counter(values).items())
