"""`Observer`: everything that a runtime tells about what happens in it, as typed events. It is the one seam for logs,
simulation, traces, metrics and pages to look at.

An event promises nothing (rule X1): it is told when the thing happens in memory, which may be before it is durable; the
two that wait for the disk say so. Observers see replays (rule S8), handlers never see observers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from durably.actors.values.user_errors import USER_ERRORS, let_signals_pass

if TYPE_CHECKING:
    from durably.actors.protocol.coding import CodingMeter
    from durably.actors.protocol.commands import Command
    from durably.errors import TerminalError
    from durably.ids import Address
    from durably.runtime.execution.execution import Execution
    from durably.runtime.execution.step import Step
    from durably.runtime.invocations.activation import Activation
    from durably.runtime.invocations.invocation import InvocationRun
    from durably.storage.records import EventRecord, InvocationRecord


Event = TypeVar("Event", bound=Callable[..., None])

_DETAILED: set[str] = set()


def of_every_invocation(event: Event) -> Event:
    """An event of which only those observers hear that set `detailed`."""
    _DETAILED.add(event.__name__)
    return event


class Observer:
    """Override the events that you want; every other one costs nothing.

    Events `@of_every_invocation` are told to observers that set `detailed`, and cost nothing where none does.
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

    def tear_down_failed(self, error: BaseException) -> None:
        """A factory's tear-down of a dependency raised."""

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

    def subscriber_failed(self, event: str, error: BaseException) -> None:
        """A function that `Runtime.subscribe` was given raised, or an event does not fit its class."""

    def subscriber_too_slow(self, events: Sequence[str]) -> None:
        """A function that `Runtime.subscribe` was given is so far behind that events were forgotten before it."""

    def subscriber_does_not_end(self, function: str) -> None:
        """A function that `Runtime.subscribe` was given ignores that it was cancelled; the runtime stops without it."""

    def source_does_not_end(self, source: str) -> None:
        """A source ignores that it was cancelled; the runtime stops without it."""

    def observer_failed(self, event: str, error: BaseException) -> None:
        """An observer raised while it heard of an event."""

    def collected_slowly(self, took_us: int, waiting: int) -> None:
        """Python's garbage collector, with its own thresholds, held up the loop while so many requests waited."""

    def nobody_home(self, address: Address) -> None:
        """The store holds work of a class that this runtime does not have."""

    def waiting_for_people(self, count: int, example: InvocationRecord) -> None:
        """Recovery found paused invocations."""

    # ------------------------------------------------------------------ schedules

    def schedule_begins(self, schedule: str, next_tick: str | None) -> None:
        """A schedule is new in the code, or its expression or time zone has changed."""

    def schedule_gone(self, schedule: str) -> None:
        """The store knew a schedule that the code no longer has. It is dropped."""

    def schedule_unreadable(self, schedule: str, error: BaseException) -> None:
        """The store does not tell where a schedule stood. It begins anew."""

    def ticks_missed(self, schedule: str, after: str | None, before: str | None) -> None:
        """Ticks between these moments were not delivered in time and never will be, by the policy of the schedule."""

    # ------------------------------------------------------------------ subscriptions

    def subscription_begins(self, subscription: str, start: str) -> None:
        """A subscription is new in the code."""

    def subscription_begins_late(self, subscription: str) -> None:
        """It is to begin with the oldest event, and older ones than that have been forgotten."""

    def subscription_gone(self, subscription: str) -> None:
        """The code has had a subscription no longer for so long that its place is dropped."""

    def subscription_unreadable(self, subscription: str, error: BaseException) -> None:
        """The store does not tell where a subscription stood. It begins anew."""

    def event_delivered(self, subscription: str, event: EventRecord, position: int) -> None:
        """*Detailed.* An event has become a message of a subscription, or a dead letter, at this log position."""

    def event_unreadable(self, subscription: str, event: str, reason: str) -> None:
        """An event that a subscription comes to cannot be read. The subscription is paused."""

    # ------------------------------------------------------------------ sources

    def source_begins(self, source: str, positions: Mapping[str, int]) -> None:
        """Partitions of a source are read from these positions on."""

    def record_taken(self, source: str, id: str, position: int) -> None:
        """*Detailed.* A record of a source has become the message `id`, at this log position."""

    def source_failed(self, source: str, error: BaseException, delay_us: int) -> None:
        """A source raised. It is opened again after a while."""

    def source_paused(self, source: str, reason: str) -> None:
        """A source waits for a person."""

    def source_unreadable(self, source: str, error: BaseException) -> None:
        """The store does not tell how far a source was read, so it is paused. The error says what to do."""

    # ------------------------------------------------------------------ an invocation

    @of_every_invocation
    def accepted(self, invocation: InvocationRun) -> None:
        """It is in the log."""

    @of_every_invocation
    def invoked(self, invocation: InvocationRun) -> None:
        """An attempt of it begins, or is made again from its journal."""

    @of_every_invocation
    def waits_for_limit(self, invocation: InvocationRun, limit: str) -> None:
        """It does not start yet: its limit has no room for it."""

    @of_every_invocation
    def given_place(self, invocation: InvocationRun, limit: str) -> None:
        """It has waited for its limit, and starts as soon as its turn comes."""

    @of_every_invocation
    def journaled(self, invocation: InvocationRun, step: Step) -> None:
        """A step of it that is not the last is in the log."""

    @of_every_invocation
    def concluded(self, invocation: InvocationRun, last: Step) -> None:
        """The last step of an execution of it is in the log; its end, or its next execution, follows."""

    @of_every_invocation
    def suspended(self, invocation: InvocationRun) -> None:
        """Its attempt left memory while it waits."""

    @of_every_invocation
    def replayed(self, invocation: InvocationRun, steps: int) -> None:
        """A new attempt has reached the end of the journal."""

    @of_every_invocation
    def continued(self, invocation: InvocationRun, previous: int) -> None:
        """It goes on in a new execution; `previous` was its number before."""

    @of_every_invocation
    def ended(self, invocation: InvocationRun) -> None:
        """It has its outcome."""

    @of_every_invocation
    def killed(self, invocation: InvocationRun) -> None:
        """It is about to end because somebody killed it, or its caller."""

    def retries(self, invocation: InvocationRun, error: BaseException, delay_us: int, due: int) -> None:
        """An attempt failed; the next one comes after the delay, when it is `due`."""

    def gave_up(self, invocation: InvocationRun, error: BaseException) -> None:
        """No further attempt would help, or its policy allows none: it fails with this error."""

    def paused(self, invocation: InvocationRun, error: BaseException) -> None:
        """It waits for a person."""

    def pause_durable(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        """The pause is on disk. `heard`: a caller outside waited for it and has been refused."""

    def state_is_large(self, invocation: InvocationRun, size_bytes: int, limit_bytes: int) -> None:
        """With what it has changed, the state of its object is near the limit."""

    def journal_is_long(self, invocation: InvocationRun, steps: int) -> None:
        """Its journal has so many steps, all of which are replayed when it comes back to memory."""

    def changes_are_large(self, invocation: InvocationRun, field: str, field_bytes: int, changed_bytes: int) -> None:
        """Its steps hold so many bytes of changed fields together; `field` is the largest that the last one changed."""

    def deadlocked(self, invocation: InvocationRun, command: int, cycle: tuple[str, ...]) -> None:
        """A command of it is about to be answered with an error: it would wait for ever, in this circle (rule E4)."""

    def slow(self, invocation: InvocationRun, took_us: int, coding: CodingMeter, place: str, stack: str) -> None:
        """One advance of it held up the event loop. `coding` says how much of that was durably's own encoding and
        decoding, and is reset afterwards. `place` and `stack` say where the handler's code was on the way, if a thread
        looked; else they are empty.
        """

    def blocked(self, invocation: InvocationRun, for_us: int, place: str, stack: str) -> None:
        """One advance of it has held up the event loop for so long, and still does. Told in a thread of its own.

        `place` and `stack` say where the handler's code is; they are empty where it is none of the handler's.
        """

    def mailbox_is_long(self, activation: Activation, waiting: int, limit: int) -> None:
        """So many messages wait for an object; at the limit, requests from outside are refused (rule C8)."""

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

    def action_slow(self, id: str, action: str, took_us: int, place: str, stack: str) -> None:
        """A step of an action held up the event loop. `place` and `stack` are as for `slow`."""

    def action_blocked(self, id: str, action: str, for_us: int, place: str, stack: str) -> None:
        """A step of an action has held up the event loop for so long, and still does. Told in a thread of its own."""

    def threads_busy(self, waiting: list[str], running: list[str]) -> None:
        """Actions have waited for a thread for long; `running` are those that have one."""

    @of_every_invocation
    def batch_written(self, transitions: int, took_us: int) -> None:
        """A commit of so many transitions has ended well."""

    @of_every_invocation
    def committed(self, position: int) -> None:
        """Everything in the log up to this position is on disk."""


class Observers(Observer):
    """Several observers as one: each event goes to those that override it, in their order.

    What an observer raises is reported as `observer_failed`; it never reaches the machine (rule E3).
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        heard = [*observers]
        self.detailed = any(observer.detailed for observer in heard)
        for event in _EVENTS:
            told = [
                self._guarded(event, getattr(observer, event))
                for observer in heard
                if _overrides(observer, event) and (observer.detailed or event not in _DETAILED)
            ]
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
