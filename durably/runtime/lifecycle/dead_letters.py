"""`DeadLetters`: events that a subscription has given up, until a person decides (rule P4).

A dead letter is written in the transition in which the message ends, so no event is lost between the two. It is an
event itself, in a stream of its own, and stays until it is tried again or dropped.
"""

from __future__ import annotations

import msgspec

from durably.actors.event_values import Delivery, decode_delivery
from durably.actors.values.error_envelopes import code_of, decode_failure, message_of
from durably.errors import TerminalError
from durably.runtime.clock import Clock
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.events import DEAD_LETTERS

SHORT_CHARACTERS = 200
"""So much stays of a message that is too long to be stored beside its event."""


class StoredLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the store keeps of a dead letter, as the value of its event."""

    delivery: Delivery
    code: int
    message: str
    invocation_id: str = ""
    """Which message has failed; empty: it never became one."""
    is_cut: bool = False
    """The event was too large to be kept in a dead letter, so its value is null."""


_decoder: msgspec.json.Decoder[StoredLetter] = msgspec.json.Decoder(StoredLetter)


def decode_letter(value: bytes) -> StoredLetter:
    """
    Raises:
        msgspec.DecodeError: it is damaged.
    """
    return _decoder.decode(value)


class DeadLetters:
    """Writes them."""

    def __init__(self, clock: Clock, payloads: PayloadCheck) -> None:
        self._clock = clock
        self._payloads = payloads

    def has_failed(
        self, transition: Transition, invocation: InvocationRun, subscription: str, outcome: Outcome
    ) -> None:
        """A message of a subscription to published events has ended in failure."""
        error = decode_failure(outcome.value)
        self.keep(transition, subscription, decode_delivery(invocation.argument), error, invocation.id)

    def keep(
        self,
        transition: Transition,
        subscription: str,
        delivery: Delivery,
        error: TerminalError,
        invocation_id: str = "",
    ) -> None:
        """An event is given up by a subscription."""
        code, message = code_of(error), message_of(error)
        letter = StoredLetter(delivery=delivery, code=code, message=message, invocation_id=invocation_id)
        id = f"{delivery.id}@{transition.position}"
        transition.publish(DEAD_LETTERS, subscription, delivery.name, id, self._clock.now(), self._encoded(letter))

    def _encoded(self, letter: StoredLetter) -> bytes:
        """A dead letter, or as much of it as can be stored (rule L5)."""
        value = msgspec.json.encode(letter)
        if self._payloads.fits(value):
            return value
        letter = msgspec.structs.replace(letter, message=letter.message[:SHORT_CHARACTERS])
        value = msgspec.json.encode(letter)
        if self._payloads.fits(value):
            return value
        delivery = msgspec.structs.replace(letter.delivery, value=msgspec.Raw(b"null"))
        return msgspec.json.encode(msgspec.structs.replace(letter, delivery=delivery, is_cut=True))
