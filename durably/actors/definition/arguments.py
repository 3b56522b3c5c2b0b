"""The arguments of one handler as bytes, in their two forms.

In journals and between objects they are always a JSON object by name, `{}` for none. From outside they come as a
body, and `admit` turns that into the first form by one rule for each number of parameters:

- none: the body is empty;
- one: the body is its bare value; empty where it has a default;
- several: the body is an object by name, which may leave out parameters with a default; empty where all have one. Where
  just one of them has no default, a body that is not an object naming that one is its bare value: a handler may be
  given further parameters with defaults without breaking those who call it with one value.

A key that no parameter, and no field of a dataclass, stands for is refused.

A handler with `accepts=` has one parameter, and both forms are the bytes of that Serde.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from durably.actors.values.descriptions import MISSING, describe, shortened_bytes
from durably.actors.values.malformed_text import malformed_text
from durably.actors.values.media_types import content_type_of, media_range_of
from durably.actors.values.places import located
from durably.actors.values.serde import JSON, JsonSerde, Serde, TypeCodec, admit, encode_by
from durably.actors.values.slices import ADMITTING, DECODING, Reading, Slices, members_in_slices, value_in_slices
from durably.actors.values.unknown_keys import UnknownKeys
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass, reason_of
from durably.errors import InvalidArgumentError, UndecodableError, UnencodableError

HandlerFunction: TypeAlias = Callable[..., Coroutine[Any, Any, Any]]

T = TypeVar("T")

NO_ARGUMENTS = b"{}"
JSON_SPACE = b" \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a handler, after `self` and `ctx`; `annotation` is as it was written, or resolved."""

    name: str
    annotation: Any
    default: Any
    keyword_only: bool

    @property
    def required(self) -> bool:
        return self.default is MISSING

    def describe(self) -> str:
        """As a programmer would write what follows the colon: `int = 1`."""
        return describe(self.annotation) + ("" if self.required else f" = {self.default!r}")


def in_words(parameters: Sequence[Parameter]) -> str:
    """The parameters for a sentence: `(ticket_id: str, n: int = 1)`."""
    return "(" + ", ".join(f"{one.name}: {one.describe()}" for one in parameters) + ")"


class Arguments(Protocol):
    """How the arguments of one handler become bytes and are called with."""

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> bytes:
        """The journal form of what a caller wrote in the parentheses.

        Raises:
            TypeError: too many, too few or unknown arguments.
            UnencodableError: a value cannot be written; names the parameter.
        """
        ...

    def call(self, actor: Any, ctx: Any, argument: bytes, /) -> Coroutine[Any, Any, Any]:
        """The coroutine of the handler's function on an argument in journal form.

        Raises:
            InvalidArgumentError: it does not fit the parameters.
        """
        ...

    def decode(self, argument: bytes, /) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with, by position and by name, for an argument in journal form.

        Raises:
            InvalidArgumentError: it does not fit the parameters.
        """
        ...

    def decode_in_slices(self, argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
        """The same, in slices, for `call_decoded`."""
        ...

    def call_decoded(self, actor: Any, ctx: Any, decoded: Decoded, /) -> Coroutine[Any, Any, Any]:
        """The coroutine of the handler's function on arguments that were decoded for this very call (rule V1)."""
        ...

    def check(self, argument: bytes, /) -> None:
        """See that an argument in journal form fits.

        Raises:
            InvalidArgumentError: it does not fit the parameters.
        """
        ...

    def admit(self, body: bytes, /) -> bytes:
        """The journal form of a body from outside.

        Raises:
            InvalidArgumentError: it does not fit the parameters.
        """
        ...

    def admit_in_slices(self, body: bytes, size_bytes: int, /) -> Slices[bytes]:
        """The same, in slices."""
        ...

    def body(self, argument: bytes, /) -> bytes:
        """The body for an argument in journal form that `encode` has given; `admit` gives it back."""
        ...

    @property
    def content_type(self) -> str | None:
        """Of such a body; None where there is nothing to be sent."""
        ...

    @property
    def accepts(self) -> str | None:
        """The media range of bodies from outside; None where there is nothing to be sent."""
        ...


