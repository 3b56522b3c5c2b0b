"""`Preparation`: what is large is decoded before the advance that needs it, in slices (`SlicedWork`).

An advance is one callback of the host's loop, so everything it decodes holds the loop up. Large arguments are decoded
before an attempt is begun, and large answers before they are delivered; a journal that is long, or has large answers,
is replayed with pauses. The attempt that is prepared is the only one that gets what was decoded for it (rule V1), and
takes it in at the same places, so a journal says the same as without. Until then its invocation is not advanced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any, TypeAlias

from durably.actors.definition.arguments import Decoded
from durably.actors.values.slices import Slices, release_in_slices
from durably.actors.values.user_errors import is_from_signal
from durably.errors import InvalidArgumentError, NonDeterminismError
from durably.ids import InvocationStatus
from durably.runtime.activations.attempts import Attempts
from durably.runtime.clock import Clock
from durably.runtime.commands.command_kind import CommandTable
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Delivery
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.incarnation.sliced_work import SlicedWork
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.lifecycle.deadlines import Deadlines
from durably.runtime.lifecycle.pauses import Pauses
from durably.runtime.lifecycle.retries import Retries
from durably.runtime.observation.observer import Observer
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.settings import Settings
from durably.runtime.steps.setting_up import SettingUp

Arguments: TypeAlias = Decoded | InvalidArgumentError | None
WAITS_FOR_OTHERS = (InvocationStatus.PAUSED, InvocationStatus.BACKING_OFF)
"""A person or a timer ends these; nothing else advances such an invocation."""


class Preparation:
    """Prepares attempts of one incarnation."""

    def __init__(
        self,
        *,
        attempts: Attempts,
        clock: Clock,
        commands: CommandTable,
        deadlines: Deadlines,
        observer: Observer,
        pauses: Pauses,
        ready: ReadyQueue,
        registry: InvocationRegistry,
        retries: Retries,
        setting_up: SettingUp,
        settings: Settings,
        sliced_work: SlicedWork,
        versions: CodeVersions,
    ) -> None:
        self._attempts = attempts
        self._host = asyncio.get_running_loop()
        self._clock = clock
        self._commands = commands
        self._deadlines = deadlines
        self._observer = observer
        self._pauses = pauses
        self._ready = ready
        self._registry = registry
        self._retries = retries
        self.set_up = setting_up.begin
        """Make what the activation of an invocation needs, then let that be advanced."""
        self._host_error_pause_us = settings.host_error_pause_us
        self._replayed_at_once = settings.replayed_at_once
        self._slice_bytes = settings.slice_bytes
        self._sliced_work = sliced_work
        self._versions = versions

    def is_needed_to_replay(self, journal: Journal) -> bool:
        """An attempt has to go a long way, or to decode something large, before it is where the journal ends."""
        if len(journal.steps) > self._replayed_at_once:
            return True
        return any(len(delivery.value) > self._slice_bytes for delivery in journal.deliveries.values())

    def begin(self, invocation: InvocationRun) -> None:
        """Make an attempt and bring it to the end of the journal, then let it be advanced."""
        invocation.is_preparing = True
        self._sliced_work.begin(
            self._attempt(invocation), partial(self._begun, invocation), partial(self._failed, invocation)
        )

    def deliver(self, invocation: InvocationRun, execution: Execution, deliveries: Iterable[Delivery]) -> None:
        """Decode answers for an attempt, then let it be advanced."""
        execution.expect_large(self._free)
        invocation.is_preparing = True
        self._sliced_work.begin(
            execution.prepare_answers([*deliveries], self._slice_bytes),
            partial(self._prepared, invocation),
            partial(self._failed, invocation),
        )

    # ------------------------------------------------------------------ inside

    def _free(self, values: list[Any]) -> None:
        """Called when an attempt is over. Its handler's frames still refer to the values, but not in the next turn."""
        if not self._host.is_closed():
            self._host.call_soon(self._release, values)

    def _release(self, values: list[Any]) -> None:
        self._sliced_work.begin(release_in_slices(values), _nothing, _nothing)

    def _attempt(self, invocation: InvocationRun) -> Slices[Execution | None]:
        """None: it was paused or has ended while its arguments were decoded."""
        journal, arguments = invocation.journal, None
        if len(invocation.argument) > self._slice_bytes:
            arguments = yield from self._arguments(invocation)
            if not self._is_wanted(invocation):
                return None
        execution = self._attempts.make(invocation, arguments)
        execution.expect_large(self._free)
        try:
            if journal is not None:
                yield from execution.replay_in_slices(journal.steps, journal.deliveries)
        except BaseException:  # Also when it is dropped.
            execution.close()
            raise
        return execution

    def _arguments(self, invocation: InvocationRun) -> Slices[Arguments]:
        try:
            return (yield from invocation.handler.decode_in_slices(invocation.argument, self._slice_bytes))
        except InvalidArgumentError as error:  # It is raised where the attempt would have decoded them.
            return error

    def _begun(self, invocation: InvocationRun, execution: Execution | None) -> None:
        if not self._goes_on(invocation) or execution is None:
            if execution is not None:
                execution.close()
            return
        if invocation.status is InvocationStatus.PENDING and self._deadlines.prevents_start(invocation):
            execution.close()
            return
        invocation.execution = execution
        if invocation.journal is not None:
            self.replayed(invocation, invocation.journal)
        self._ready.push(invocation)

    def replayed(self, invocation: InvocationRun, journal: Journal) -> None:
        """A new attempt is where the journal ends: answer again what this process has to answer."""
        if self._observer.detailed:
            self._observer.replayed(invocation, len(journal.steps))
        for number in sorted(journal.unanswered):
            command = journal.pending[number]
            self._commands[type(command)].resume(invocation, number, command)

    def _prepared(self, invocation: InvocationRun, _: None) -> None:
        if self._goes_on(invocation):
            self._ready.push(invocation)

    def _failed(self, invocation: InvocationRun, error: BaseException) -> None:
        if is_from_signal(error):  # Rule E3: the host's business; it is tried again after a while.
            self._clock.call_later(self._host_error_pause_us, self._try_again, invocation)
            raise error
        if not self._goes_on(invocation):
            return
        ends = invocation.journal is not None and invocation.journal.ends_if_it_fails  # Rule E1
        if isinstance(error, NonDeterminismError) and invocation.journal is not None:
            self._versions.tell(error, invocation.journal.versions, invocation.handler)
        if isinstance(error, NonDeterminismError) and not ends:
            self._pauses.pause(invocation, error)
        else:
            self._retries.attempt_failed(invocation, error)
        self._ready.schedule()

    def _try_again(self, invocation: InvocationRun) -> None:
        if self._goes_on(invocation):
            self._ready.push(invocation)

    def _goes_on(self, invocation: InvocationRun) -> bool:
        """It is prepared no longer: whether it is still to be advanced."""
        invocation.is_preparing = False
        return self._is_wanted(invocation)

    def _is_wanted(self, invocation: InvocationRun) -> bool:
        is_here = self._registry.live.get(invocation.id) is invocation
        return is_here and invocation.outcome is None and invocation.status not in WAITS_FOR_OTHERS


def _nothing(_: object) -> None:
    return None
