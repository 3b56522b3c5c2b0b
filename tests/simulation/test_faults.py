"""Faults are placed among the opportunities that a program has, and can be left out and given again."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from durably import ObjectContext, RetryPolicy, TerminalError, VirtualObject, action_context, handler, state
from durably.testing import Faults, Report, Simulation, SimulationFailedError, for_each_crash_point, simulate
from durably.testing.simulation.faults import Extent
from durably.testing.simulation.schedule import order_but


class Till(VirtualObject, name="FaultsTill"):
    """Takes money, with an action of one's own or of the world's patience."""

    total: int = state(default=0)

    def __init__(self, bank: Counter[str]) -> None:
        self.bank = bank

    async def _pay(self) -> int:
        self.bank["paid"] += 1
        return self.bank["paid"]

    @handler
    async def pay(self, ctx: ObjectContext) -> int:
        await ctx.run("pay", self._pay)
        self.total += 1
        return self.total

    @handler
    async def pay_by_attempt(self, ctx: ObjectContext, most: int | None = None) -> None:
        """The key of the payment has the attempt in it, so that a repeated attempt pays again."""

        async def pay() -> None:
            self.bank[f"attempt {action_context().attempt}"] += 1

        policy = None if most is None else RetryPolicy(max_attempts=most)
        await (ctx.run if policy is None else ctx.run.options(retry=policy))("pay", pay)

    @handler
    async def pay_within(self, ctx: ObjectContext, seconds: float) -> bool:
        limited = ctx.run.options(retry=RetryPolicy(max_attempts=2), timeout=seconds)
        try:
            await limited("pay", self._pay)
        except TerminalError:
            return False
        return True


def bank() -> dict[type, object]:
    return {Counter[str]: Counter()}


async def one_payment(sim: Simulation) -> None:
    await sim.object(Till, "a").pay()


def seen(runs: int, faults: Faults | None = None) -> Report:
    return simulate(one_payment, Till, runs=runs, faults=faults, dependencies=bank)


def test_a_program_of_one_call_sees_every_kind_of_fault_and_many_crashes() -> None:
    report = seen(100)
    chosen = {fault.kind for fault in (Faults.any() | Faults.none()).chosen(Random(1)).kinds}
    assert chosen  # Each run has some.
    assert report.crashes >= 30
    assert set(report.faults) == {
        "crash", "commit_fails", "disk_full", "reads_fail", "slow", "clock_jumps", "client_retries",
        "action_fails_before", "action_fails_after", "action_slow", "superseded",
    }  # fmt: skip


def test_a_payment_without_a_key_is_paid_twice_within_some_runs() -> None:
    async def paid_once(sim: Simulation) -> None:
        await sim.object(Till, "a").pay()
        await sim.settle()
        (accounts,) = sim.dependencies.values()
        assert accounts["paid"] == 1

    with pytest.raises(SimulationFailedError) as failed:
        simulate(paid_once, Till, runs=100, dependencies=bank)
    assert failed.value.seed <= 10


def test_faults_that_the_seed_places_lie_within_the_program() -> None:
    extent = Extent(commits=3, reads=0, messages=2, actions=1)
    for seed in range(200):
        for fault in Faults.any().chosen(Random(seed), extent).kinds:
            assert fault.at is None or 1 <= fault.at.number <= extent.at(fault.at.place)
            assert fault.kind != "reads_fail"


@pytest.mark.parametrize("without", [Faults.clock_jumps(), Faults.crash() | Faults.actions(), Faults.any()])
def test_kinds_can_be_left_out(without: Faults) -> None:
    gone = {fault.kind for fault in without.kinds}
    for faults in (Faults.any(without=without), Faults.any() - without, Faults.none() | (Faults.any() - without)):
        chosen = {fault.kind for seed in range(100) for fault in faults.chosen(Random(seed)).kinds}
        assert not chosen & gone
        assert bool(chosen) != without.is_any
        assert eval(repr(faults), {"Faults": Faults}) == faults


def test_what_is_left_out_of_one_is_not_left_out_of_both() -> None:
    both = (Faults.any() - Faults.crash()) | Faults.any()
    assert any(fault.kind == "crash" for seed in range(50) for fault in both.chosen(Random(seed)).kinds)
    assert (Faults.crash(rate=0.1) | Faults.slow()) - Faults.crash() == Faults.slow()


@pytest.mark.parametrize(
    "faults",
    [
        Faults.crash(at="before_action:2+7"),
        Faults.actions(fail_before=0.5) | Faults.actions(fail_after="after_action:3"),
        Faults.actions(slow=None, counts=False),
        Faults.client_retries(at="message:4") | Faults.reads_fail(at="read:1"),
    ],
)
def test_faults_are_printed_as_they_are_written(faults: Faults) -> None:
    assert eval(repr(faults), {"Faults": Faults}) == faults


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda: Faults.crash(at="before_commit"), "is not a point of a run"),
        (lambda: Faults.crash(at="before_commit:1+"), "ten callbacks later"),
        (lambda: Faults.reads_fail(at="message:1"), 'happens at "read:n" only'),
        (lambda: Faults.actions(fail_before="after_action:1"), 'happens at "before_action:n" only'),
        (lambda: Faults.actions(slow=2), "probability from 0 to 1"),
    ],
)
def test_faults_that_cannot_be_are_refused(wrong: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        wrong()  # type: ignore[operator]  # pyright: ignore[reportCallIssue, reportUnknownVariableType, reportGeneralTypeIssues]


@pytest.mark.parametrize("seed", range(1, 9))
def test_the_faults_that_happened_make_the_same_run_again(seed: int) -> None:
    digests: list[str] = []
    faults = Faults.any()
    for _ in range(2):
        with Simulation(Till, seed=seed, faults=faults, dependencies=bank) as sim:
            sim.run(one_payment(sim))
            sim.finish()
        faults = Faults(tuple(sim.injection.happened))
        digests.append(sim.trace.digest())
    assert digests[0] == digests[1]


class TestActionsThatFail:
    """Attempts fail before or after they have done everything, hang, or are slow."""

    def paid(self, faults: Faults) -> int:
        with Simulation(Till, faults=faults, dependencies=bank) as sim:
            assert sim.run(sim.object(Till, "a").pay()) == 1
            (accounts,) = sim.dependencies.values()
            count: int = accounts["paid"]
            return count

    def test_before_it_does_anything(self) -> None:
        assert self.paid(Faults.actions(fail_before="before_action:1")) == 1

    def test_when_it_has_done_everything(self) -> None:
        assert self.paid(Faults.actions(fail_after="after_action:1")) == 2

    def test_and_the_policy_of_the_action_decides_about_another_attempt(self) -> None:
        twice = Faults.actions(fail_before="before_action:1") | Faults.actions(hang="before_action:2")
        with Simulation(Till, faults=twice, dependencies=bank) as sim:
            assert sim.run(sim.object(Till, "a").pay_within(5)) is False
            assert sim.loop.elapsed_us < 10_000_000, "a hanging action ends at its timeout"
        patient = Faults.actions(fail_before=None, fail_after=None, counts=False)
        with Simulation(Till, seed=3, faults=patient, dependencies=bank) as sim:
            assert sim.run(sim.object(Till, "a").pay_within(5)) is True

    def test_and_the_attempt_after_it_has_the_next_number(self) -> None:
        lost = Faults.actions(fail_after="after_action:1") | Faults.actions(fail_after="after_action:2")
        with Simulation(Till, faults=lost, dependencies=bank) as sim:
            sim.run(sim.object(Till, "a").pay_by_attempt())
            assert [*sim.dependencies.values()] == [{"attempt 1": 1, "attempt 2": 1, "attempt 3": 1}]

    def test_which_is_never_more_than_its_own_policy_allows(self) -> None:
        lost = Faults.actions(fail_after=0.5, counts=False)
        with Simulation(Till, seed=1, faults=lost, dependencies=bank) as sim:
            for key in "abcdefgh":
                sim.run(sim.object(Till, key).pay_by_attempt(2))
            (accounts,) = sim.dependencies.values()
            assert accounts.keys() == {"attempt 1", "attempt 2"}

    def test_so_a_key_with_the_attempt_in_it_is_found(self) -> None:
        async def paid_once(sim: Simulation) -> None:
            await sim.object(Till, "a").pay_by_attempt()
            (accounts,) = sim.dependencies.values()
            assert len(accounts) == 1

        with pytest.raises(SimulationFailedError):
            simulate(paid_once, Till, runs=40, dependencies=bank, shrink=False)

    def test_after_an_hour_of_hanging(self) -> None:
        with Simulation(Till, faults=Faults.actions(hang="before_action:1"), dependencies=bank) as sim:
            sim.run(one_payment(sim))
            assert 60_000_000 < sim.loop.elapsed_us < 3_700_000_000


def test_a_program_dies_at_every_action_and_at_every_pair_of_points() -> None:
    points: list[tuple[str, ...]] = []

    async def program(sim: Simulation) -> int:
        await sim.object(Till, "a").pay()
        await sim.settle()
        points.append(tuple(str(fault.at) for fault in sim.injection.happened))
        return sim.snapshots[Till, "a"].total

    for_each_crash_point(program, Till, place=("before_action", "after_action"), dependencies=bank)
    assert points == [(), ("before_action:1",), ("after_action:1",)]
    points.clear()
    report = for_each_crash_point(program, Till, pairs=True, dependencies=bank)
    singles = {point for point in points if len(point) == 1}
    doubles = {point for point in points if len(point) == 2}
    assert len(points) == report.runs
    assert ("before_commit:1", "before_commit:2") in doubles
    assert len(doubles) >= len(singles) > 1


def test_an_order_is_written_as_it_is_given() -> None:
    assert (order_but([]), order_but([3, 7])) == ("fifo", "fifo but 3, 7")
    with pytest.raises(ValueError, match="An order is"):
        Simulation(Till, order="lifo", dependencies=bank())
