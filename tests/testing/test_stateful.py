"""A machine finds a planted bug and tells it as a short program; its rules do what their names say."""

from __future__ import annotations

import unittest
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, invariant, rule, run_state_machine_as_test

from durably import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.actor import Actor
from durably.errors import DefinitionError, PausedInvocationError
from durably.testing import Faults, InvariantError, Snapshots
from durably.testing.generation.stateful import ActorStateMachine
from durably.testing.generation.strategies import ActorCall
from durably.testing.histories.linearizability import NotLinearizableError


class SoldOutError(TerminalError):
    """Somebody was faster."""


class Seat(VirtualObject, name="MachineSeat"):
    """A seat."""

    buyer: str | None = state(default=None)
    sold: int = state(default=0)

    @shared
    async def is_free(self, ctx: SharedContext) -> bool:
        """Look."""
        return self.buyer is None

    @handler
    async def sell(self, ctx: ObjectContext, buyer: str) -> None:
        """Sell it, whoever has it."""
        self.buyer = buyer
        self.sold += 1

    @handler
    async def reserve(self, ctx: ObjectContext, buyer: str) -> None:
        """Sell it, if nobody has it."""
        if self.buyer is not None:
            raise SoldOutError(f"{self.buyer} has it.")
        self.buyer = buyer
        await ctx.sleep(1)
        self.sold += 1


class Shop(Service, name="MachineShop"):
    """Sells seats."""

    @handler
    async def buy(self, ctx: Context, seat: str, buyer: str) -> bool:
        """Look first and sell then, which is wrong: somebody else may look in between."""
        if not await ctx.object(Seat, seat).is_free():
            return False
        await ctx.object(Seat, seat).sell(buyer)
        return True


class Desk(VirtualObject, name="MachineDesk"):
    """Sells one seat, and remembers in memory what has to be durable."""

    sold: int = state(default=0)

    def __init__(self) -> None:
        self.buyers: dict[str, str] = {}

    @handler
    async def sell(self, ctx: ObjectContext) -> bool:
        """Sell it, unless it is sold as far as this process knows."""
        if self.buyers.setdefault(self.key, ctx.request.id) != ctx.request.id:
            return False
        self.sold += 1
        return True


BUYERS = st.sampled_from(("ann", "bob"))


class SeatMachine(ActorStateMachine):
    """Seats, looked at and sold."""

    actors = (Seat, Shop)
    keys = {Seat: ("A", "B")}  # noqa: RUF012
    overrides = {str: BUYERS, Shop.buy: {"seat": st.sampled_from("AB")}}  # noqa: RUF012

    def check(self, snapshots: Snapshots) -> None:
        for seat in snapshots.of(Seat).values():
            assert seat.sold <= 1, f"{seat.key} is sold {seat.sold} times"


class HonestMachine(SeatMachine):
    """The same without the ways in that do not look."""

    leave_out = (Seat.sell, Shop.buy)


def run(machine: type[ActorStateMachine], *, examples: int = 50, steps: int = 6) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=False,
            max_examples=examples,
            stateful_step_count=steps,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
        ),
    )


def told(error: BaseException) -> tuple[str, list[str]]:
    """The account of what happened last, and the program that hypothesis found."""
    account = next(note for note in error.__notes__ if note.startswith("What happened last, "))
    lines = "\n".join(error.__notes__).splitlines()
    return account, lines[lines.index(next(line for line in lines if line.startswith("state = "))) :]


def test_two_that_look_before_they_buy_are_found_in_one_step() -> None:
    class ShopMachine(SeatMachine):
        leave_out = (Seat.sell, Seat.reserve)

    with pytest.raises(InvariantError, match="is sold 2 times") as raised:
        run(ShopMachine)
    account, program = told(raised.value)
    assert program[0] == "state = ShopMachine()"
    assert program[1] == "state.begin(seed=0)"
    assert program[-1] == "state.teardown()"
    step = " ".join(program[2:-1])
    assert step.count("state.") == 1
    assert any(step.count(f"Shop().buy(seat='{seat}', buyer='ann')") == 2 for seat in "AB")
    assert "MachineSeat" in account


def test_what_was_only_in_memory_is_found_by_a_crash_between_two_sales() -> None:
    class DeskMachine(ActorStateMachine):
        actors = (Desk,)
        keys = {Desk: ("A",)}  # noqa: RUF012

        def check(self, snapshots: Snapshots) -> None:
            assert snapshots[Desk, "A"].sold <= 1

    with pytest.raises(InvariantError) as raised:
        run(DeskMachine)
    _, program = told(raised.value)
    assert program in [
        [
            "state = DeskMachine()",
            "state.begin(seed=0)",
            "state.Desk_sell(key='A')",
            f"state.{again}()",
            "state.Desk_sell(key='A')",
            "state.teardown()",
        ]
        for again in ("crash", "restart")
    ]


