"""Terminal errors as bytes and back: what a caller gets is of the class that was raised, with its fields.

Neither direction ever fails: a class that the reader does not know becomes its nearest known base, and travels on as
what it was; a field that cannot be written or read is left out and named in the metadata. Restoring does not call
`__init__`. Tracebacks do not travel.
"""

from __future__ import annotations

import asyncio
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from inspect import get_annotations
from types import SimpleNamespace
from typing import Any, ClassVar, TypeAlias, TypeVar, cast, get_args, get_origin
from weakref import WeakKeyDictionary

import msgspec

from durably.actors.values.descriptions import text_for_people
from durably.actors.values.serde import TypeCodec, codec_for
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass
from durably.errors import (
    TRAVELLED_AS,
    CancelledInvocationError,
    DefinitionError,
    HandlerMistakeError,
    RetryableError,
    TerminalError,
    TravelledAs,
    UndecodableError,
    error_class_name,
    known_error_class,
)

ErrorT = TypeVar("ErrorT", bound=BaseException)

METADATA_ENTRY = "durably"
"""Where an envelope travels in the metadata of a failure: through an engine that knows code, message and metadata."""
LOST_FIELDS = "lost_fields"
"""The metadata entry that names fields which did not travel."""
TIMEOUT_CODE = 408


class Envelope(msgspec.Struct, omit_defaults=True):
    """A terminal error as it is stored: its class and bases, nearest first, and everything it says."""

    classes: list[str]
    code: int
    message: str
    metadata: dict[str, str] = {}
    fields: dict[str, msgspec.Raw] = {}


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


def terminal(error: BaseException) -> TerminalError | None:
    """The terminal error that `error` is for callers, or None where another attempt may help (rule E3).

    An error that was raised from one that is terminal is it too: wrapping says more, and undoes nothing.
    """
    return _terminal(error, of_action=False)


def terminal_of_action(error: BaseException) -> TerminalError | None:
    """The same for what an action raised, whose time-outs and cancels may pass (rule A3)."""
    return _terminal(error, of_action=True)


def _terminal(error: BaseException, *, of_action: bool) -> TerminalError | None:
    if isinstance(error, asyncio.CancelledError) and not of_action:
        return _cancelled(error)
    raised = _first_of(TerminalError, error)
    if raised is not None:
        return raised
    for one in _chain(error):
        if isinstance(one, TimeoutError) and not of_action:
            return TerminalError(str(one) or "The handler ran into a time limit of its own.", code=TIMEOUT_CODE)
        if isinstance(one, BaseExceptionGroup):
            group = _terminal_group(cast("BaseExceptionGroup[BaseException]", one), of_action=of_action)
            if group is not None:
                return group
    return None


def asked_delays(error: BaseException) -> list[timedelta | float]:
    """The `retry_after` of each `RetryableError` that this error is, holds as a group, or was raised from."""
    delays: list[timedelta | float] = []
    for one in _chain(error):
        if isinstance(one, RetryableError):
            try:
                asked_for = one.retry_after
            except USER_ERRORS as problem:  # A subclass of the user's may never have called __init__.
                let_signals_pass(problem)
            else:
                delays += [] if asked_for is None else [asked_for]
        elif isinstance(one, BaseExceptionGroup):
            for leaf in _leaves(cast("BaseExceptionGroup[BaseException]", one)):
                delays += asked_delays(leaf)
    return delays


def _first_of(kind: type[ErrorT], error: BaseException) -> ErrorT | None:
    """The first of its class among an error and what that was explicitly raised from (`raise ... from`)."""
    return next((one for one in _chain(error) if isinstance(one, kind)), None)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and what it was explicitly raised from, up to one that says for itself what is to be done."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:  # A chain of causes may be a ring.
        yield one
        if isinstance(one, HandlerMistakeError | RetryableError | TerminalError):
            return
        seen.add(id(one))
        one = one.__cause__


def _cancelled(error: BaseException) -> TerminalError:
    """Callers get the plain class, not the one that the handler saw."""
    if isinstance(error, TerminalError):
        return CancelledInvocationError(message_of(error), code=code_of(error), metadata=metadata_of(error))
    return CancelledInvocationError(str(error) or None)


