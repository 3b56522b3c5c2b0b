"""An answer is read after the gate of its own question, whoever asked the same before.

Found by the workload `counters`, with slow reads, messages with deadlines and mailboxes whose tail is in the store: a
message that had ended was loaded once more from an answer that had been read before, and ran again. Twice: a question
was asked anew while it was under way, and the older of two answers came to whoever asked after the first; then, one
answer being shared, to whoever asked before it came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.registry.batched_lookup import BatchedLookup


class Shelf:
    """A store whose answers are what stood there when it was asked, and come when the test lets them."""

    def __init__(self) -> None:
        self.content = "empty"
        self.held: list[asyncio.Future[None]] = []

    async def ask(self, questions: Sequence[str]) -> Callable[[str], str]:
        read = self.content
        held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.held.append(held)
        await held
        return lambda _: read


def incarnation() -> Incarnation:
    def failed(_: Incarnation, error: BaseException) -> None:
        raise error

    return Incarnation(failed, lambda: None)


class Gates:
    """Open when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[Any], None], Any]] = []

    def __call__(self, go: Callable[[Any], None], group: Any) -> None:
        self.waiting.append((go, group))

    def open_next(self) -> None:
        go, group = self.waiting.pop(0)
        go(group)


def nothing() -> int:
    """Up to where the log is durable, in these tests."""
    return 0


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def hear(heard: list[str], number: int, answer: str) -> None:
    heard.append(f"{number}: {answer}")


async def test_whoever_asks_while_an_answer_is_under_way_gets_a_newer_one() -> None:
    shelf, gates, heard = Shelf(), Gates(), list[str]()
    lookup: BatchedLookup[str, str] = BatchedLookup(incarnation(), ReadyQueue(), shelf.ask, durable=nothing, gate=gates)
    lookup("x", partial(hear, heard, 1))
    await turns()
    gates.open_next()
    await turns()
    shelf.content = "full"
    lookup("x", partial(hear, heard, 2))
    await turns()
    gates.open_next()
    await turns()
    for held in shelf.held:
        held.set_result(None)
    await turns()
    assert heard == ["1: empty", "2: full"]
    assert lookup.outstanding == 0


async def test_two_answers_under_way_come_each_to_its_own() -> None:
    shelf, gates, heard = Shelf(), Gates(), list[str]()
    lookup: BatchedLookup[str, str] = BatchedLookup(incarnation(), ReadyQueue(), shelf.ask, durable=nothing, gate=gates)
    for number in (1, 2):
        lookup("x", partial(hear, heard, number))
        await turns()
    gates.open_next()
    await turns()
    gates.open_next()
    await turns()
    shelf.held[0].set_result(None)
    await turns()
    shelf.content = "full"
    lookup("x", partial(hear, heard, 3))
    await turns()
    gates.open_next()
    await turns()
    for held in shelf.held[1:]:
        held.set_result(None)
    await turns()
    assert heard == ["1: empty", "2: empty", "3: full"]


async def test_without_a_gate_one_answer_is_for_all_who_wait() -> None:
    shelf, heard = Shelf(), list[str]()
    lookup: BatchedLookup[str, str] = BatchedLookup(incarnation(), ReadyQueue(), shelf.ask, durable=nothing)
    for _ in range(3):
        lookup("x", heard.append)
        await turns()
    assert len(shelf.held) == 1
    shelf.held[0].set_result(None)
    await turns()
    assert heard == ["empty"] * 3
