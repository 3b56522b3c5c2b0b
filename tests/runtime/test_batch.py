"""`OpenBatch`: wherever the borders between batches are, the store ends up with the same.

Transitions of a few invocations are written twice: each in a batch of its own, and coalesced into batches of a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from hypothesis import example, given
from hypothesis import strategies as st

from durably import ObjectContext, VirtualObject, handler
from durably.actors.definition.binding import bind
from durably.actors.protocol.commands import Sleep
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.commit.open_batch import OpenBatch
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.activation import Activation
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.memory import Disk
from durably.storage.records import (
    NO_COMMAND,
    CallerRecord,
    CompletionRecord,
    KeptJournalRecord,
    TimerKind,
    TimerRecord,
)


class Thing(VirtualObject):
    @handler
    async def work(self, ctx: ObjectContext) -> None: ...


HANDLER = bind(Thing, {}).handlers["work"]
HERE = Address("Thing", "a")
ACTIVATION = Activation(HERE, bind(Thing, {}), 0)


def invocation(number: int, *, keyed: bool) -> InvocationRun:
    return InvocationRun(
        number, f"inv_{number}", ACTIVATION, HERE, HANDLER, b"seed", b"{}", {},
        KeyScope("Thing", "a", "work", f"k{number}") if keyed else None, None, None, None, 0,
        1 if keyed else None, InvocationStatus.PENDING, number,
    )  # fmt: skip


class Scenario:
    """Makes transitions that are legal, one after the other, and applies each to the open batch."""

    def __init__(self) -> None:
        self.batch = OpenBatch()
        self.position = 0
        self.living: dict[int, InvocationRun] = {}
        self.kept: list[int] = []
        self.kept_journals: list[int] = []
        self.steps: dict[int, int] = {}
        self.timers: dict[int, set[int]] = {}

    def next_position(self) -> int:
        self.position += 1
        return self.position

    def accept(self, choice: int) -> None:
        number = self.next_position()
        made = self.living[number] = invocation(number, keyed=choice % 2 == 0)
        self.steps[number], self.timers[number] = 0, set()
        self.batch.accept(made)

    def one(self, choice: int) -> InvocationRun | None:
        alive = list(self.living.values())
        return alive[choice % len(alive)] if alive else None

    def step(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is None:
            return
        position, index = self.next_position(), self.steps[chosen.number]
        self.steps[chosen.number] = index + 1
        self.batch.step(chosen.number, index, Step(position, commands=(Sleep(position),)))
        self.batch.set_timer(TimerRecord(chosen.number, TimerKind.SLEEP, index, position, HERE))
        self.timers[chosen.number].add(index)
        chosen.status = InvocationStatus.SUSPENDED
        self.batch.change(chosen)

    def wake(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is None or not self.timers[chosen.number]:
            return
        command = min(self.timers[chosen.number])
        self.timers[chosen.number].discard(command)
        self.batch.clear_timer(chosen.number, TimerKind.SLEEP, command)
        self.batch.complete(CompletionRecord(chosen.number, command, self.next_position(), False, b"null"))
        chosen.status = InvocationStatus.RUNNING
        self.batch.change(chosen)

    def fail(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is None:
            return
        position = self.next_position()
        chosen.attempts += 1
        chosen.failure = b"failure %d" % position
        chosen.status = InvocationStatus.BACKING_OFF
        self.batch.change(chosen)
        self.batch.set_timer(TimerRecord(chosen.number, TimerKind.RETRY, NO_COMMAND, position + 5, HERE))

    def retry(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is None or chosen.status is not InvocationStatus.BACKING_OFF:
            return
        self.next_position()
        self.batch.clear_timer(chosen.number, TimerKind.RETRY)
        chosen.status = InvocationStatus.RUNNING
        self.batch.change(chosen)

    def attach(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is not None:
            self.batch.attach(chosen.number, CallerRecord(HERE, 0, self.next_position()))

    def join(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is not None and chosen.keep_outcome_us is not None:
            self.batch.alias(f"alias_{self.next_position()}", chosen.number)

    def change(self, choice: int) -> None:
        position = self.next_position()
        self.batch.set_state(HERE, f"field{choice % 3}", None if choice % 4 == 0 else b"%d" % position)

    def end(self, choice: int) -> None:
        chosen = self.one(choice)
        if chosen is None:
            return
        position = self.next_position()
        del self.living[chosen.number]
        keep = chosen.keep_outcome_us is not None
        chosen.outcome = Outcome(False, b"%d" % position)
        chosen.status = InvocationStatus.COMPLETED
        chosen.expires_at = position if keep else None
        kept_journal = None
        if keep and choice % 3 == 2 and self.steps[chosen.number]:
            kept_journal = KeptJournalRecord(chosen.number, position + 1, self.steps[chosen.number])
            self.kept_journals.append(chosen.number)
        self.batch.end(chosen, keep=keep, kept_journal=kept_journal)
        if keep:
            self.kept.append(chosen.number)

    def forget_journal(self, choice: int) -> None:
        if self.kept_journals:
            self.next_position()
            self.batch.forget_journal(self.kept_journals.pop(choice % len(self.kept_journals)))

    def expire_object(self, choice: int) -> None:
        self.batch.expire_object(HERE, None if choice % 2 else self.next_position())

    def expire(self, choice: int) -> None:
        if self.kept:
            self.next_position()
            number = self.kept.pop(choice % len(self.kept))
            self.batch.remove(number)
            self.kept_journals = [one for one in self.kept_journals if one != number]


Transition: TypeAlias = Callable[[Scenario, int], None]

transitions: list[Transition] = [
    Scenario.accept, Scenario.step, Scenario.wake, Scenario.fail, Scenario.retry, Scenario.attach, Scenario.join,
    Scenario.change, Scenario.end, Scenario.expire, Scenario.expire_object, Scenario.forget_journal,
]  # fmt: skip
programs = st.lists(
    st.tuples(st.sampled_from(transitions), st.integers(0, 7), st.booleans()), min_size=1, max_size=40
)  # what happens, to whom, and whether a batch is cut afterwards


def written(program: list[tuple[Transition, int, bool]], *, every_transition: bool) -> tuple[Disk, int]:
    scenario, disk, batches = Scenario(), Disk(), 0
    for position, (transition, choice, cut) in enumerate(program):
        transition(scenario, choice)
        if cut or every_transition or position == len(program) - 1:
            batch = scenario.batch.cut(scenario.position)
            scenario.batch = OpenBatch()
            if batch is not None:
                disk.apply(batch)
                batches += 1
    return disk, batches


def contents(disk: Disk) -> object:
    rows = {
        number: (row.record, row.steps, row.completions, row.timers, row.attachments, row.kept)
        for number, row in disk.rows.items()
    }
    return rows, disk.state, disk.aliases, disk.object_expiries


@given(programs)
@example([(Scenario.accept, 0, False), (Scenario.end, 0, False), (Scenario.expire, 0, False)])
def test_wherever_the_borders_are_the_store_ends_up_with_the_same(program: list[tuple[Transition, int, bool]]) -> None:
    one_by_one, _ = written(program, every_transition=True)
    coalesced, _ = written(program, every_transition=False)
    assert contents(coalesced) == contents(one_by_one)


def test_what_begins_and_ends_in_one_batch_leaves_only_its_effects() -> None:
    scenario = Scenario()
    for transition, choice in (
        (Scenario.accept, 1), (Scenario.step, 0), (Scenario.wake, 0), (Scenario.attach, 0), (Scenario.change, 1),
        (Scenario.end, 0),
    ):  # fmt: skip
        transition(scenario, choice)
    batch = scenario.batch.cut(scenario.position)
    assert batch is not None
    assert (batch.accepted, batch.updated, batch.steps, batch.completions, batch.timers) == ([], [], [], [], [])
    assert (batch.removed, batch.ended, batch.attachments) == ([], [], [])
    assert [(change.field, change.value) for change in batch.state] == [("field1", b"5")]


def test_a_keyed_one_leaves_its_outcome() -> None:
    scenario = Scenario()
    scenario.accept(0)
    scenario.step(0)
    scenario.end(0)
    batch = scenario.batch.cut(scenario.position)
    assert batch is not None
    (record,) = batch.accepted
    assert record.status is InvocationStatus.COMPLETED
    assert record.outcome is not None
    assert (batch.updated, batch.steps, batch.timers) == ([], [], [])


def test_a_batch_in_which_everything_cancels_out_is_none() -> None:
    scenario = Scenario()
    scenario.accept(1)
    scenario.end(0)
    assert scenario.batch.cut(scenario.position) is None


def test_a_timer_that_is_set_and_given_up_in_one_batch_leaves_nothing() -> None:
    scenario = Scenario()
    scenario.batch.set_timer(TimerRecord(1, TimerKind.SLEEP, 0, 5, HERE))
    scenario.batch.clear_timer(1, TimerKind.SLEEP, 0)
    assert scenario.batch.cut(1) is None


def test_a_timer_that_can_be_set_again_is_cleared_in_the_store_too() -> None:
    scenario = Scenario()
    scenario.batch.set_timer(TimerRecord(1, TimerKind.RETRY, NO_COMMAND, 5, HERE))
    scenario.batch.clear_timer(1, TimerKind.RETRY)
    batch = scenario.batch.cut(1)
    assert batch is not None
    assert (batch.timers, batch.timers_cleared) == ([], [(1, TimerKind.RETRY, NO_COMMAND)])


def test_a_change_back_and_forth_is_no_change() -> None:
    scenario = Scenario()
    scenario.accept(1)
    assert scenario.batch.cut(1) is not None
    (one,) = scenario.living.values()
    scenario.batch = OpenBatch()
    one.status = InvocationStatus.RUNNING
    scenario.batch.change(one)
    one.status = InvocationStatus.PENDING
    scenario.batch.change(one)
    assert scenario.batch.cut(1) is None