Decoded: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""Arguments by position and by name."""


class JsonArguments:
    """Arguments by name, each with the codec of its annotation."""

    def __init__(
        self,
        handler: str,
        function: HandlerFunction,
        parameters: Sequence[Parameter],
        codecs: Mapping[str, TypeCodec[Any]],
    ) -> None:
        self._handler = handler
        self._function = function
        self._parameters = tuple(parameters)
        self._codecs = codecs
        self._encoders = tuple(
            (one.name, b'"%s":' % one.name.encode(), codecs[one.name].encode_exactly) for one in parameters
        )
        self._encoder_of = {encoder[0]: encoder for encoder in self._encoders}
        self._positional = sum(not one.keyword_only for one in parameters)
        self._keyword_names = tuple(one.name for one in parameters if one.keyword_only)
        self._required = tuple(one for one in parameters if one.required)
        self._python = _python_signature(parameters)
        self._structure = _structure(parameters, codecs)
        self._apart_codecs = tuple((name, codec) for name, codec in codecs.items() if not codec.is_certain)
        """Of the parameters that are decoded one by one, since more is to be seen of them than msgspec sees."""
        self._decode = msgspec.json.Decoder(self._structure).decode
        self._decode_names = msgspec.json.Decoder(_structure(parameters, {})).decode
        self._unknown_keys = _unknown_keys(parameters, codecs)
        self._only = parameters[0].name if len(parameters) == 1 and not parameters[0].keyword_only else None

    @property
    def accepts(self) -> str | None:
        return JSON if self._parameters else None

    @property
    def content_type(self) -> str | None:
        return self.accepts

    def body(self, argument: bytes, /) -> bytes:
        if argument == NO_ARGUMENTS:
            return b""
        if len(self._parameters) > 1:
            return argument
        _, prefix, _ = self._encoders[0]
        return argument[1 + len(prefix) : -1]

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> bytes:
        count = len(args)
        if not kwargs and count == len(self._encoders) == self._positional:
            if count == 0:
                return NO_ARGUMENTS
            if count == 1:
                return b"{" + self._encoded(self._encoders[0], args[0]) + b"}"
            return b"{" + b",".join(map(self._encoded, self._encoders, args)) + b"}"
        given = self._bound(args, kwargs)
        return b"{" + b",".join([self._encoded(self._encoder_of[name], value) for name, value in given.items()]) + b"}"

    def _encoded(self, encoder: tuple[str, bytes, Callable[[Any], bytes]], value: Any) -> bytes:
        name, prefix, encode = encoder
        try:
            return prefix + encode(value)
        except UnencodableError as error:
            raise UnencodableError(
                f"The argument {name!r} of handler {self._handler!r}: {error.message}", path=error.path
            ) from error

    def _bound(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._python.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"Handler {self._handler!r} takes {in_words(self._parameters)}: {error}.") from None

    def call(self, actor: Any, ctx: Any, argument: bytes, /) -> Coroutine[Any, Any, Any]:
        if not self._encoders and argument == NO_ARGUMENTS:
            return self._function(actor, ctx)
        decoded = self._structured(argument)
        if self._only is not None:
            return self._function(actor, ctx, getattr(decoded, self._only))
        args, kwargs = self._apart(decoded)
        return self._function(actor, ctx, *args, **kwargs)

    def decode(self, argument: bytes, /) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return self._apart(self._structured(argument))

    def call_decoded(self, actor: Any, ctx: Any, decoded: Decoded, /) -> Coroutine[Any, Any, Any]:
        args, kwargs = decoded
        return self._function(actor, ctx, *args, **kwargs)

    def decode_in_slices(self, argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
        try:
            parts = yield from self._parts_in_slices(argument, size_bytes, DECODING)
        except GeneratorExit:  # It is dropped.
            raise
        except USER_ERRORS as error:  # As in `_structured`.
            let_signals_pass(error)
            raise self._refusal(argument, error, in_slices=True) from _cause_of_users(error)
        return self._apart(self._structure(**parts))

    def _parts_in_slices(self, argument: bytes, size_bytes: int, reading: Reading) -> Slices[dict[str, Any]]:
        """What becomes of each argument that is given by name."""
        members = yield from members_in_slices(argument, size_bytes)
        self._check_names(members)
        parts: dict[str, Any] = {}
        for name, part in members.items():
            try:
                parts[name] = yield from value_in_slices(self._codecs[name], part, size_bytes, reading)
            except UndecodableError as error:
                raise _below(name, error) from error
        return parts

    def _structured(self, argument: bytes) -> msgspec.Struct:
        try:
            decoded = self._decode(argument)
            if self._apart_codecs:
                self._decode_apart(decoded)
        except USER_ERRORS as error:  # Validators of users' classes may raise anything.
            let_signals_pass(error)
            raise self._refusal(argument, error) from _cause_of_users(error)
        return decoded

    def _decode_apart(self, decoded: msgspec.Struct) -> None:
        for name, codec in self._apart_codecs:
            part = getattr(decoded, name)
            if type(part) is msgspec.Raw:  # Not the default.
                setattr(decoded, name, _under(name, codec.decode, bytes(part)))

    def _apart(self, decoded: msgspec.Struct) -> tuple[tuple[Any, ...], dict[str, Any]]:
        values = msgspec.structs.astuple(decoded)
        named = zip(self._keyword_names, values[self._positional :], strict=True)
        return values[: self._positional], dict(named)

    def check(self, argument: bytes, /) -> None:
        self._structured(argument)

    def admit(self, body: bytes, /) -> bytes:
        try:
            return self._admitted(body.strip(JSON_SPACE))
        except InvalidArgumentError:
            raise
        except USER_ERRORS as error:  # As above.
            let_signals_pass(error)
            raise self._refusal(body, error) from _cause_of_users(error)

    def admit_in_slices(self, body: bytes, size_bytes: int, /) -> Slices[bytes]:
        try:
            admitted = yield from self._admitted_in_slices(body.strip(JSON_SPACE), size_bytes)
        except (InvalidArgumentError, GeneratorExit):  # The second: it is dropped.
            raise
        except USER_ERRORS as error:  # As above.
            let_signals_pass(error)
            raise self._refusal(body, error, in_slices=True) from _cause_of_users(error)
        return admitted

    def _admitted_in_slices(self, body: bytes, size_bytes: int) -> Slices[bytes]:
        """As `_admitted`."""
        if not self._parameters or not body:
            return self._admitted(body)
        if len(self._parameters) == 1:
            return (yield from self._bare_in_slices(self._parameters[0], body, size_bytes))
        if len(self._required) == 1:
            only = self._required[0]
            members = (yield from members_in_slices(body, size_bytes)) if body.startswith(b"{") else {}
            if only.name not in members:
                return (yield from self._bare_in_slices(only, body, size_bytes))
            if not members.keys() <= self._encoder_of.keys():
                with contextlib.suppress(UndecodableError):
                    return (yield from self._bare_in_slices(only, body, size_bytes))
        return (yield from self._by_name_in_slices(body, size_bytes))

    def _bare_in_slices(self, parameter: Parameter, body: bytes, size_bytes: int) -> Slices[bytes]:
        admitted = yield from value_in_slices(self._codecs[parameter.name], body, size_bytes, ADMITTING)
        return _by_name(parameter, admitted)

    def _by_name_in_slices(self, body: bytes, size_bytes: int) -> Slices[bytes]:
        parts: dict[str, bytes] = yield from self._parts_in_slices(body, size_bytes, ADMITTING)
        if not any(codec.draws_defaults for codec in self._codecs.values()):
            return body
        return msgspec.json.encode({name: msgspec.Raw(part) for name, part in parts.items()})

    def _check_names(self, members: Mapping[str, bytes]) -> None:
        """See that all required arguments are there and no others, in msgspec's words."""
        self._decode_names(msgspec.json.encode(dict.fromkeys(members)))

    def _admitted(self, body: bytes) -> bytes:
        if not self._parameters:
            if body:
                raise self._refusal(body, None)
            return NO_ARGUMENTS
        if not body and not self._required:
            return NO_ARGUMENTS
        if len(self._parameters) == 1:
            return self._admitted_bare(self._parameters[0], body)
        if len(self._required) == 1:
            names = _names_in(body)
            if self._required[0].name not in names:
                return self._admitted_bare(self._required[0], body)
            if not names <= self._encoder_of.keys():
                return self._admitted_bare_or_by_name(self._required[0], body)
        return self._admitted_by_name(body)

    def _admitted_bare(self, parameter: Parameter, body: bytes) -> bytes:
        admitted = self._codecs[parameter.name].admit(body)
        unknown_keys = self._unknown_keys.get(parameter.name)
        if unknown_keys is not None and unknown_keys.are_in(body):
            unknown_keys.refuse(msgspec.json.decode(body), "$")
        return _by_name(parameter, admitted)

    def _admitted_by_name(self, body: bytes) -> bytes:
        decoded = self._decode(body)
        if self._unknown_keys:
            values = msgspec.json.decode(body)
            for name in values.keys() & self._unknown_keys.keys():
                self._unknown_keys[name].refuse(values[name], f"$.{name}")
        if not self._apart_codecs:
            return body
        parts = {name: getattr(decoded, name) for name, _ in self._apart_codecs}
        given = {name: bytes(part) for name, part in parts.items() if type(part) is msgspec.Raw}
        admitted = {name: _under(name, self._codecs[name].admit, part) for name, part in given.items()}
        if admitted == given:
            return body
        all_given: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        return msgspec.json.encode({**all_given, **{name: msgspec.Raw(part) for name, part in admitted.items()}})

    def _admitted_bare_or_by_name(self, parameter: Parameter, body: bytes) -> bytes:
        """An object that names the parameter, and something that is none: an object by name, unless it is a value."""
        try:
            return self._admitted_bare(parameter, body)
        except UndecodableError:
            return self._admitted_by_name(body)

    def _refusal(self, data: bytes, error: BaseException | None, *, in_slices: bool = False) -> InvalidArgumentError:
        malformed = None if in_slices else malformed_text(data)  # Each slice was looked at.
        missing = "" if malformed is not None else self._missing(data)
        if malformed is not None:
            path, reason = "$", malformed
        elif missing:
            path, reason = "$", missing
        elif isinstance(error, UndecodableError):
            path, reason = error.path, error.reason
        elif error is not None:
            path, reason = located(error, data, self._decode)
        else:
            path, reason = "$", "it has no parameters"
        place = "" if path == "$" else f" at {path}"
        return InvalidArgumentError(
            f"Handler {self._handler!r} expects {self._expected()}, and got {shortened_bytes(data)}: {reason}{place}.",
            path=path,
        )

    def _missing(self, data: bytes) -> str:
        """What is not there: of a body that is empty, or an object without the one argument that is required.

        Such an object may be meant as that argument; where several are required, the parser names the first.
        """
        if data.strip():
            if len(self._parameters) < 2 or len(self._required) != 1 or not data.lstrip().startswith(b"{"):
                return ""
            try:
                names = _names_in(data.lstrip())
            except msgspec.MsgspecError:
                return ""
            if not names <= {one.name for one in self._parameters}:
                return ""
        else:
            names = set[str]()
        missing = [f"`{one.name}`" for one in self._required if one.name not in names]
        return f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing" if missing else ""

    def _expected(self) -> str:
        if not self._parameters:
            return "an empty body"
        if len(self._parameters) == 1:
            only = self._parameters[0]
            return f"one JSON value, {only.name}: {only.describe()}"
        bare = f", or just a value for {self._required[0].name}" if len(self._required) == 1 else ""
        return f"a JSON object of {in_words(self._parameters)}{bare}"


