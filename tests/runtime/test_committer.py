"""The gates of the committer: what is durable goes out in order, and not all of it in one turn of the loop."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from durably.actors.retry import RetryPolicy
from durably.ids import Address
from durably.runtime.clock import SystemClock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.settings import Settings
from durably.storage.memory import MemoryStore
from durably.storage.records import Owner

SETTINGS = Settings(retry=RetryPolicy(), suspend_after_us=0, passivate_after_us=0, retention_us=0, drain_us=0)


class Engine:
    """Always quiet; remembers failures."""

    def __init__(self) -> None:
        self.failures: list[BaseException] = []

    def is_quiet(self) -> bool:
        return True

    def store_failed(self, error: BaseException, /) -> None:
        self.failures.append(error)

    def caught_up(self) -> None:
        return


async def committer(engine: Engine, gates_at_once: int) -> Committer:
    store = MemoryStore()
    await store.open(Owner(host="here", process_id=1, since=1))
    clock = SystemClock(asyncio.get_running_loop())
    return Committer(
        engine,
        clock=clock,
        thread_yielding=ThreadYielding(clock, None),
        last_position=0,
        settings=replace(SETTINGS, gates_at_once=gates_at_once),
        store=store,
    )


async def test_gates_open_in_order_a_portion_in_each_turn() -> None:
    engine = Engine()
    log = await committer(engine, gates_at_once=2)
    opened: list[int] = []
    for number in range(5):
        log.next_position()
        log.batch.set_state(Address("Counter", "a"), "value", b"1")
        log.when_durable(opened.append, number)
    log.schedule()
    seen: list[int] = []
    while len(opened) < 5:
        await asyncio.sleep(0)
        seen.append(len(opened))
    assert opened == [0, 1, 2, 3, 4]
    assert sorted(set(seen)) == [0, 2, 4, 5]
    assert engine.failures == []


async def test_what_comes_while_gates_open_does_not_overtake_those_before_it() -> None:
    log = await committer(Engine(), gates_at_once=1)
    opened: list[str] = []
    log.next_position()
    log.batch.set_state(Address("Counter", "a"), "value", b"1")
    for name in ("first", "second"):
        log.when_durable(opened.append, name)
    log.schedule()
    while not opened:
        await asyncio.sleep(0)
    log.when_durable(opened.append, "third")
    assert (opened, log.is_settled()) == (["first"], False)
    while not log.is_settled():
        await asyncio.sleep(0)
    assert opened == ["first", "second", "third"]
    log.when_durable(opened.append, "at once")
    assert opened[-1] == "at once"


async def test_no_gate_opens_any_more_once_the_incarnation_is_over() -> None:
    log = await committer(Engine(), gates_at_once=1)
    opened: list[str] = []
    log.next_position()
    log.batch.set_state(Address("Counter", "a"), "value", b"1")
    for name in ("first", "second"):
        log.when_durable(opened.append, name)
    log.schedule()
    while not opened:
        await asyncio.sleep(0)
    log.kill()
    for _ in range(5):
        await asyncio.sleep(0)
    assert opened == ["first"]
