"""Actors that keep things where a process does: in globals, on classes, in caches. Used by test_process_memory."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import ClassVar

from durably import ObjectContext, VirtualObject, handler, state

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