def _terminal_group(group: BaseExceptionGroup[BaseException], *, of_action: bool) -> TerminalError | None:
    leaves = [_terminal(leaf, of_action=of_action) for leaf in _leaves(group)]
    ends = [leaf for leaf in leaves if leaf is not None]
    if len(ends) != len(leaves):
        return None
    first, *others = ends
    if not others:
        return first
    whole = decode_failure(encode_failure(first))
    metadata = {
        **whole.metadata,
        **{
            f"also_{number}": f"{type(other).__qualname__} ({code_of(other)}): {message_of(other)}"
            for number, other in enumerate(others, 1)
        },
    }
    _set(whole, "metadata", metadata)
    return whole


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += (
            _leaves(cast("BaseExceptionGroup[BaseException]", error))
            if isinstance(error, BaseExceptionGroup)
            else [error]
        )
    return found


def encode_failure(error: TerminalError) -> bytes:
    """The envelope of an error, as bytes."""
    return _encoder.encode(envelope_of(error))


def envelope_of(error: TerminalError) -> Envelope:
    """The class of an error, and everything that it says."""
    fields: dict[str, msgspec.Raw] = {}
    lost: list[str] = []
    for name, codec in _fields_of(type(error)).items():
        try:
            fields[name] = msgspec.Raw(codec.encode_exactly(getattr(error, name)))
        except AttributeError:
            continue  # Annotated, never set: nothing to lose.
        except USER_ERRORS as problem:  # It cannot be written, or is a property of the user's that cannot be read.
            let_signals_pass(problem)
            lost.append(name)
    metadata = metadata_of(error)
    if lost:
        metadata[LOST_FIELDS] = ", ".join(lost)
    names = _class_names(type(error))
    travelled: TravelledAs | None = error.__dict__.get(TRAVELLED_AS)
    if travelled is not None:
        names = [*travelled.classes, *(name for name in names if name not in travelled.classes)]
        fields |= {name: msgspec.Raw(value) for name, value in travelled.fields.items() if name not in fields}
    return Envelope(names, code_of(error), message_of(error), metadata, fields)


def decode_failure(data: bytes, cause: BaseException | None = None) -> TerminalError:
    """The error in an envelope, of the nearest class that is known here. `cause` is what it was raised from."""
    try:
        envelope = _decoder.decode(data)
    except msgspec.MsgspecError:
        return TerminalError(f"The invocation failed, with an error that cannot be read: {data[:200]!r}.")
    error = restored(envelope)
    if cause is not None:
        _set(error, "__cause__", cause)
    return error


def restored(envelope: Envelope) -> TerminalError:
    """The error in an envelope, of the nearest class that is known here."""
    known = (known_error_class(name) for name in envelope.classes)
    cls = next((found for found in known if found is not None), TerminalError)
    error = _made(cls, envelope.message)
    lost: list[str] = []
    declared = _fields_of(cls)
    own_name = error_class_name(cls)
    unknown = envelope.classes[: envelope.classes.index(own_name)] if own_name in envelope.classes else envelope.classes
    undeclared = {name: bytes(value) for name, value in envelope.fields.items() if name not in declared}
    if unknown or undeclared:
        _set(error, TRAVELLED_AS, TravelledAs(tuple(unknown), undeclared))
    for name, codec in declared.items():
        if name in envelope.fields and not _restore_field(error, name, codec, bytes(envelope.fields[name])):
            lost.append(name)
    metadata = dict(envelope.metadata)
    if lost:
        metadata[LOST_FIELDS] = ", ".join(filter(None, [metadata.get(LOST_FIELDS), *lost]))
    if envelope.code != cls.code:
        _set(error, "code", envelope.code)
    if metadata:
        _set(error, "metadata", metadata)
    if envelope.message != message_of(error):
        _set(error, "message", envelope.message)
    return error


def _restore_field(error: TerminalError, name: str, codec: TypeCodec[Any], data: bytes) -> bool:
    try:
        value = codec.decode(data)
    except UndecodableError:
        return False
    return _set(error, name, value)


def _set(error: TerminalError, name: str, value: object) -> bool:
    """Past the `__setattr__` of a frozen dataclass; False where it is a property that cannot be set."""
    try:
        object.__setattr__(error, name, value)
    except USER_ERRORS as problem:  # Of a property's setter.
        let_signals_pass(problem)
        return False
    return True


def _made(cls: type[TerminalError], message: str) -> TerminalError:
    """An error of a class, without a call of its `__init__`, and past a `__new__` that takes something else."""
    makers: tuple[Callable[..., Any], ...] = (cls.__new__, BaseException.__new__)
    for make in makers:
        try:
            made = make(cls, message)
        except USER_ERRORS as problem:
            let_signals_pass(problem)
        else:
            if isinstance(made, cls):
                return made
    return TerminalError(message)


def _class_names(cls: type[TerminalError]) -> list[str]:
    return [error_class_name(base) for base in cls.__mro__ if issubclass(base, TerminalError)]