def _by_name(parameter: Parameter, admitted: bytes) -> bytes:
    # No bytes are None, where that is the type.
    return b'{"%s":%s}' % (parameter.name.encode(), admitted or b"null")


class SerdeArguments:
    """One argument, as the bytes of the Serde that the handler accepts."""

    def __init__(self, handler: str, function: HandlerFunction, parameter: Parameter, serde: Serde[Any]) -> None:
        self._handler = handler
        self._function = function
        self._parameter = parameter
        self._serde = serde
        self.accepts: str | None = media_range_of(serde)
        self.content_type: str | None = content_type_of(serde)
        self._python = _python_signature([parameter])

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> bytes:
        try:
            bound = self._python.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"Handler {self._handler!r} takes {in_words([self._parameter])}: {error}.") from None
        bound.apply_defaults()
        return encode_by(self._serde, bound.arguments[self._parameter.name])

    def call(self, actor: Any, ctx: Any, argument: bytes, /) -> Coroutine[Any, Any, Any]:
        return self._function(actor, ctx, **{self._parameter.name: self._decoded(argument)})

    def decode(self, argument: bytes, /) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (), {self._parameter.name: self._decoded(argument)}

    def call_decoded(self, actor: Any, ctx: Any, decoded: Decoded, /) -> Coroutine[Any, Any, Any]:
        return self._function(actor, ctx, **decoded[1])

    def decode_in_slices(self, argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
        if not isinstance(self._serde, JsonSerde):  # The user's, which is one slice.
            yield
            return self.decode(argument)
        return (), {self._parameter.name: (yield from self._in_slices(self._serde, argument, size_bytes, DECODING))}

    def admit_in_slices(self, body: bytes, size_bytes: int, /) -> Slices[bytes]:
        if not isinstance(self._serde, JsonSerde):
            yield
            return self.admit(body)
        admitted: bytes = yield from self._in_slices(self._serde, body, size_bytes, ADMITTING)
        return admitted

    def _in_slices(self, serde: JsonSerde[Any], data: bytes, size_bytes: int, reading: Reading) -> Slices[Any]:
        try:
            return (yield from value_in_slices(serde.codec, data, size_bytes, reading))
        except UndecodableError as error:
            raise InvalidArgumentError(
                f"Handler {self._handler!r} expects {self._serde.content_type}, and got {shortened_bytes(data)}: "
                f"{error.reason} at {error.path}."
            ) from error

    def check(self, argument: bytes, /) -> None:
        self._decoded(argument)

    def body(self, argument: bytes, /) -> bytes:
        return argument

    def admit(self, body: bytes, /) -> bytes:
        if not body and not self._parameter.required:
            return self.encode((), {})
        return self._explained(self._admit, body)

    def _admit(self, body: bytes) -> bytes:
        return admit(self._serde, body)

    def _decoded(self, data: bytes) -> Any:
        return self._explained(self._serde.decode, data)

    def _explained(self, decode: Callable[[bytes], T], data: bytes) -> T:
        try:
            return decode(data)
        except USER_ERRORS as error:  # The Serde is the user's.
            let_signals_pass(error)
            raise InvalidArgumentError(
                f"Handler {self._handler!r} expects {self._serde.content_type}, and got {shortened_bytes(data)}: "
                f"{reason_of(error)}."
            ) from error


class RecordArguments:
    """Several arguments as one record, by the Serde that a class or a runtime has for it."""

    def __init__(
        self,
        handler: str,
        function: HandlerFunction,
        parameters: Sequence[Parameter],
        structure: type[msgspec.Struct],
        serde: Serde[Any],
    ) -> None:
        self._function = function
        self._parameters = tuple(parameters)
        self._positional = sum(not one.keyword_only for one in parameters)
        self._python = _python_signature(parameters)
        self._structure = structure
        whole = Parameter(name="arguments", annotation=structure, default=MISSING, keyword_only=False)
        self._whole = SerdeArguments(handler, function, whole, serde)
        self._handler = handler
        self._optional = not any(one.required for one in parameters)

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> bytes:
        try:
            given = self._python.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"Handler {self._handler!r} takes {in_words(self._parameters)}: {error}.") from None
        return self._whole.encode((self._structure(**given),), {})

    def call(self, actor: Any, ctx: Any, argument: bytes, /) -> Coroutine[Any, Any, Any]:
        args, kwargs = self.decode(argument)
        return self._function(actor, ctx, *args, **kwargs)

    def decode(self, argument: bytes, /) -> tuple[tuple[Any, ...], dict[str, Any]]:
        _, whole = self._whole.decode(argument)
        values = {one.name: getattr(whole["arguments"], one.name) for one in self._parameters}
        positional = tuple(values.pop(one.name) for one in self._parameters[: self._positional])
        return positional, values

    def call_decoded(self, actor: Any, ctx: Any, decoded: Decoded, /) -> Coroutine[Any, Any, Any]:
        args, kwargs = decoded
        return self._function(actor, ctx, *args, **kwargs)

    def decode_in_slices(self, argument: bytes, size_bytes: int, /) -> Slices[Decoded]:
        yield
        return self.decode(argument)  # What a Serde reads is one slice.

    def admit_in_slices(self, body: bytes, size_bytes: int, /) -> Slices[bytes]:
        yield
        return self.admit(body)

    def check(self, argument: bytes, /) -> None:
        self._whole.check(argument)

    def body(self, argument: bytes, /) -> bytes:
        return argument

    def admit(self, body: bytes, /) -> bytes:
        return self.encode((), {}) if not body and self._optional else self._whole.admit(body)

    @property
    def accepts(self) -> str | None:
        return self._whole.accepts

    @property
    def content_type(self) -> str | None:
        return self._whole.content_type


