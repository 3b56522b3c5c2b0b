"""Messages to handlers that are named as text, where the class is not at hand: `caller.call("Cart", "add", ...)`.

Questions about the invocation behind one too: `caller.attach("Signup", "run", key="mary")`.

What goes out is a body as it would come over HTTP, which the handler that runs checks against its types. The answer is
its bytes, or read as the caller asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from durably.actors.definition.signature import NoResult
from durably.actors.headers import plain_headers
from durably.actors.transport import Outgoing
from durably.actors.values.descriptions import MISSING
from durably.actors.values.durations import Duration, duration_us
from durably.actors.values.media_types import content_type_of
from durably.actors.values.names import checked_name
from durably.actors.values.serde import JSON, SerdeFactory, codec_named, codec_of, make_serde
from durably.actors.values.type_checks import is_bytes
from durably.errors import UndecodableError, UnencodableError
from durably.ids import RUN


def named_message(
    serde: SerdeFactory | None,
    service: str,
    handler: str,
    body: bytes,
    *,
    key: str | None,
    argument: Any,
    returns: Any,
    headers: Mapping[str, str] | None,
    idempotency_key: str | None,
    timeout: Duration | None,
) -> Outgoing[Any]:
    """A message by name. `serde` makes the Serdes of arguments and answers, as in references; None: they are JSON.

    Raises:
        TypeError: a name is none, or the body is no bytes, or there is an argument beside it.
        UnencodableError: the argument cannot be written.
    """
    for what, name in (("service", service), ("handler", handler), ("key", key), ("idempotency_key", idempotency_key)):
        if name is not None or what in ("service", "handler"):
            _check_name(what, name)
    content, content_type = _body(serde, service, handler, body, argument)
    return Outgoing(
        service,
        key,
        handler,
        content,
        _unchanged if returns is MISSING else decoding(serde, returns, handler),
        plain_headers(headers),
        idempotency_key,
        None if timeout is None else duration_us(timeout, "call(timeout=...)"),
        wire=True,
        # Without the class it is not known whether this runs a workflow.
        may_join=idempotency_key is not None or (key is not None and handler == RUN),
        content_type=content_type,
    )


def named_question(
    asked: str,
    serde: SerdeFactory | None,
    service: str,
    handler: str,
    key: str | None,
    idempotency_key: str | None,
    returns: Any,
) -> Outgoing[Any]:
    """What names one invocation: a workflow by its id, or one by its idempotency key.

    Raises:
        TypeError: it names none, or a name is none.
    """
    question = named_message(
        serde, service, handler, b"", key=key, argument=MISSING, returns=returns, headers=None,
        idempotency_key=idempotency_key, timeout=None,
    )  # fmt: skip
    if not question.may_join:
        raise TypeError(
            f"{asked}() of {question} does not say of which invocation. Add idempotency_key=..., or name the handler "
            f"{RUN!r} of a workflow and its id as key=. With the id of the invocation, use caller.invocation(id, type)."
        )
    return question


def _check_name(what: str, name: Any) -> None:
    checked_name(
        name,
        f"The {what} of a message by name is Unicode text without NUL, and not empty; {name!r} is not. (With the class "
        "at hand, use a reference: caller.object(Cart, key).)",
    )


def _body(
    serde: SerdeFactory | None, service: str, handler: str, body: bytes, argument: Any
) -> tuple[bytes, str | None]:
    """What is sent, and its content type where that is known."""
    if not is_bytes(body):
        raise TypeError(
            f"The body of a message by name is bytes, not {body!r}. Give a value as argument=; with the class of the "
            "actor at hand, use a reference."
        )
    if argument is MISSING:
        return bytes(body), None
    if body:
        raise TypeError(
            f"The message to {service}/{handler} has a body and an argument=, which would be its body. Leave one out."
        )
    try:
        if serde is None:
            return codec_named(MISSING, None).encode_exactly(argument), JSON
        # Untyped values keep their types in some formats, where the handler's own types expect a plain one.
        made = make_serde(serde, type(argument))
        return codec_of(made).encode_exactly(argument), content_type_of(made)
    except UnencodableError as error:
        raise UnencodableError(f"The argument of handler {handler!r}: {error.message}", path=error.path) from error


def decoding(serde: SerdeFactory | None, returns: Any, handler: str) -> Callable[[bytes], Any]:
    """What reads a result of this type, or as a Serde reads it; None: of a handler that has none."""
    if returns is None:
        return NoResult(handler).decode
    decode = codec_named(returns, serde).decode
    return _or_nothing(decode) if returns in (Any, MISSING) else decode


def _or_nothing(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Of any type is also the result of a handler that has none, which has no bytes."""

    def decode_or_nothing(data: bytes) -> Any:
        try:
            return decode(data)
        except UndecodableError:
            if data:
                raise
            return None

    return decode_or_nothing


def _unchanged(data: bytes) -> bytes:
    return data
