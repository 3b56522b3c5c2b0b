"""`RefusedSends`: messages of handlers that no target can take.

The sender has the id of such a message and does not wait for it, so the refusal becomes its outcome: an invocation that
has ended when it is accepted, in the transition of the sender. Who attaches to it or looks at it, then or later, live
or on replay, hears why it was refused.
"""

from __future__ import annotations

from durably.actors.definition.binding import MissingHandler
from durably.actors.protocol.commands import Call, Send
from durably.actors.values.durations import kept_until
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import CodecError, TerminalError, UnencodableError
from durably.ids import Address, Entropy, InvocationStatus, is_storable, new_seed
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.payload_check import PayloadCheck
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings


class RefusedSends:
    """Keeps why messages were refused, in one incarnation."""

    def __init__(
        self,
        *,
        clock: Clock,
        committer: Committer,
        entropy: Entropy,
        observer: Observer,
        payloads: PayloadCheck,
        registry: InvocationRegistry,
        settings: Settings,
    ) -> None:
        self._clock = clock
        self._committer = committer
        self._entropy = entropy
        self._observer = observer
        self._payloads = payloads
        self._registry = registry
        self._retention_us = settings.retention_us

    def keep(
        self, transition: Transition, sender: InvocationRun, id: str, command: Call | Send, error: TerminalError
    ) -> None:
        """The message has ended with this error, for as long as outcomes are kept. Its idempotency key stays free."""
        self._observer.undeliverable(sender, command, error)
        now, number = self._clock.now(), transition.next_position()
        actor = sender.activation.actor  # Only stands in: there may be no class of that name.
        address = Address(_storable(command.service), id if command.key is None else _storable(command.key))
        refused = InvocationRun(
            number,
            id,
            Activation(address, actor, number),
            address,
            MissingHandler(actor.definition, _storable(command.handler), shared=True),
            new_seed(self._entropy),
            self._argument(command),
            {},
            None,
            None,
            sender.id,
            None,
            now,
            None,
            InvocationStatus.PENDING,
            None,
        )
        self._registry.enter(refused)
        transition.accept(refused)
        outcome = self._payloads.outcome(Outcome(True, encode_failure(error)))
        transition.end(refused, outcome, expires_at=kept_until(now, self._retention_us))
        self._committer.when_durable(self._registry.forget, refused)

    def _argument(self, command: Call | Send) -> bytes:
        """As it was sent, if it can be stored: for people who look at it."""
        try:
            self._payloads.message(command, command.argument)
        except (UnencodableError, CodecError):
            return b""
        return command.argument


def _storable(name: str) -> str:
    """A name as it is, if a store can keep it; otherwise with its strange characters as escapes."""
    return name if name and is_storable(name) else ascii(name)