class Story(HonestMachine):
    """Remembers what its hooks were told."""

    def __init__(self) -> None:
        super().__init__()
        self.answers: list[Any] = []
        self.rests = 0

    def answered(self, call: ActorCall, answer: Any) -> None:
        self.answers.append(answer)

    def check_at_rest(self, snapshots: Snapshots) -> None:
        self.rests += 1
        assert all((seat.buyer is None) == (seat.sold == 0) for seat in snapshots.of(Seat).values())


def story(machine: type[Story] = Story) -> Any:
    """A machine that has begun, to be driven by hand."""
    made = machine()
    made.begin(seed=3)
    return made


def test_a_terminal_error_is_an_answer() -> None:
    machine = story()
    machine.Seat_reserve(key="A", buyer="ann")
    machine.Seat_reserve(key="A", buyer="bob")
    machine.Seat_is_free(key="A")
    assert machine.answers[0] is None
    assert isinstance(machine.answers[1], SoldOutError)
    assert machine.answers[2] is False
    machine.teardown()
    assert machine.rests == 1


def test_what_was_started_is_under_way_until_all_is_settled() -> None:
    machine = story()
    machine.start(ActorCall(Seat, "A", "reserve", {"buyer": "ann"}))
    machine.start(ActorCall(Seat, "B", "reserve", {"buyer": "bob"}))
    machine.pass_time(0.5)
    assert machine.answers == []
    machine.settle()
    assert machine.answers == [None, None]
    assert machine.rests == 1
    machine.teardown()


def test_passivation_throws_waiting_attempts_and_idle_objects_out() -> None:
    class Waiting(Story):
        suspend_after = 3_600

    machine = story(Waiting)
    machine.Seat_is_free(key="B")
    machine.start(ActorCall(Seat, "A", "reserve", {"buyer": "ann"}))
    machine.pass_time(0.5)
    activations = machine.sim.process.runtime.engine.parts.activations
    assert [address.key for address in activations.by_address if address.key == "A"]
    machine.passivate()
    machine.pass_time(0.02)
    assert activations.by_address == {}
    assert "is suspended" in machine.sim.account()
    machine.teardown()
    assert machine.answers == [True, None]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_crash_while_committing_comes_with_the_next_commit(when: str) -> None:
    machine = story()
    machine.crash_while_committing(when)
    machine.Seat_is_free(key="A")
    crashes = machine.sim.crashes
    machine.Seat_reserve(key="A", buyer="ann")
    assert machine.sim.crashes == 1
    assert f"is killed: {when} commit" in "\n".join(map(str, machine.sim.trace.entries))
    assert machine.answers == [True, None]
    assert crashes <= 1
    machine.teardown()


def test_crashes_and_restarts_come_as_often_as_asked() -> None:
    machine = story()
    for _ in range(3):
        machine.crash()
        machine.restart()
        machine.restart()
    assert machine.sim.crashes == 3
    assert machine.sim.process.name == "process 10"
    machine.teardown()


class NewSeat(Seat, name="MachineSeat"):
    """Version 2."""

    @shared
    async def is_free(self, ctx: SharedContext) -> bool:
        """Nothing is free any more."""
        return False

    @handler
    async def clean(self, ctx: ObjectContext, key: int, target: str = "dust") -> str:
        """What is new, with parameters that are named like those of a rule."""
        return f"{target} {key}"


class Renewed(Story):
    """With new code."""

    new_actors = (NewSeat,)


def enabled(machine: ActorStateMachine) -> set[str]:
    return {one.function.__name__ for one in machine.rules if all(holds(machine) for holds in one.preconditions)}


def test_a_restart_with_new_code_changes_the_rules_and_comes_once() -> None:
    machine = story(Renewed)
    machine.Seat_is_free(key="A")
    assert {"Seat_is_free", "Seat_reserve", "restart_with_new_code"} <= enabled(machine)
    assert not any(name.startswith("NewSeat") for name in enabled(machine))
    machine.restart_with_new_code()
    assert {"NewSeat_is_free", "NewSeat_reserve", "NewSeat_clean"} <= enabled(machine)
    assert not {"Seat_is_free", "restart_with_new_code"} & enabled(machine)
    machine.NewSeat_is_free(key="A")
    machine.NewSeat_clean(key="A", key_=3, target_="rust")
    assert machine.answers == [True, False, "rust 3"]
    machine.teardown()


def test_an_honest_machine_passes_with_everything_that_can_happen() -> None:
    happened: set[str] = set()

    class Everything(Renewed):
        faults = Faults.slow() | Faults.client_retries()

        def teardown(self) -> None:
            super().teardown()
            happened.update(
                word for word in ("is killed", "is stopped", "throws out", "is suspended") if word in self.told()
            )

        def told(self) -> str:
            return "\n".join(entry.what for entry in self.sim.trace.entries)

    run(Everything, examples=25, steps=10)
    assert happened == {"is killed", "is stopped", "throws out", "is suspended"}


