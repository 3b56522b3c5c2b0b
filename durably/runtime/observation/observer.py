"""`Observer`: everything that a runtime tells about what happens in it, as typed events. It is the one seam for logs,
simulation, traces, metrics and pages to look at.

An event promises nothing (rule X1): it is told when the thing happens in memory, which may be before it is durable; the
two that wait for the disk say so. Observers see replays (rule S8), handlers never see observers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

if TYPE_CHECKING:
    from durably.actors.protocol.coding import CodingMeter
    from durably.actors.protocol.commands import Command
    from durably.errors import TerminalError
    from durably.ids import Address
    from durably.runtime.execution.execution import Execution
    from durably.runtime.execution.step import Step
    from durably.runtime.invocations.invocation import InvocationRun
    from durably.storage.records import InvocationRecord


class Observer:
    """Override the events that you want; every other one costs nothing.

    Events marked *detailed* happen for every invocation. They are told only if some observer sets `detailed`.
    """

    detailed: bool = False

    # ------------------------------------------------------------------ the runtime

    def started(self, store: str, services: int) -> None:
        """The runtime has its store and serves requests."""

    def stopped(self) -> None:
        """The runtime has let its store go."""

    def waits_for_actions(self, actions: list[str], drain_us: int, interrupted: bool) -> None:
        """A stop begins. These actions run; what else runs comes to a rest at once. `interrupted`: by Ctrl-C."""

    def stops_at_once(self) -> None:
        """A stop was cut short; it waits no longer for what runs."""

    def left_behind(self, what: list[str]) -> None:
        """A stop did not wait to the end for these."""

    def incarnation_failed(self, error: BaseException) -> None:
        """The store failed, or the machine made a mistake: everything in memory is void."""

    def reopen_failed(self, error: BaseException, delay_us: int) -> None:
        """The store could not be opened again; the next try comes after the delay."""

    def stopped_for_good(self, error: BaseException) -> None:
        """The store has another owner, or is lost: no engine will run on it here."""

    def recovered(self) -> None:
        """The store is open again."""

    def hook_failed(self, error: BaseException) -> None:
        """The host's `on_paused` raised."""

    def observer_failed(self, event: str, error: BaseException) -> None:
        """An observer raised while it heard of an event."""

    def collected_slowly(self, took_us: int, waiting: int) -> None:
        """Python's garbage collector, with its own thresholds, held up the loop while so many requests waited."""

    def nobody_home(self, address: Address) -> None:
        """The store holds work of a class that this runtime does not have."""

    def waiting_for_people(self, count: int, example: InvocationRecord) -> None:
        """Recovery found paused invocations."""

    # ------------------------------------------------------------------ an invocation

    def accepted(self, invocation: InvocationRun) -> None:
        """Detailed. It is in the log."""

    def invoked(self, invocation: InvocationRun) -> None:
        """Detailed. An attempt of it begins, or is made again from its journal."""

    def journaled(self, invocation: InvocationRun, step: Step) -> None:
        """Detailed. A step of it that is not the last is in the log."""

    def suspended(self, invocation: InvocationRun) -> None:
        """Detailed. Its attempt left memory while it waits."""

    def replayed(self, invocation: InvocationRun, steps: int) -> None:
        """Detailed. A new attempt has reached the end of the journal."""

    def continued(self, invocation: InvocationRun, previous: int) -> None:
        """Detailed. It goes on in a new execution; `previous` was its number before."""

    def ended(self, invocation: InvocationRun) -> None:
        """Detailed. It has its outcome."""

    def killed(self, invocation: InvocationRun) -> None:
        """Detailed. It is about to end because somebody killed it, or its caller."""

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int) -> None:
        """An attempt failed; the next one comes after the delay."""

    def gave_up(self, invocation: InvocationRun, error: BaseException) -> None:
        """No further attempt would help, or its policy allows none: it fails with this error."""

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        """It waits for a person."""

    def pause_durable(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        """The pause is on disk. `heard`: a caller outside waited for it and has been refused."""

    def journal_is_long(self, invocation: InvocationRun, steps: int) -> None:
        """Its journal has so many steps, all of which are replayed when it comes back to memory."""

    def deadlocked(self, invocation: InvocationRun, command: int, cycle: tuple[str, ...]) -> None:
        """A command of it is about to be answered with an error: it would wait for ever, in this circle (rule E4)."""

    def slow(self, invocation: InvocationRun, took_us: int, coding: CodingMeter) -> None:
        """One advance of it held up the event loop. `coding` says how much of that was durably's own encoding and
        decoding, and is reset afterwards.
        """

    def undeliverable(self, sender: InvocationRun, command: Command, error: TerminalError) -> None:
        """What it has asked for, without waiting for an answer, cannot be done."""

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None:
        """Its handler wrote a log line, not for the first time if it replays."""

    def warned(self, execution: Execution, message: str, /) -> None:
        """Its handler does something that is probably a mistake."""

    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None:
        """A task of its handler failed, and nothing can ask for the error any more."""

    # ------------------------------------------------------------------ side effects and the log

    def action_attempt_started(self, id: str, command: int, name: str) -> None:
        """The action behind a command of an invocation begins to run, for the first time or again."""

    def action_attempt_ended(self, id: str, command: int, name: str) -> None:
        """It has returned, raised or been cancelled."""

    def action_retries(self, invocation: InvocationRun, action: str, fields: dict[str, Any]) -> None:
        """An action failed and will be tried again."""

    def action_logged(
        self, id: str, action: str, attempt: int, level: str, event: str, fields: Mapping[str, Any], /
    ) -> None:
        """An action wrote a log line, perhaps in a thread."""

    def threads_busy(self, waiting: list[str], running: list[str]) -> None:
        """Actions have waited for a thread for long; `running` are those that have one."""

    def committed(self, position: int) -> None:
        """Detailed. Everything in the log up to this position is on disk."""


class Observers(Observer):
    """Several observers as one: each event goes to those that override it, in their order.

    What an observer raises is reported as `observer_failed`; it never reaches the machine (rule E3).
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        heard = [*observers]
        self.detailed = any(observer.detailed for observer in heard)
        for event in _EVENTS:
            told = [self._guarded(event, getattr(observer, event)) for observer in heard if _overrides(observer, event)]
            if told:
                setattr(self, event, told[0] if len(told) == 1 else _all(told))

    def _guarded(self, event: str, hear: Callable[..., None]) -> Callable[..., None]:
        def tell(*details: Any) -> None:
            try:
                hear(*details)
            except USER_ERRORS as error:
                let_signals_pass(error)
                if event != Observer.observer_failed.__name__:
                    self.observer_failed(event, error)

        return tell


_EVENTS = tuple(name for name in vars(Observer) if not name.startswith("_") and callable(getattr(Observer, name)))


def _overrides(observer: Observer, event: str) -> bool:
    own = getattr(observer, event)
    return getattr(own, "__func__", own) is not getattr(Observer, event)


def _all(told: list[Callable[..., None]]) -> Callable[..., None]:
    def tell(*details: Any) -> None:
        for one in told:
            one(*details)

    return tell
