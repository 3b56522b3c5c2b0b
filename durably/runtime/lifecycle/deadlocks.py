"""`Deadlocks`: an exclusive handler that waits for nothing but its own object would wait for ever (rule E8).

Its message to itself is queued behind it, and it goes on only when that message has been worked off. The newest such
call is answered with a `DeadlockError`, and its message leaves the mailbox, unless others wait for it. The same holds
where it attached to a message that it, or somebody else, sent to its object; that message stays.
"""

from __future__ import annotations

import asyncio
from functools import partial

from durably.actors.protocol.commands import Attach, Call, Command, key_scope
from durably.actors.values.error_envelopes import encode_failure
from durably.errors import DeadlockError
from durably.ids import InvocationStatus, are_of_one_address, derived_invocation_id
from durably.runtime.activations.activations import Activations
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.transition import Transition
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import Found, InvocationRun, from_stored
from durably.runtime.lifecycle.endings import Endings
from durably.runtime.messaging.completions import Completions
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.registry.waiters import Waiters
from durably.runtime.settings import Settings
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import CallerRecord, InvocationRecord, StoredInvocation


class Deadlocks:
    """Cycles of length one. Longer ones are not looked for."""

    def __init__(
        self,
        *,
        activations: Activations,
        committer: Committer,
        completions: Completions,
        endings: Endings,
        registry: InvocationRegistry,
        scheduled: ScheduledMessages,
        settings: Settings,
        waiters: Waiters,
    ) -> None:
        self._activations = activations
        self._committer = committer
        self._completions = completions
        self._endings = endings
        self._host = asyncio.get_running_loop()
        self._is_on = settings.deadlocks == "error"
        self._registry = registry
        self._scheduled = scheduled
        self._waiters = waiters

    def look_at(self, transition: Transition, invocation: InvocationRun) -> None:
        """Its step has ended; part of the transition of that step, so that no crash comes in between."""
        number = self._own_call(invocation)
        if number is None:
            return
        callee_id = _callee_id(invocation, number)
        callee = None if callee_id is None else self._registry.live.get(callee_id)
        if callee is not None:
            self._answer(transition, invocation, number, callee)
        else:
            self._look_up(invocation, number)

    def attached(self, caller: CallerRecord, target: InvocationRun | InvocationRecord) -> None:
        """A command waits for an outcome from now on, which may be that of its own invocation, or one behind it."""
        activation = self._activations.by_address.get(caller.address) if target.address == caller.address else None
        holder = None if activation is None else activation.current
        if holder is not None and holder.number == caller.number:
            self.look_at(self._committer.begin(), holder)

    def look_at_loaded(self, activation: Activation) -> None:
        """What holds the object has come back from the store, and may have been waiting for itself there."""
        holder = activation.current
        number = None if holder is None else self._own_call(holder)
        if holder is not None and number is not None:
            self._look_up(holder, number)

    def _own_call(self, invocation: InvocationRun) -> int | None:
        """The newest call to its own object, if it waits for nothing else."""
        journal = invocation.journal
        if not self._is_on or journal is None or not journal.pending or journal.undelivered:
            return None
        if not invocation.is_exclusive or invocation.status is not InvocationStatus.SUSPENDED:
            return None
        if all(_is_own(invocation, command) for command in journal.pending.values()):
            return max(journal.pending)
        return None

    def _look_up(self, invocation: InvocationRun, number: int) -> None:
        found, callee_id = partial(self._found, invocation, number), _callee_id(invocation, number)
        if callee_id is not None:
            self._registry.by_id(callee_id, found)
            return
        command = _command(invocation, number)
        assert isinstance(command, Attach)
        self._host.call_soon(self._registry.by_key, key_scope(command), found)  # A transition is being made now.

    def _found(self, invocation: InvocationRun, number: int, found: Found) -> None:
        if found is None or self._own_call(invocation) != number:
            return
        if isinstance(found, InvocationRun):
            self._answer(self._committer.begin(), invocation, number, found)
        else:
            self._scheduled.look_at(found.number, partial(self._found_in_tail, invocation, number))

    def _found_in_tail(self, invocation: InvocationRun, number: int, stored: StoredInvocation | None) -> None:
        activation = invocation.activation
        if stored is None or self._own_call(invocation) != number:
            return
        record = stored.record
        handler = activation.actor.handler_or_missing(record.handler, shared=record.mailbox_position is None)
        callee = from_stored(stored, activation, handler)
        if activation.stored_tail and record.status is InvocationStatus.PENDING:
            self._answer(self._committer.begin(), invocation, number, callee, in_tail=True)

    def _answer(
        self,
        transition: Transition,
        invocation: InvocationRun,
        number: int,
        callee: InvocationRun,
        *,
        in_tail: bool = False,
    ) -> None:
        if callee.address != invocation.address or not callee.is_exclusive or callee.outcome is not None:
            return  # A shared handler runs beside it, and a keyed call may have joined what is somewhere else.
        error = DeadlockError(_sentence(invocation, callee), cycle=(invocation.target, callee.target))
        activation = invocation.activation
        others_wait = callee.attachments or self._waiters.has(callee.number) or callee is invocation
        is_own_message = callee.caller is not None and callee.caller.number == invocation.number
        if others_wait or not is_own_message or callee is activation.current:
            self._completions.complete(transition, invocation, number, True, encode_failure(error))
            return
        if in_tail:
            activation.stored_tail -= 1
        elif callee in activation.mailbox:
            activation.mailbox.remove(callee)
        self._endings.fail(transition, callee, error)


def _command(invocation: InvocationRun, number: int) -> Command:
    assert invocation.journal is not None
    return invocation.journal.pending[number]


def _callee_id(invocation: InvocationRun, number: int) -> str | None:
    """The id of the invocation that a pending command waits for; None if only its idempotency key leads there."""
    match _command(invocation, number):
        case Call() as call:
            return derived_invocation_id(invocation.id, invocation.seed, number, call.service, call.key)
        case Attach(invocation_id=id):
            return id
        case _:
            return None


def _is_own(invocation: InvocationRun, command: Command) -> bool:
    """The command waits for a handler of the invocation's own object, or for the invocation itself."""
    match command:
        case Attach(invocation_id=str() as id):
            return are_of_one_address(id, invocation.id)
        case Call() | Attach():
            return (command.service, command.key) == invocation.address
        case _:
            return False


def _sentence(invocation: InvocationRun, callee: InvocationRun) -> str:
    return (
        f"{invocation.target} called {callee.target} and waits for it, but {callee.target} cannot start before "
        f"{invocation.target} has ended: an object runs one exclusive handler at a time. Call the method's code as a "
        "plain function, make the callee @shared if it only reads, or send the message instead of awaiting it."
    )
