"""`Admission`: which requests from outside are understood and may be accepted. It changes nothing.

What is refused raises before anything is accepted (rules V5, C8).
"""

from __future__ import annotations

from typing import Protocol, TypeAlias
from urllib.parse import quote

from durably.actors.definition.arguments import Arguments
from durably.actors.definition.binding import BoundActorHandler
from durably.actors.values.slices import Slices
from durably.errors import InvalidArgumentError, OverloadedError, UnencodableError
from durably.ids import Address, is_storable
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.payload_check import Addressed, PayloadCheck
from durably.runtime.invocations.activation import Activation
from durably.runtime.messaging.targets import Targets
from durably.runtime.settings import Settings

OVERLOAD_RETRY_SECONDS = 1.0

Admitted: TypeAlias = tuple[BoundActorHandler, bytes]
"""The handler, and the argument as it is stored."""


class OutsideMessage(Addressed, Protocol):
    """What references and ingresses say in common of a message."""

    @property
    def headers(self) -> dict[str, str]: ...
    @property
    def timeout_us(self) -> int | None: ...
    @property
    def written_by(self) -> Arguments | None: ...


class Admission:
    """Checks of one incarnation."""

    def __init__(
        self, *, activations: Activations, payloads: PayloadCheck, settings: Settings, targets: Targets
    ) -> None:
        self._payloads = payloads
        self._activations = activations
        self._settings = settings
        self._targets = targets

    def admit(self, request: OutsideMessage, body: bytes, *, wire: bool) -> Admitted:
        """Find the handler and check the argument; `wire`: the body is as a client sends it.

        Raises:
            UnknownTargetError, InvalidArgumentError: it cannot be understood, or is too large.
            OverloadedError: a limit is reached.
            CodecError: the codec cannot encode it.
        """
        handler = self._find(request, body)
        if wire:
            body = handler.admit(body)
        elif request.written_by is not handler.signature.types.arguments:
            handler.check(body)  # Rule V5; what the handler's own types have written, they can read.
        self._refuse_unstorable(request, body)
        return handler, body

    def admit_in_slices(self, request: OutsideMessage, body: bytes, *, wire: bool) -> Slices[Admitted]:
        """The same for a large body."""
        handler = self._find(request, body)
        if wire:
            body = yield from handler.admit_in_slices(body, self._settings.slice_bytes)
        else:
            yield from handler.decode_in_slices(body, self._settings.slice_bytes)
        self._refuse_unstorable(request, body)
        if request.key is not None:  # Others may have come meanwhile.
            self._check_mailbox(self._activations.by_address.get(Address(request.service, request.key)))
        return handler, body

    def _find(self, request: OutsideMessage, body: bytes) -> BoundActorHandler:
        """Find the handler, if the request may be accepted as far as is known without its body."""
        handler = self._targets.find(request.service, request.key, request.handler)
        if request.idempotency_key is not None:
            self._targets.scope(handler, request.key, request.idempotency_key)
        if request.headers or request.idempotency_key is not None:
            _check_names(request)
        if len(body) > self._settings.payload_bytes:
            raise InvalidArgumentError(
                f"The argument of {request.service}/{request.handler} has {len(body)} bytes; at most "
                f"{self._settings.payload_bytes} are allowed. Keep large things elsewhere and pass their name."
            )
        if request.key is not None:
            self._check_mailbox(self._activations.by_address.get(Address(request.service, request.key)))
        return handler

    def _refuse_unstorable(self, request: OutsideMessage, argument: bytes) -> None:
        try:
            self._payloads.message(request, argument)
        except UnencodableError as error:
            raise InvalidArgumentError(error.message) from None

    def _check_mailbox(self, activation: Activation | None) -> None:
        if activation is None or (waiting := activation.waiting()) < self._settings.mailbox_messages:
            return
        service, key = activation.address
        raise OverloadedError(  # Rule C8
            f"{service}/{key} has {waiting} messages waiting, which is its limit. Try again later. If what holds it is "
            f"stuck: runtime.resume(), cancel() or kill() of '{quote(service, safe='')}/{quote(key, safe='')}' lets it "
            "go on or ends it.",
            retry_after=OVERLOAD_RETRY_SECONDS,
        )


def _check_names(request: OutsideMessage) -> None:
    if is_storable("".join((*request.headers, *request.headers.values(), request.idempotency_key or ""))):
        return
    names = {**request.headers, "idempotency-key": request.idempotency_key or ""}
    for name, value in names.items():
        if not is_storable(name) or not is_storable(value):
            raise InvalidArgumentError(f"The header {name!r} is not Unicode text without NUL, so it cannot be stored.")