class SeatModel:
    """A seat as a plain object, with a mistake: it can be reserved again."""

    def __init__(self) -> None:
        self.buyer: str | None = None

    def is_free(self) -> bool:
        return self.buyer is None

    def reserve(self, buyer: str) -> None:
        self.buyer = buyer


def test_objects_that_are_not_like_their_model_are_found() -> None:
    class Modelled(HonestMachine):
        models = {Seat: SeatModel}  # noqa: RUF012

    machine: Any = Modelled()
    machine.begin(seed=0)
    machine.Seat_reserve(key="A", buyer="ann")
    machine.Seat_reserve(key="A", buyer="bob")
    with pytest.raises(NotLinearizableError, match="MachineSeat"):
        machine.teardown()


class Broken(VirtualObject, name="MachineBroken"):
    """Has a bug."""

    @handler
    async def fail(self, ctx: ObjectContext) -> None:
        """Fail with what is no outcome."""
        raise KeyError("a bug")


class BrokenMachine(ActorStateMachine):
    """One that fails."""

    actors = (Broken,)


def test_a_bug_in_a_handler_fails_the_step_and_is_told_with_the_account() -> None:
    with pytest.raises(PausedInvocationError) as raised:
        run(BrokenMachine, examples=20)
    account, program = told(raised.value)
    assert program[2:-1] == ["state.Broken_fail(key='a')"]
    assert "is paused: KeyError" in account


def test_with_retries_it_is_another_matter() -> None:
    class Patient(BrokenMachine):
        retry = RetryPolicy(max_attempts=2, then="fail")

    machine: Any = Patient()
    machine.begin(seed=0)
    machine.Broken_fail(key="a")
    machine.teardown()


def test_what_a_hook_finds_wrong_fails_the_step() -> None:
    class Strict(HonestMachine):
        def answered(self, call: ActorCall, answer: Any) -> None:
            assert answer is not True, f"{call} was answered {answer}"

    with pytest.raises(AssertionError, match=r"Seat\('A'\).is_free\(\) was answered True"):
        run(Strict, examples=20)


def test_what_is_wrong_in_the_end_is_found_in_the_teardown() -> None:
    class Restless(HonestMachine):
        def check_at_rest(self, snapshots: Snapshots) -> None:
            assert not snapshots.of(Seat), "somebody bought something"

    with pytest.raises(AssertionError, match="somebody bought something") as raised:
        run(Restless, examples=20, steps=4)
    _, program = told(raised.value)
    assert program[3:] == ["state.teardown()"]
    assert program[2] in {
        "state.Seat_reserve(buyer='ann', key='A')",
        "state.start(call=Seat('A').reserve(buyer='ann'))",
        "state.at_once(calls=[Seat('A').reserve(buyer='ann')])",
    }


def test_rules_invariants_and_bundles_of_the_users_stand_beside() -> None:
    class Mine(HonestMachine):
        bought = Bundle("bought")
        replaced: ClassVar[list[str]] = []
        seen: ClassVar[list[str]] = []
        prepared: ClassVar[list[int]] = []

        def dependencies(self) -> Mapping[Any, Any]:
            return {int: 3}

        def prepare(self) -> None:
            self.prepared.append(self.sim.dependencies[int])

        @rule(target=bought, key=st.sampled_from("AB"))
        def buy(self, key: str) -> str:
            self.ask(ActorCall(Seat, key, "reserve", {"buyer": "ann"}))
            return key

        @rule(key=bought)
        def look(self, key: str) -> None:
            self.seen.append(key)
            assert self.sim.snapshots[Seat, key].buyer

        @rule()
        def Seat_is_free(self) -> None:  # noqa: N802
            self.replaced.append("called")

        @invariant()
        def holds(self) -> None:
            assert self.sim.crashes >= 0

    run(Mine, examples=20)
    assert Mine.replaced
    assert Mine.seen
    assert set(Mine.prepared) == {3}


def test_a_machine_for_other_actors_has_their_rules_only() -> None:
    class One(ActorStateMachine):
        actors: ClassVar[tuple[type[Actor], ...]] = (Seat, Shop)

    class Other(One):
        actors = (Desk,)

    names = {one.function.__name__ for one in Other().rules}
    assert "Desk_sell" in names
    assert not any(name.startswith(("Seat_", "Shop_")) for name in names)
    assert issubclass(Other.TestCase, unittest.TestCase)


def test_a_machine_without_actors_and_one_that_has_not_begun_say_so() -> None:
    with pytest.raises(DefinitionError, match=r"Write `actors = \(Ticket, Cart\)` in it"):
        ActorStateMachine()
    with pytest.raises(RuntimeError, match="The world begins with the step `begin`"):
        _ = HonestMachine().sim


TestHonest = HonestMachine.TestCase
TestHonest.settings = settings(derandomize=True, database=None, deadline=None, max_examples=10, stateful_step_count=10)
