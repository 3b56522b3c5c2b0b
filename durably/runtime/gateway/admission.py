"""`Admission`: which requests from outside are understood and may be accepted. It changes nothing.

What is refused raises before anything is accepted (rules V5, C8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias, cast
from urllib.parse import quote

from durably.actors.definition.arguments import Arguments
from durably.actors.definition.binding import BoundActorHandler
from durably.actors.transport import PUBLISHER
from durably.actors.values.slices import Slices
from durably.errors import InvalidArgumentError, OverloadedError, UnencodableError
from durably.ids import is_storable
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.payload_check import Addressed, PayloadCheck
from durably.runtime.invocations.activation import Activation
from durably.runtime.lifecycle.event_retention import EventRetention
from durably.runtime.limits.named_limits import NamedLimits
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
        self,
        *,
        activations: Activations,
        event_retention: EventRetention,
        named_limits: NamedLimits,
        payloads: PayloadCheck,
        settings: Settings,
        targets: Targets,
    ) -> None:
        self._event_retention = event_retention
        self._waits_in = named_limits.waits_in
        self._payloads = payloads
        self._activations = activations
        # An address is equal to the tuple of its parts, which costs a tenth to make.
        self._by_address = cast("Mapping[tuple[str, str], Activation]", activations.by_address)
        self._settings = settings
        self._targets = targets

    def admit(self, request: OutsideMessage, body: bytes, *, wire: bool) -> Admitted:
        """Find the handler and check the argument; `wire`: the body is as a client sends it.

        Whether there is room is not known of a request with a key, which may have been accepted before: `check_new`.

        Raises:
            UnknownTargetError, InvalidArgumentError: it cannot be understood, or is too large.
            OverloadedError: a limit is reached.
            CodecError: the codec cannot encode it.
        """
        handler, names = self._find(request, body)
        if wire:
            body = handler.admit(body)
        elif request.written_by is not handler.signature.types.arguments:
            handler.check(body)  # Rule V5; what the handler's own types have written, they can read.
        if not self._payloads.fit_surely(names, body):
            self._check_size(request, body)
        return handler, body

    def admit_in_slices(self, request: OutsideMessage, body: bytes, *, wire: bool) -> Slices[Admitted]:
        """The same for a large body."""
        handler, _ = self._find(request, body)
        if wire:
            body = yield from handler.admit_in_slices(body, self._settings.slice_bytes)
        else:
            yield from handler.decode_in_slices(body, self._settings.slice_bytes)
        self._check_size(request, body)
        if request.key is not None and not self._is_keyed(handler, request):  # Others may have come meanwhile.
            self._check_mailbox(self._by_address.get((request.service, request.key)))
        return handler, body

    def _find(self, request: OutsideMessage, body: bytes) -> tuple[BoundActorHandler, int]:
        """Find the handler, if the request may be accepted as far as is known without its body.

        The number is how many characters the key and the headers have.
        """
        key = request.key
        handler = self._targets.find(request.service, key, request.handler)
        is_keyed = (request.idempotency_key is not None or handler.kind == "workflow") and self._is_keyed(
            handler, request
        )
        names = 0 if key is None else len(key)
        if request.headers or request.idempotency_key is not None:
            names += _check_names(request)
        if len(body) > self._settings.payload_bytes:
            raise InvalidArgumentError(
                f"The argument of {request.service}/{request.handler} has {len(body)} bytes; at most "
                f"{self._settings.payload_bytes} are allowed. Keep large things elsewhere and pass their name."
            )
        if not is_keyed:
            self.check_new(request)
        return handler, names

    def _check_size(self, request: OutsideMessage, body: bytes) -> None:
        try:
            self._payloads.message(request, body)
            if request.service == PUBLISHER:
                self._payloads.events(body)
        except UnencodableError as error:
            raise InvalidArgumentError(error.message) from None

    def _is_keyed(self, handler: BoundActorHandler, request: OutsideMessage) -> bool:
        return self._targets.scope(handler, request.key, request.idempotency_key) is not None

    def check_new(self, request: OutsideMessage) -> None:
        """What repeats a request is no new one: it is answered however full everything is (rule C8).

        Raises:
            OverloadedError: a limit is reached.
        """
        self.check_room(request.service, request.key)
        if request.service == PUBLISHER:
            self._event_retention.check_room()  # Rule P4

    def check_room(self, service: str, key: str | None) -> None:
        """
        Raises:
            OverloadedError: no more may wait in all mailboxes, or in that of this object.
        """
        if self._activations.waiting + len(self._waits_in) >= self._settings.waiting_messages:
            self._refuse_all()
        if key is not None:
            self._check_mailbox(self._by_address.get((service, key)))

    def _refuse_all(self) -> None:
        raise OverloadedError(  # Rule C8
            f"{self._settings.waiting_messages} messages wait in all mailboxes and for named limits together, which is "
            "the limit of this runtime (Limits(waiting_messages=...)). Try again later.",
            retry_after=OVERLOAD_RETRY_SECONDS,
        )

    def _check_mailbox(self, activation: Activation | None) -> None:
        if activation is None or (waiting := activation.waiting()) < self._settings.mailbox_messages:
            return
        service, key = activation.address
        raise OverloadedError(  # Rule C8
            f"{service}/{key} has {waiting} messages waiting; its limit is {self._settings.mailbox_messages}. Try "
            "again later.",
            retry_after=OVERLOAD_RETRY_SECONDS,
            held_up_by=f"{quote(service, safe='')}/{quote(key, safe='')}",
        )


def _check_names(request: OutsideMessage) -> int:
    """How many characters the headers have."""
    text = "".join((*request.headers, *request.headers.values(), request.idempotency_key or ""))
    if is_storable(text):
        return len(text)
    names = {**request.headers, "idempotency-key": request.idempotency_key or ""}
    name = next(name for name, value in names.items() if not (is_storable(name) and is_storable(value)))
    raise InvalidArgumentError(f"The header {name!r} is not Unicode text without NUL, so it cannot be stored.")
