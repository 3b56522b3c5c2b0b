"""The gates of the committer: what is durable goes out in order, and not all of it in one turn of the loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from math import ceil

import pytest

from durably.ids import Address
from durably.runtime.clock import SystemClock
from durably.runtime.commit.committer import Committer
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.storage.memory import MemoryStore
from durably.storage.records import Owner


async def committer(failures: list[BaseException], gates_at_once: int) -> Committer:
    store = MemoryStore()
    await store.open(Owner(host="here", process_id=1, since=1))
    clock = SystemClock()

    def failed(_: Incarnation, error: BaseException) -> None:
        failures.append(error)

    incarnation = Incarnation(failed, lambda: None)
    return Committer(
        incarnation,
        clock=clock,
        idleness=Idleness(incarnation, lambda: 0),
        last_position=0,
        observer=Observer(),
        ready=ReadyQueue(),
        settings=Settings(gates_at_once=gates_at_once),
        store=store,
        thread_yielding=ThreadYielding(clock, None),
    )


async def test_gates_open_in_order_a_portion_in_each_turn() -> None:
    failures: list[BaseException] = []
    log = await committer(failures, gates_at_once=2)
    opened: list[int] = []
    for number in range(5):
        log.begin()
        log.batch.set_state(Address("Counter", "a"), "value", b"1")
        log.when_durable(opened.append, number)
    log.write_if_due()
    seen: list[int] = []
    while len(opened) < 5:
        await asyncio.sleep(0)
        seen.append(len(opened))
    assert opened == [0, 1, 2, 3, 4]
    assert sorted(set(seen)) == [0, 2, 4, 5]
    assert failures == []


@pytest.mark.parametrize("gates", [1, 256, 257, 1_024, 1_025, 20_000])
async def test_however_many_gates_a_commit_opens_they_take_a_few_turns_of_the_loop(gates: int) -> None:
    log = await committer([], gates_at_once=256)
    turns: list[int] = []  # In which turn each one opened.
    turn = 0
    log.begin()
    log.batch.set_state(Address("Counter", "a"), "value", b"1")
    for _ in range(gates):
        log.when_durable(lambda _: turns.append(turn), None)
    log.write_if_due()
    while len(turns) < gates:
        await asyncio.sleep(0)
        turn += 1
    opened = Counter(turns).values()
    assert len(opened) == min(4, ceil(gates / 256))
    assert max(opened) == max(min(gates, 256), ceil(gates / 4))


async def test_what_comes_while_gates_open_does_not_overtake_those_before_it() -> None:
    log = await committer([], gates_at_once=1)
    opened: list[str] = []
    log.begin()
    log.batch.set_state(Address("Counter", "a"), "value", b"1")
    for name in ("first", "second"):
        log.when_durable(opened.append, name)
    log.write_if_due()
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
    log = await committer([], gates_at_once=1)
    opened: list[str] = []
    log.begin()
    log.batch.set_state(Address("Counter", "a"), "value", b"1")
    for name in ("first", "second"):
        log.when_durable(opened.append, name)
    log.write_if_due()
    while not opened:
        await asyncio.sleep(0)
    log.kill()
    for _ in range(5):
        await asyncio.sleep(0)
    assert opened == ["first"]
