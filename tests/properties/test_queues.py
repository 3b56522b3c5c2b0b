"""Random moves at both ends of a list lose nothing and double nothing, whichever pops are cancelled, and when (V7)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from hypothesis import example, given, settings
from hypothesis import strategies as st

from durably import DurableList, ObjectContext, SharedContext, VirtualObject, handler, shared, state
from durably.testing import Harness
from tests.levels import level

Move: TypeAlias = tuple[str, int]
ENDS = ("append", "appendleft")
POPS = ("pop", "popleft")
HOW = ("operation", "future", "task")
"""How a pop is awaited, by its number."""


@dataclass(kw_only=True)
class Played:
    """What a handler has seen."""

    heard: list[int] = field(default_factory=list[int])
    """What tasks have got."""
    out: list[int] = field(default_factory=list[int])
    """What the pops have got, in the order of the pops."""
    cleared: list[int] = field(default_factory=list[int])
    """What may have gone with a `clear`."""
    was_late: bool = False
    """A pop that had its entry was cancelled, or did not run to its end: entries behind it may have come out before."""


class Line(VirtualObject, name="PropertyLine"):
    """Numbers in order: what is added at the end is above all others, what is added at the beginning below."""

    first: int = state(default=0)
    end: int = state(default=0)
    numbers: DurableList[int] = state()

    @handler
    async def fill(self, ctx: ObjectContext, count: int) -> None:
        for _ in range(count):
            self._add("append")

    @handler
    async def play(self, ctx: ObjectContext, moves: list[Move]) -> Played:
        played = Played()
        started: list[asyncio.Future[int | None]] = []
        popping: list[asyncio.Future[int | None]] = []

        async def work(pop: Any) -> int | None:
            popping.append(cast("asyncio.Future[int | None]", asyncio.current_task()))
            number: int | None = await pop(None)
            if number is not None:
                played.heard.append(number)
            return number

        def cancel(one: asyncio.Future[int | None]) -> None:
            played.was_late |= one.done() and not one.cancelled()
            one.cancel()

        for kind, number in moves:
            match kind:
                case "append" | "appendleft":
                    self._add(kind)
                case "pop" | "popleft" if len(self.numbers):
                    pop = self.numbers.pop if kind == "pop" else self.numbers.popleft
                    how = HOW[number % 3]
                    started.append(_awaited(how, pop, work))
                    popping += [] if how == "task" else started[-1:]
                case "cancel" if started:
                    cancel(started[number % len(started)])
                case "cancel many":
                    for one in started[number % 3 :: 1 + number % 2]:
                        cancel(one)
                case "await" if started:
                    with suppress(asyncio.CancelledError):
                        await started[number % len(started)]
                case "turn":
                    await asyncio.sleep(0)
                case "wait":
                    await ctx.sleep(1)
                case "write again":
                    await asyncio.gather(*started, return_exceptions=True)
                    for place, known in enumerate(await self.numbers.range()):
                        self.numbers[place] = known
                case "clear":
                    self.numbers.clear()
                    played.cleared = [*range(self.first, self.end)]
                case _:
                    pass
        played.was_late |= not all(one.done() for one in started)
        results = [one.result() for one in popping if one.done() and not one.cancelled()]
        played.out = [number for number in results if number is not None]
        return played

    @shared
    async def look(self, ctx: SharedContext) -> tuple[int, int, list[int]]:
        return self.first, self.end, [number async for number in self.numbers]

    def _add(self, kind: str) -> None:
        if kind == "append":
            self.numbers.append(self.end)
            self.end += 1
        else:
            self.first -= 1
            self.numbers.appendleft(self.first)


def _awaited(how: str, pop: Any, work: Any) -> asyncio.Future[int | None]:
    if how == "operation":
        operation = cast("asyncio.Future[int | None]", pop(None))
        operation.add_done_callback(lambda _: None)  # As gather does it.
        return operation
    awaited: asyncio.Future[int | None] = asyncio.ensure_future(pop(None) if how == "future" else work(pop))
    return awaited


async def play(stored: int, moves: list[Move]) -> None:
    async with Harness(Line, suspend_after=0) as app:  # Each wait replays what was before it.
        line = app.object(Line, "a")
        await line.fill(stored)
        playing = asyncio.create_task(_call(line.play(moves)))
        await app.advance(len(moves) + 1)
        played = await playing
        first, end, left = await line.look()
    out = played.out
    assert {*played.heard} <= {*out}, f"{played.heard} were heard, and {out} came out"
    assert left == sorted(left), f"{left} are out of order"
    every = [*out, *left]
    assert len(every) == len({*every}), f"{out} came out, and {left} remain"
    lost = {*range(first, end)} - {*every}
    assert lost <= {*played.cleared}, f"{sorted(lost)} are lost: {out} came out, and {left} remain"
    assert not {*left} & {*played.cleared}
    if not played.was_late and not {kind for kind, _ in moves} & {"appendleft", "pop"}:
        assert [*out, *left] == sorted(every), f"the queue gave {out}, and {left} remain"


async def _call(call: Any) -> Any:
    return await call


QUEUE_MOVES = ("append", "popleft", "popleft", "cancel", "cancel many", "await", "turn", "wait")
ALL_MOVES = (*QUEUE_MOVES, "appendleft", "pop", "write again", "clear")


def some(kinds: tuple[str, ...]) -> st.SearchStrategy[list[Move]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.integers(0, 7)), max_size=25)


@settings(max_examples=level().examples // 2)
@given(st.integers(0, 4), st.one_of(some(QUEUE_MOVES), some(ALL_MOVES), some((*ENDS, *POPS, "cancel", "turn"))))
@example(3, [("popleft", 0), ("popleft", 0), ("popleft", 0), ("cancel many", 0)])
@example(1, [("popleft", 0), ("append", 0), ("cancel", 0)])
@example(1, [("popleft", 1), ("cancel", 0)])
def test_what_comes_out_of_a_list_and_what_remains_is_what_went_in(stored: int, moves: list[Move]) -> None:
    asyncio.run(play(stored, moves))
