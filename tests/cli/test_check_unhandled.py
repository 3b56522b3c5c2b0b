"""`durably check` names events that the code publishes, or that wait in the store, and that no handler gets."""

# pyright: reportUnusedClass=false

from __future__ import annotations

import asyncio
import json
import sys
import types
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from durably import Context, MemoryStore, Runtime, Service, SqliteStore, handler
from durably.actors.actor import Actor
from durably.cli.check import check
from durably.cli.operators.output import Format
from durably.events import event, subscribe
from durably.models import Machine, Model, Transition, TransitionContext, consumer, initial, transition
from durably.storage.introspection import InspectableStore
from durably.testing import Harness
from durably.testing.replaying import check_store
from tests.cli.output_schemas import assert_fits


@dataclass
class Came:
    name: str


@event("user.left")
@dataclass
class Left:
    name: str


@dataclass
class Said:
    name: str


class Queue:
    """Has nothing to do with events."""

    def publish(self, what: object) -> None: ...


def goes(name: str) -> Left:
    return Left(name)


class Door(Service):
    @handler
    async def open(self, ctx: Context, name: str) -> None:
        Queue().publish(Said(name))
        await ctx.publish(Came(name), key=name)

    @handler
    async def close(self, ctx: Context, name: str) -> None:
        async def tell() -> None:
            await ctx.publish(Came(name), Left(name), key=name)
            await ctx.publish(Left(name))
            await ctx.publish(goes(name))

        await tell()


class Porter(Service):
    @subscribe(Came, stream="doors")
    async def note(self, ctx: Context, came: Came) -> None:
        await self.tell(ctx, came.name)

    async def tell(self, context: Context, name: str) -> None:
        await context.publish(Said(name))


class Listener(Service):
    @subscribe(Left, Said)
    async def hear(self, ctx: Context, said: Left | Said) -> None: ...


def listening_to(*events: Any) -> type[Actor]:
    class Guest(Service):
        @subscribe(*events, name="place")
        async def hear(self, ctx: Context, what: Any) -> None: ...

    return Guest


async def found(store: InspectableStore, *actors: type[Actor]) -> list[tuple[str, str | None, str | None, int]]:
    report = await check_store(store, Harness(*actors).actors)
    assert report.problems == []
    return [(one.event, one.published_by, one.stream, one.waiting) for one in report.unhandled]


async def fresh(*actors: type[Actor]) -> list[tuple[str, str | None, str | None, int]]:
    store = MemoryStore()
    async with Harness(*actors, store=store):
        return await found(store, *actors)


async def test_what_the_code_publishes_and_nothing_subscribes_to() -> None:
    assert await fresh(Door, Porter) == [
        ("user.left", "Door.close", None, 0), ("Said", "Porter.tell", None, 0),
    ]  # fmt: skip
    assert await fresh(Door, Porter, Listener) == []


async def test_events_that_wait_and_that_todays_code_does_not_want() -> None:
    store = MemoryStore()
    async with Harness(listening_to(Came, Left, Said), store=store) as app:
        await app.publish(Came("a"), Left("a"), Said("a"))
        await app.settle()
        await app.pause_subscription("Guest/place")
        await app.publish(Came("b"), Left("b"), Left("c"), Said("b"))
        assert await found(store, listening_to(Came, Left, Said)) == []
        assert await found(store, listening_to(Came)) == [
            ("Said", None, "default/all", 1), ("user.left", None, "default/all", 2),
        ]  # fmt: skip
        assert await found(store) == [], "the subscription is told as one that no class has"


def lamps(name: str, *, hears_all: bool = False) -> type[Machine[Any]]:
    """The transition has this name."""

    class Lamp(Model, prefix="lamp"):
        pass

    class On(Lamp):
        pass

    async def turn(self: Any, ctx: TransitionContext, lamp: On) -> On:
        return lamp

    turn.__annotations__ = {"lamp": On, "return": On}
    turn.__name__ = name
    turned = transition(turn)

    async def hang(self: Any, ctx: TransitionContext) -> On:
        return On()

    hang.__annotations__ = {"return": On}

    async def measure(self: Any, ctx: Context, lamp: Lamp, made: Transition) -> None: ...

    measure.__annotations__ = {"lamp": Lamp}
    meter = consumer(*([] if hears_all else [turned]), name="Meter")(measure)
    members = {"hang": initial(hang), name: turned, "measure": meter, "__module__": __name__}
    machine: type[Machine[Any]] = types.new_class("Lamps", (Machine[Lamp],), {}, lambda body: body.update(members))
    return machine


async def test_transitions_that_wait_under_a_name_that_the_machine_has_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = SqliteStore(tmp_path / "lamps.db")
    before = lamps("turn_on")
    async with Harness(before, store=store) as app:
        machine: Any = app.machine(before)
        lamp, _ = await machine.hang()
        await machine.turn_on(lamp)
        await app.settle()
        assert await found(store, lamps("light")) == [], "the consumer has had them"
        await app.pause_subscription("Lamps.Meter/consume")
        await machine.turn_on(lamp)
        await machine.turn_on(lamp)
        assert await found(store, lamps("turn_on")) == []
        assert await found(store, lamps("light")) == [("turnOn", None, "Lamps", 2)]
        assert await found(store, lamps("light", hears_all=True)) == []
    module = ModuleType("lamps_of_today")
    module.__dict__["runtime"] = Runtime("sqlite:///unused.db", [lamps("light"), Door])
    monkeypatch.setitem(sys.modules, module.__name__, module)

    def told(format: Format) -> str:
        check("lamps_of_today:runtime", f"sqlite:///{tmp_path / 'lamps.db'}", format=format)
        return capsys.readouterr().out

    text = await asyncio.to_thread(told, Format.TABLE)
    assert "2 transitions turnOn of Lamps will be passed over by its consumers: it has no such transition" in text
    assert "Door.open publishes Came, and no handler subscribes to it." in text
    assert "goes on with all of" in text
    report = json.loads(await asyncio.to_thread(told, Format.JSON))
    assert_fits("check", report)
    assert report["ok"]
    assert [one["event"] for one in report["unhandled"]] == ["Came", "Came", "user.left", "turnOn"]