def message_of(error: TerminalError) -> str:
    """What an error says, as it travels. Never fails: a message may be a property of the user's."""
    try:
        message: Any = error.message
        return text_for_people(str.__str__(message) if isinstance(message, str) else str(message))
    except USER_ERRORS as problem:  # It must not hide the failure.
        let_signals_pass(problem)
        return f"{type(error).__qualname__} (its message cannot be read: {type(problem).__qualname__})"


def code_of(error: TerminalError) -> int:
    """The code of an error, as it travels: 500 where its class says what is no number. Never fails."""
    try:
        code: Any = error.code
    except USER_ERRORS as problem:  # As above.
        let_signals_pass(problem)
        return TerminalError.code
    return int.__int__(code) if isinstance(code, int) else TerminalError.code


def metadata_of(error: TerminalError) -> dict[str, str]:
    """The metadata of an error, as text; nothing where they cannot be read. Never fails: they are for people."""
    try:
        return {text_for_people(str(name)): text_for_people(str(value)) for name, value in error.metadata.items()}
    except USER_ERRORS as problem:  # As above.
        let_signals_pass(problem)
        return {}


Bindings: TypeAlias = dict[tuple[Any, Any], tuple[Any, type]]
"""What the type variables of generic classes stand for, and which class says so: `class Gone(Missing[Seat])`."""

_codecs_of_fields: WeakKeyDictionary[type[TerminalError], dict[str, TypeCodec[Any]]] = WeakKeyDictionary()


def _fields_of(cls: type[TerminalError]) -> dict[str, TypeCodec[Any]]:
    codecs = _codecs_of_fields.get(cls)
    if codecs is None:
        codecs = _codecs_of_fields[cls] = _find_fields(cls)
    return codecs


def _find_fields(cls: type[TerminalError]) -> dict[str, TypeCodec[Any]]:
    """The codecs of what a class of errors declares beside code, message and metadata, its bases' first."""
    codecs: dict[str, TypeCodec[Any]] = {}
    bindings = _bindings(cls)
    for base in reversed(cls.__mro__):
        if issubclass(base, TerminalError) and base is not TerminalError:
            for name, annotation in get_annotations(base).items():
                if not name.startswith("_") and name not in ("code", "message", "metadata"):
                    codec = _field_codec(base, annotation, bindings)
                    if codec is not None:
                        codecs[name] = codec
    return codecs


def _bindings(cls: type) -> Bindings:
    bindings: Bindings = {}
    for one in cls.__mro__:
        for base in vars(one).get("__orig_bases__", ()):
            origin, arguments = get_origin(base), get_args(base)
            variables: tuple[Any, ...] = getattr(origin, "__parameters__", ())
            if len(variables) == len(arguments):
                bindings |= {(origin, name): (to, one) for name, to in zip(variables, arguments, strict=True)}
    return bindings


def _field_codec(cls: type, annotation: Any, bindings: Bindings) -> TypeCodec[Any] | None:
    """None for a ClassVar; plain JSON where the annotation cannot be resolved or expressed."""
    try:
        resolved = _resolved(cls, annotation, bindings)
    except USER_ERRORS as error:  # An annotation may raise any error; the failure itself must travel.
        let_signals_pass(error)
        return codec_for(Any)
    if resolved is ClassVar or get_origin(resolved) is ClassVar:
        return None
    try:
        return codec_for(resolved)
    except DefinitionError:
        return codec_for(Any)


def _resolved(cls: type, annotation: Any, bindings: Bindings) -> Any:
    """An annotation, where names mean what they do in the class, with its type variables replaced."""
    module = sys.modules.get(cls.__module__)
    holder: Any = SimpleNamespace(__annotations__={"field": annotation})
    names = vars(module) if module else {}
    resolved: Any = typing.get_type_hints(holder, names, dict(vars(cls)), include_extras=True)["field"]
    if isinstance(resolved, TypeVar):
        argument, where = bindings.get((cls, resolved), (resolved, cls))
        return resolved if argument is resolved else _resolved(where, argument, bindings)
    model: Mapping[str, Any] | None = getattr(resolved, "__pydantic_generic_metadata__", None)
    if model is not None:
        variables: tuple[Any, ...] = model["parameters"]
    else:  # A class that is generic itself has them too, where it is named without arguments.
        variables = () if get_origin(resolved) is None else resolved.__parameters__
    if not any((cls, variable) in bindings for variable in variables):
        return resolved
    return resolved[tuple(_resolved(cls, variable, bindings) for variable in variables)]
