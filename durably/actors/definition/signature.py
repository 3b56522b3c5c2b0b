"""`HandlerSignature`: what one handler takes and gives, and how both become bytes, for those who call and those who
run it.

The shape is known when the class is defined. The types are resolved at first use, so that a contract that is never
bound can be called, or when the class is bound, so that a mistake is found early.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from durably.actors.definition.arguments import (
    Arguments,
    HandlerFunction,
    JsonArguments,
    Parameter,
    RecordArguments,
    SerdeArguments,
    structure_of,
)
from durably.actors.definition.scope import Scope
from durably.actors.definition.type_bindings import NO_BINDINGS, TypeBindings
from durably.actors.values.constraints import is_field_info
from durably.actors.values.descriptions import MISSING, describe, named, shortened
from durably.actors.values.media_types import content_type_of, media_range_of
from durably.actors.values.serde import (
    JSON,
    Serde,
    SerdeFactory,
    TypeCodec,
    codec_for,
    declared_serde,
    encode_readably,
    make_serde,
)
from durably.actors.values.serde_fit import check_fit
from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass, reason_of
from durably.errors import DefinitionError, UndecodableError, UnencodableError

OWN_PARAMETERS = 2
"""`self` and `ctx`."""


class HandlerSignature:
    """The parameters and the result of a handler."""

    def __init__(
        self,
        function: HandlerFunction,
        name: str,
        *,
        accepts: Serde[Any] | None = None,
        returns: Serde[Any] | None = None,
    ) -> None:
        self.name = name
        """The handler's name on the wire."""
        self.function = function
        self.shape = _parameters_of(function)
        self.scope: Scope | None = None
        """Where the annotations' names are looked up; set when the class is defined."""
        self.bindings = NO_BINDINGS
        """What type variables of a generic class stand for; set in classes that inherit the handler from one."""
        for option, serde in (("accepts", accepts), ("returns", returns)):
            if serde is not None:
                content_type_of(declared_serde(serde, f"{option}= of handler {name!r}"))
                media_range_of(serde)
        self._accepts = accepts
        self._returns = returns
        self.serde: SerdeFactory | None = None
        """Makes the Serdes of what has none of its own, where the class says so; else values are JSON."""
        self._under: dict[SerdeFactory, HandlerSignature] = {}

    @cached_property
    def types(self) -> Types:
        """Everything that needs the types, resolved now if it has not been.

        Raises:
            DefinitionError: a name is unknown, a type cannot be written as JSON, or the handler was not in its class
                when that was defined.
        """
        if self.scope is None:
            raise DefinitionError(
                f"Handler {named(self.function)!r} is part of no class of actors: it was decorated outside one, or put "
                "there after the class was defined. Write it into the body of the class, or into that of a subclass."
            )
        where = f"handler {self.name!r}"
        resolved = self.bindings.apply(self.scope.resolve(self.annotations, where))
        parameters = tuple(replace(one, annotation=resolved.get(one.name, MISSING)) for one in self.shape)
        result = resolved.get("return", MISSING)
        return Types(parameters, result, self._arguments(parameters, where), self._result(result, where))

    @property
    def annotations(self) -> dict[str, Any]:
        """As they were written, by parameter; the result's is `return`. Those that are left out are left out."""
        written = {one.name: one.annotation for one in self.shape if one.annotation is not MISSING}
        returned = inspect.signature(self.function).return_annotation
        if returned is not inspect.Signature.empty:
            written["return"] = returned
        return written

    def check_types(self) -> None:
        """Resolve the types now.

        Raises:
            DefinitionError: as `types`.
        """
        _ = self.types

    def bound_by(self, bindings: TypeBindings) -> HandlerSignature:
        """The same, in a class for which type variables stand for something."""
        bound = HandlerSignature(self.function, self.name, accepts=self._accepts, returns=self._returns)
        bound.scope, bound.serde, bound.bindings = self.scope, self.serde, bindings
        return bound

    def under(self, serde: SerdeFactory | None) -> HandlerSignature:
        """The same, on a runtime whose values are written by these Serdes; the class's own come first."""
        if serde is None or self.serde is not None:
            return self
        known = self._under.get(serde)
        if known is None:
            known = self._under[serde] = self.bound_by(self.bindings)
            known.serde = serde
        return known

    @property
    def has_own_serde(self) -> bool:
        """A Serde of the user's writes and reads the argument, in place of the annotation's codec."""
        return self._accepts is not None

    @property
    def has_serdes(self) -> bool:
        """It has a Serde of the user's for its argument or its result."""
        return self._accepts is not None or self._returns is not None

    def _arguments(self, parameters: tuple[Parameter, ...], where: str) -> Arguments:
        for one in parameters:
            if is_field_info(one.default):
                raise DefinitionError(
                    f"The default of the parameter {one.name!r} of {where} is {one.default!r}, which nothing reads. "
                    f"Write {one.name}: Annotated[{describe(one.annotation)}, Field(...)], with a plain default."
                )
        if self._accepts is not None:
            only = parameters[0]
            check_fit(self._accepts, only.annotation, f"the parameter {only.name!r} of {where}")
            return SerdeArguments(self.name, self.function, only, self._accepts)
        if self.serde is not None and parameters:
            return self._arguments_by(self.serde, parameters, where)
        codecs = {one.name: _codec(one.annotation, f"the parameter {one.name!r} of {where}") for one in parameters}
        return JsonArguments(self.name, self.function, parameters, codecs)

    def _arguments_by(self, serde: SerdeFactory, parameters: tuple[Parameter, ...], where: str) -> Arguments:
        if len(parameters) == 1:
            only = parameters[0]
            made = serde_of(serde, only.annotation, f"the parameter {only.name!r} of {where}")
            return SerdeArguments(self.name, self.function, only, made)
        structure = structure_of(parameters)
        made = serde_of(serde, structure, f"the parameters of {where}, which are written together,")
        return RecordArguments(self.name, self.function, parameters, structure, made)

    def _result(self, annotation: Any, where: str) -> Result:
        if self._returns is not None:
            check_fit(self._returns, annotation, f"the result of {where}")
            return SerdeResult(self.name, self._returns)
        if annotation in (None, type(None)):
            return NoResult(self.name)
        if self.serde is not None:
            return SerdeResult(self.name, serde_of(self.serde, annotation, f"the result of {where}"))
        return JsonResult(self.name, _codec(annotation, f"the result of {where}"))

    def encode_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], /) -> bytes:
        """The journal form of what a caller wrote in the parentheses; see `Arguments.encode`."""
        return self.types.arguments.encode(args, kwargs)

    def decode_arguments(self, argument: bytes, /) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the function is called with; see `Arguments.decode`."""
        return self.types.arguments.decode(argument)

    def decode_result(self, data: bytes, /) -> Any:
        """The result, of its annotated type.

        Raises:
            UndecodableError: the bytes are something else.
        """
        return self.types.result.decode(data)

    @property
    def accepts(self) -> str | None:
        """The media range of bodies from outside; None where there is nothing to be sent."""
        return self.types.arguments.accepts

    @property
    def content_type(self) -> str | None:
        """Of the encoded result; None where it is nothing."""
        return self.types.result.content_type

    @property
    def content_type_if_empty(self) -> str | None:
        """Of a result whose encoding has no bytes."""
        return self.types.result.content_type_if_empty

    @property
    def parameters(self) -> dict[str, str]:
        """As a programmer would write them: `{"ticket_id": "str", "n": "int = 1"}`."""
        return {one.name: one.describe() for one in self.types.parameters}

    @property
    def returns(self) -> str:
        """As a programmer would write it: `bool`."""
        return describe(self.types.returned)

    def same_shape_as(self, other: HandlerSignature) -> bool:
        """Callers of one may call the other: names, order and defaults agree."""
        return [_call_shape(one) for one in self.shape] == [_call_shape(one) for one in other.shape]


class Types:
    """What is known of a signature once its annotations are resolved."""

    __slots__ = ("arguments", "parameters", "result", "returned")

    def __init__(self, parameters: tuple[Parameter, ...], returned: Any, arguments: Arguments, result: Result) -> None:
        self.parameters = parameters
        self.returned = returned
        """The annotation of the result, or MISSING."""
        self.arguments = arguments
        self.result = result


class JsonResult:
    """A result with the codec of its annotation."""

    content_type = JSON
    content_type_if_empty = None

    def __init__(self, handler: str, codec: TypeCodec[Any]) -> None:
        self._handler = handler
        self._encode = codec.encode_exactly
        self.decode = codec.decode

    def encode(self, value: Any, /) -> bytes:
        try:
            return self._encode(value)
        except UnencodableError as error:
            raise UnencodableError(
                f"The result of handler {self._handler!r}: {error.message}", path=error.path
            ) from error


class NoResult:
    """A handler that is annotated to return None: its result has no bytes."""

    content_type = None
    content_type_if_empty = None

    def __init__(self, handler: str) -> None:
        self._handler = handler

    def encode(self, value: Any, /) -> bytes:
        if value is not None:
            raise UnencodableError(
                f"Handler {self._handler!r} returned {shortened(value)}, and its annotation says that it returns None. "
                "Annotate what it returns, so that callers get it."
            )
        return b""

    def decode(self, data: bytes, /) -> None:
        if data not in (b"", b"null"):
            raise UndecodableError(
                f"Handler {self._handler!r} is declared to return None, and its answer is {data[:80]!r}."
            )


class SerdeResult:
    """A result as the bytes of the Serde that the handler returns."""

    def __init__(self, handler: str, serde: Serde[Any]) -> None:
        self._handler = handler
        self._serde = serde
        self.content_type: str | None = content_type_of(serde)
        is_set = getattr(serde, "sets_content_type_if_empty", False) is True
        self.content_type_if_empty = self.content_type if is_set else None

    def encode(self, value: Any, /) -> bytes:
        try:
            return encode_readably(self._serde, value)
        except USER_ERRORS as error:  # The Serde is the user's.
            let_signals_pass(error)
            raise UnencodableError(
                f"The result of handler {self._handler!r}, {shortened(value)}: {reason_of(error)}."
            ) from error

    def decode(self, data: bytes, /) -> Any:
        try:
            return self._serde.decode(data)
        except USER_ERRORS as error:  # As above.
            let_signals_pass(error)
            raise UndecodableError(f"The result of handler {self._handler!r}: {error}.") from error


Result = JsonResult | NoResult | SerdeResult


def _parameters_of(function: HandlerFunction) -> tuple[Parameter, ...]:
    own = list(inspect.signature(function).parameters.values())[OWN_PARAMETERS:]
    return tuple(
        Parameter(
            name=one.name,
            annotation=MISSING if one.annotation is one.empty else one.annotation,
            default=MISSING if one.default is one.empty else one.default,
            keyword_only=one.kind is one.KEYWORD_ONLY,
        )
        for one in own
    )


def _codec(annotation: Any, where: str) -> TypeCodec[Any]:
    try:
        return codec_for(annotation)
    except DefinitionError as error:
        raise DefinitionError(f"The type of {where} does not work: {error.message}") from None


def serde_of(factory: SerdeFactory, annotation: Any, where: str) -> Serde[Any]:
    """What a factory makes for a type.

    Raises:
        DefinitionError: it makes none; names the place.
    """
    try:
        return make_serde(factory, annotation)
    except DefinitionError as error:
        raise DefinitionError(f"The type of {where} does not work: {error.message}") from error


def _call_shape(parameter: Parameter) -> tuple[str, bool, bool]:
    return parameter.name, parameter.required, parameter.keyword_only
