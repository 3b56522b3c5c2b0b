"""`ObjectDeletion`: the state of an object goes, by hand or because nothing has changed it for its `ttl`.

A deletion is a message in the mailbox of its object. So it waits for what came before, what comes later finds no state,
and a crash leaves either the message or its effect. Its own code is the machine's: one transition removes the state and
ends the message. It needs no state in memory, so an object that cannot be loaded can be deleted, too.

The `ttl` counts from the end of the last exclusive invocation that held the object. Where it is over while the object
is at work, it counts anew: the end of that work says from when.
"""

from __future__ import annotations

from collections.abc import Callable

from durably.actors.definition.binding import BoundActor
from durably.actors.values.durations import kept_until
from durably.errors import DefinitionError
from durably.ids import Address, Entropy, new_identity
from durably.runtime.activations.activations import Activations
from durably.runtime.clock import Clock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.messaging.acceptance import Acceptance, Message
from durably.runtime.messaging.targets import Targets

NO_ARGUMENT = b""


class ObjectExpiry:
    """Says at each end when the state of the object goes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counted: set[Address] | None = None
        """Objects whose moment has changed since the cleaner began to ask; None: it does not ask."""

    def has_ended(self, transition: Transition, invocation: InvocationRun) -> None:
        """An exclusive invocation ends in this transition; what never held its object leaves everything as it was."""
        activation = invocation.activation
        if activation.current is not invocation or activation.load_error is not None:
            return
        outcome = invocation.outcome
        if invocation.handler.is_deletion and outcome is not None and not outcome.failed:
            self.count_no_longer(transition, activation)
        else:
            self.count_anew(transition, activation)

    def count_anew(self, transition: Transition, activation: Activation) -> None:
        """The `ttl` counts from now on; what has no state has nothing to lose."""
        ttl_us = activation.actor.ttl_us
        self._note(activation)
        has_ttl = ttl_us is not None and activation.may_have_state()
        transition.expire_object(
            activation, kept_until(self._clock.now(), ttl_us) if ttl_us is not None and has_ttl else None
        )

    def count_no_longer(self, transition: Transition, activation: Activation) -> None:
        """Its time is over."""
        self._note(activation)
        transition.expire_object(activation, None)

    def read_begins(self) -> None:
        """The cleaner asks the store which objects have expired, once all that has come by now is durable."""
        self._counted = set()

    def read_ended(self) -> None:
        self._counted = None

    def is_old(self, address: Address) -> bool:
        """What the store has answered to the cleaner of this object is old."""
        return self._counted is not None and address in self._counted

    def _note(self, activation: Activation) -> None:
        if self._counted is not None:
            self._counted.add(activation.address)


class ObjectDeletion:
    """Deletes objects, in one incarnation."""

    def __init__(
        self,
        *,
        acceptance: Acceptance,
        activations: Activations,
        committer: Committer,
        entropy: Entropy,
        expiry: ObjectExpiry,
        targets: Targets,
    ) -> None:
        self._acceptance = acceptance
        self._activations = activations
        self._committer = committer
        self._entropy = entropy
        self._expiry = expiry
        self._targets = targets
        self.left_alone: set[Address] = set()
        """Objects of classes that this runtime does not have, whose time is over and whose state stays."""

    def send(self, address: Address, *, keeps_outcome: bool) -> InvocationRun:
        """A message that deletes the object joins its mailbox."""
        return self._send(self._committer.begin(), address, keeps_outcome=keeps_outcome)

    def expire(self, address: Address, then: Callable[[], None]) -> None:
        """The `ttl` of this object is over: send the message, unless it is at work; `then` is called after that."""
        if not self._activations.hosts(address):
            self.left_alone.add(address)
            then()
            return

        def loaded(activation: Activation) -> None:
            if self._expiry.is_old(address):  # Rule X10
                then()
                return
            transition = self._committer.begin()  # Rule W6
            if activation.current is not None or activation.mailbox or activation.stored_tail:
                self._expiry.count_anew(transition, activation)
            else:
                self._expiry.count_no_longer(transition, activation)
                if activation.actor.ttl_us is not None and (activation.may_have_state() or activation.load_error):
                    self._send(transition, address, keeps_outcome=False)
            then()

        self._activations.with_loaded(address, loaded)

    def _send(self, transition: Transition, address: Address, *, keeps_outcome: bool) -> InvocationRun:
        handler = self._targets.deletion_of(address.service)
        id, seed = new_identity(self._entropy, address.service, address.key)
        keep_us = self._targets.retention_us(handler) if keeps_outcome else None
        message = Message(handler, address.key, NO_ARGUMENT, id, seed, {}, None, keep_outcome_us=keep_us)
        return self._acceptance.accept(transition, message)


def refuse_unless_object(actor: BoundActor) -> None:
    """
    Raises:
        DefinitionError: it is not a class of virtual objects.
    """
    kind, name = actor.definition.kind, actor.definition.name
    if kind == "workflow":
        raise DefinitionError(
            f"{name} is a workflow, which goes when its retention is over. `runtime.purge('{name}/<id>')` lets it go "
            "earlier, when its run has ended."
        )
    if kind == "service":
        raise DefinitionError(f"{name} is a service and keeps no state, so there is nothing to delete.")
