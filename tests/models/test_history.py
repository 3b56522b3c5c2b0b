"""Transitions that are older than `history=` go, when every consumer is past them (rule P5)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from durably import FOREVER, Context, MemoryStore, Runtime, Service, SqliteStore, UnknownTargetError, handler
from durably.actors.machines.type_ids import TRANSITION_PREFIX, moment_of, type_id
from durably.actors.values.durations import moment_us
from durably.errors import InvalidDurationError
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.storage.introspection import InspectableStore
from durably.storage.memory import Disk
from durably.storage.records import Batch
from durably.testing import Harness
from durably.testing.generation.transitions import check_history
from tests.models.shop import Orders

HEARD: list[str] = []
DAY = timedelta(days=1)


class Release:
    """A version of the code; the classes of all versions have the same names."""

    def __init__(self, *, history: timedelta = DAY, has_meter: bool = True, has_archive: bool = False) -> None:
        class Lamp(Model, prefix="lamp"):
            pass

        class On(Lamp):
            pass

        class Off(Lamp):
            pass

        class Lamps(Machine[Lamp], history=history):
            @initial
            async def hang(self, ctx: TransitionContext) -> Off:
                return Off()

            @transition
            async def turn(self, ctx: TransitionContext, lamp: On | Off) -> On | Off:
                return Off() if isinstance(lamp, On) else On()

            if has_meter:

                @consumer(name="Meter")
                async def measure(self, ctx: Context, lamp: Lamp, made: Transition) -> None:
                    await ctx.run("hear", HEARD.append, f"meter {made.name}")

            if has_archive:

                @consumer(name="Archive", start="beginning")
                async def file(self, ctx: Context, lamp: Lamp, made: Transition) -> None:
                    await ctx.run("hear", HEARD.append, f"archive {made.name}")

        class Historian(Service):
            @handler
            async def look_up(self, ctx: Context, id: str) -> str:
                return (await ctx.machine(Lamps).get_transition(id)).name

        self.lamps, self.historian, self.on = Lamps, Historian, On


CODE = Release()
METER = "Lamps.Meter/consume"


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    HEARD.clear()


async def names(app: Harness, lamp: Model) -> list[str]:
    return [one.name for one in await app.machine(CODE.lamps).get_object_transitions(lamp)]


@pytest.mark.parametrize("on_disk", [True, False])
async def test_a_transition_goes_when_it_is_old_and_the_error_says_so(tmp_path: Path, on_disk: bool) -> None:
    await old_transitions_go(SqliteStore(tmp_path / "lamps.db") if on_disk else MemoryStore())


async def old_transitions_go(store: InspectableStore | str) -> None:
    """And one that a consumer has not had stays until it has."""
    HEARD.clear()
    async with Harness(CODE.lamps, CODE.historian, store=store) as app:
        lamps = app.machine(CODE.lamps)
        lamp, hung = await lamps.hang()
        await app.advance(hours=20)
        _, turned = await lamps.turn(lamp)
        assert await names(app, lamp) == ["turn", "hang"]
        await app.advance(hours=5)
        assert await names(app, lamp) == ["turn"]
        with pytest.raises(UnknownTargetError, match=r"for 1 day, 0:00:00 \(history=\).* has been removed"):
            await lamps.get_transition(hung.id)
        with pytest.raises(UnknownTargetError, match="has been removed"):
            await app.service(CODE.historian).look_up(hung.id)
        assert await lamps.get_transition(turned.id) == turned
        young = type_id(TRANSITION_PREFIX, moment_us(turned.at), 1)
        for unknown in (young, "tsn_1", f"tsn_{'z' * 26}", hung.id.replace("tsn_", "x_")):
            with pytest.raises(UnknownTargetError, match="has no transition"):
                await lamps.get_transition(unknown)
        await app.advance(days=2)
        assert await names(app, lamp) == []
        (found,) = await lamps.find_all(CODE.on)
        assert found.id == lamp.id, "the object is as its latest transition has left it"
        again, _ = await lamps.turn(lamp)
        check_history([CODE.lamps], again, await lamps.get_object_transitions(lamp))
        await app.settle()
        await app.pause_subscription(METER)
        await lamps.turn(lamp)
        await app.advance(days=2)
        await app.crash()
        assert await names(app, lamp) == ["turn"], "the one that was heard of is gone, and the other one waits"
        await app.resume_subscription(METER)
        await app.advance(hours=1)
        assert await names(app, lamp) == []
        assert ["meter hang", *["meter turn"] * 3] == HEARD


async def test_without_a_history_of_their_own_transitions_stay_for_ever() -> None:
    class Bulb(Model, prefix="bulb"):
        pass

    class Whole(Bulb):
        pass

    class Base(Machine[Bulb], abstract=True, history=DAY):
        pass

    class Bulbs(Base, history=FOREVER):
        @initial
        async def make(self, ctx: TransitionContext) -> Whole:
            return Whole()

    async with Harness(Bulbs) as app:
        bulb, made = await app.machine(Bulbs).make()
        await app.advance(days=10_000)
        assert await app.machine(Bulbs).get_transition(made.id) == made
        assert await app.machine(Bulbs).get_object_transitions(bulb) == [made]
    assert Orders.__dict__["__durably_machine__"].history_us is None


async def test_a_subclass_keeps_history_as_its_base_says() -> None:
    class Bulb(Model, prefix="bulb"):
        pass

    class Whole(Bulb):
        pass

    class Base(Machine[Bulb], abstract=True, history=DAY):
        pass

    class Bulbs(Base):
        @initial
        async def make(self, ctx: TransitionContext) -> Whole:
            return Whole()

    async with Harness(Bulbs) as app:
        _, made = await app.machine(Bulbs).make()
        await app.advance(days=2)
        with pytest.raises(UnknownTargetError, match="has been removed"):
            await app.machine(Bulbs).get_transition(made.id)


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_consumer_that_is_paused_keeps_what_it_has_not_had(crashes: bool) -> None:
    disk = Disk()
    async with Harness(CODE.lamps, store=MemoryStore(disk)) as app:
        await app.pause_subscription(METER)
        lamp, _ = await app.machine(CODE.lamps).hang()
        await app.advance(days=3)
        if crashes:
            await app.crash()
        await app.advance(days=3)
        assert await names(app, lamp) == ["hang"]
        await app.resume_subscription(METER)
        await app.settle()
        assert HEARD == ["meter hang"]
        await app.advance(hours=1)
        assert await names(app, lamp) == []


@pytest.mark.parametrize("crashes", [False, True])
async def test_a_consumer_that_is_gone_from_the_code_keeps_it_for_a_week(crashes: bool) -> None:
    disk = Disk()
    async with Harness(CODE.lamps, store=MemoryStore(disk)) as app:
        await app.machine(CODE.lamps).hang()
        await app.settle()
        await app.pause_subscription(METER)
        await app.machine(CODE.lamps).hang()
    async with Harness(Release(has_meter=False).lamps, store=MemoryStore(disk)) as app:
        await app.advance(days=6)
        assert len(disk.events) == 1, "the one that it has not had"
        if crashes:
            await app.crash()
        await app.advance(days=2)
        assert not disk.events


class Portions(MemoryStore):
    """Notes how many transitions go in one commit."""

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk)
        self.sizes: list[int] = []

    async def commit(self, batch: Batch, /) -> None:
        if batch.events_forgotten:
            self.sizes.append(len(batch.events_forgotten))
        await super().commit(batch)


async def test_a_history_that_is_shortened_goes_in_portions_from_the_next_start_on() -> None:
    disk = Disk()
    whole = Release(history=FOREVER)
    async with Harness(whole.lamps, store=MemoryStore(disk)) as app:
        lamp, _ = await app.machine(whole.lamps).hang()
        for _ in range(1_199):
            await app.machine(whole.lamps).turn(lamp)
    store = Portions(disk)
    async with Harness(CODE.lamps, store=store) as app:
        await app.advance(hours=23)
        assert len(disk.events) == 1_200
        await app.advance(hours=2)
    assert not disk.events
    assert store.sizes == [1_000, 200]


async def test_a_new_consumer_begins_with_what_is_left_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    async with Harness(CODE.lamps, store=MemoryStore(disk)) as app:
        lamp, _ = await app.machine(CODE.lamps).hang()
        await app.advance(days=2)
        await app.machine(CODE.lamps).turn(lamp)
        await app.settle()
    HEARD.clear()
    caplog.set_level("INFO")
    later = Release(has_archive=True)
    async with Harness(later.lamps, store=MemoryStore(disk)) as app:
        await app.settle()
        assert HEARD == ["archive turn"]
        assert {one.name: one.behind for one in await app.subscriptions()} == {METER: 0, "Lamps.Archive/consume": 0}
    (told,) = [one.getMessage() for one in caplog.records if "older ones have been removed" in one.getMessage()]
    assert "Lamps.Archive/consume" in told


@pytest.mark.parametrize("wrong", [-1, -DAY, timedelta(days=500_000)])
def test_a_history_that_makes_no_sense_is_refused(wrong: timedelta) -> None:
    with pytest.raises(InvalidDurationError, match=r"history= of .*Lamps"):
        Release(history=wrong)


def test_an_id_tells_when_it_was_made() -> None:
    moment = moment_us(datetime(2026, 9, 21, 12, 30, 1, 250_000, UTC))
    for off in (0, 999):
        assert moment_of(type_id("tsn", moment + off, (1 << 128) - 1)) == moment
    for other in ("", "tsn_", "tsn_1", f"tsn_{'z' * 26}", f"tsn_{'0' * 26}", f"tsn_{'u' * 26}"):
        assert moment_of(other) is None


@pytest.mark.parametrize("on_disk", [True, False])
async def test_what_has_gone_from_a_file_is_gone_after_a_restart(tmp_path: Path, on_disk: bool) -> None:
    store = SqliteStore(tmp_path / "lamps.db") if on_disk else MemoryStore()
    code = Release(history=timedelta(0))
    async with Runtime(store, [code.lamps], cleanup_interval=0.01) as runtime:
        lamps = runtime.machine(code.lamps)
        lamp, hung = await lamps.hang()
        async with asyncio.timeout(10):
            while await lamps.get_object_transitions(lamp):
                await asyncio.sleep(0.01)
    async with Runtime(store, [code.lamps], cleanup_interval=0.01) as runtime:
        lamps = runtime.machine(code.lamps)
        assert await lamps.find_one(code.on, id=lamp.id) is None
        with pytest.raises(UnknownTargetError, match="has been removed"):
            await lamps.get_transition(hung.id)
        await lamps.turn(lamp)