def structure_of(parameters: Sequence[Parameter]) -> type[msgspec.Struct]:
    """A record of all parameters, in which those with a default may be left out."""
    fields: list[Any] = [
        (one.name, Any if one.annotation is MISSING else one.annotation, _field(one)) for one in parameters
    ]
    return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _cause_of_users(error: BaseException) -> BaseException | None:
    """The error of a validator of the user's, if that is behind a refusal; what a parser raised tells nothing more."""
    while isinstance(error, UndecodableError | msgspec.MsgspecError | UnicodeDecodeError):
        if error.__cause__ is None:
            return None
        error = error.__cause__
    return error


def _unknown_keys(parameters: Sequence[Parameter], codecs: Mapping[str, TypeCodec[Any]]) -> dict[str, UnknownKeys]:
    """By parameter, of those in whose values such keys may occur unseen."""
    all_of_them = {
        one.name: UnknownKeys(one.annotation)
        for one in parameters
        if one.annotation is not MISSING and not codecs[one.name].refuses_unknown_keys
    }
    return {name: unknown_keys for name, unknown_keys in all_of_them.items() if unknown_keys.may_occur}


def _names_in(body: bytes) -> set[str]:
    """The keys of a body that is an object."""
    if not body.startswith(b"{"):
        return set()
    names: dict[str, msgspec.Raw] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return set(names)


