"""Actors that keep things where a process does: in globals, on classes, in caches. Used by test_process_memory."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from durably import CallNext, Context, ObjectContext, VirtualObject, handler, state

SEEN: set[str] = set()
count = 0
TABLE = {"a": 1}
LEDGER: list[str] = []


@lru_cache
def spelled(word: str) -> str:
    return " ".join(word)


async def to_the_ledger(word: str) -> None:
    LEDGER.append(word)


class Keeper(VirtualObject, name="MemoryKeeper"):
    """Remembers where it should not."""

    cache: ClassVar[Counter[str]] = Counter()
    words: list[str] = state(default=[])

    @handler
    async def hear(self, ctx: ObjectContext, word: str) -> None:
        global count
        self.words.append(word)
        await ctx.run("tell", to_the_ledger, word)
        SEEN.add(word)
        count += 1
        self.cache[word] += TABLE["a"]
        spelled(word)


HEARD: list[str] = []


async def hears(ctx: Context, call_next: CallNext) -> Any:
    result = await call_next()
    HEARD[:] = [*{*HEARD, ctx.handler.name}]
    return result


class Hears:
    heard: ClassVar[list[str]] = []

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        result = await call_next()
        self.heard[:] = [*{*self.heard, ctx.handler.name}]
        return result


OPENED: list[str] = []


def opened() -> Path:
    OPENED.append("once")
    return Path()
