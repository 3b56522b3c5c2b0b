"""A delayed message comes to its mailbox once, however often its timer rings.

Found by the workloads `bank` and `counters`, with slow reads and a wall clock that jumps: a timer was read ahead by the
moving window while it rang, rang again, and the message, under way from the store, was handed over and run twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

from durably.runtime.commit.committer import Committer
from durably.runtime.incarnation.idleness import Idleness
from durably.runtime.incarnation.ready_queue import ReadyQueue
from durably.runtime.registry.reads import Reads
from durably.runtime.registry.registry import InvocationRegistry
from durably.runtime.timers.scheduled_messages import ScheduledMessages
from durably.storage.records import CallerRecord, StoredInvocation
from tests.regressions.test_lookups import incarnation, turns


async def fetch(numbers: Sequence[int]) -> Callable[[int], StoredInvocation | None]:
    return lambda _: None


def at_once(go: Callable[[Any], None], group: Any) -> None:
    go(group)


async def test_a_message_whose_timer_rings_twice_comes_once() -> None:
    is_first: list[bool] = []

    def comes(stored: StoredInvocation | None, attached: list[CallerRecord], is_still_there: bool) -> bool:
        is_first.append(is_still_there)
        return True

    life = incarnation()
    delayed = ScheduledMessages(
        life,
        committer=cast(Committer, SimpleNamespace(durable=0, when_durable=at_once)),
        idleness=Idleness(life, lambda: 0),
        reads=cast(Reads, SimpleNamespace(fetch=fetch)),
        ready=ReadyQueue(),
        registry=cast(InvocationRegistry, SimpleNamespace(read_begins=int, read_ended=int, has_ended=bool)),
    )
    delayed.bring(7, comes)
    await asyncio.sleep(0)
    delayed.bring(7, comes)
    assert delayed.is_coming(7)
    await turns()
    assert is_first == [True, False]
    delayed.bring(7, comes)
    await turns()
    assert is_first == [True, False, True]