def _python_signature(parameters: Sequence[Parameter]) -> inspect.Signature:
    """Binds what a caller wrote, with Python's own words for what does not fit."""
    return inspect.Signature([
        inspect.Parameter(
            one.name,
            inspect.Parameter.KEYWORD_ONLY if one.keyword_only else inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=inspect.Parameter.empty if one.required else one.default,
        )
        for one in parameters
    ])  # fmt: skip


def _structure(parameters: Sequence[Parameter], codecs: Mapping[str, TypeCodec[Any]]) -> type[msgspec.Struct]:
    """A class with a field for each parameter, so that one call decodes all arguments, or finds them."""
    fields: list[Any] = [
        (one.name, one.annotation if one.name in codecs and codecs[one.name].is_certain else msgspec.Raw, _field(one))
        for one in parameters
    ]
    return msgspec.defstruct("Arguments", fields, kw_only=True, forbid_unknown_fields=True)


def _under(name: str, decode: Callable[[bytes], T], part: bytes) -> T:
    """Decode a part of an object; where it does not fit, the path begins with its name."""
    try:
        return decode(part)
    except UndecodableError as error:
        raise _below(name, error) from error


def _below(name: str, error: UndecodableError) -> UndecodableError:
    return UndecodableError(error.message, path=f"$.{name}{error.path[1:]}", reason=error.reason)


def _field(parameter: Parameter) -> Any:
    # A factory, since msgspec copies or refuses mutable defaults, and Python's rule for them is to share.
    return msgspec.field() if parameter.required else msgspec.field(default_factory=lambda: parameter.default)
