"""A question that nothing could be found by is refused with a sentence, changes nothing, and harms no one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from durably import (
    Context,
    DefinitionError,
    DurableDict,
    DurableList,
    Lazy,
    MemoryStore,
    ObjectContext,
    Runtime,
    Service,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness


class Box(VirtualObject):
    number: int = state(default=0)
    names: DurableDict[str, int] = state()
    numbers: DurableList[int] = state()
    rarely: Lazy[int] = state()

    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        self.number = 1
        self.names["a"] = 1
        self.numbers.append(1)


class Clerk(Service):
    @handler
    async def work(self, ctx: Context) -> None: ...


class Stranger(VirtualObject):
    number: int = state(default=0)


NO_TEXTS: list[Any] = [3, None, b"inv_1", [], Box]
NO_KEYS: list[Any] = ["", "a\0b", "\ud800", 3, None, b"a"]
VERBS = (
    "journal", "why", "restart_as_new", "pause_schedule", "resume_schedule", "cancel_schedule", "cancel", "kill",
    "pause", "purge", "purge_journal", "restart", "resume",
)  # fmt: skip
NO_COUNTS: list[Any] = [-1, "3", True, 1.5]
NO_STATUSES: list[Any] = ["bogus", "", 3, []]
NO_CLASSES: list[Any] = [Clerk, Stranger, 3, "Box", None, VirtualObject]
NO_TARGETS: list[Any] = [
    "", 3, b"Box", Box, "Box/", "Box//fill", "Box/a/", "Box/a/bogus", "Clerk/", "Clerk/bogus", "Clerk/work/x", "Bogus",
    "Box/a/fill/x",
]  # fmt: skip


@dataclass(frozen=True)
class Question:
    """A call of a method of `Runtime`."""

    name: str
    arguments: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict[str, Any])

    async def ask(self, app: Runtime) -> Any:
        asked: Any = getattr(app, self.name)(*self.arguments, **self.options)
        if not isinstance(asked, AsyncIterator):
            return await asked
        return [found async for found in cast("AsyncIterator[object]", asked)]


def questions() -> Iterator[Question]:
    for limit in NO_COUNTS:
        yield Question("invocations", (), {"limit": limit})
        yield Question("objects", (Box,), {"limit": limit})
        yield Question("entries", (Box, "a", "names"), {"limit": limit})
    for status in NO_STATUSES:
        yield Question("invocations", (), {"status": status})
    for target in NO_TARGETS:
        yield Question("invocations", (), {"target": target})
    for actor in NO_CLASSES:
        yield Question("objects", (actor,))
        yield Question("state", (actor, "a"))
        yield Question("entries", (actor, "a", "names"))
        yield Question("delete", (actor, "a"))
    for key in NO_KEYS:
        yield Question("state", (Box, key))
        yield Question("entries", (Box, key, "names"))
        yield Question("delete", (Box, key))
    for name in ("number", "bogus", "", 3):
        yield Question("entries", (Box, "a", name))
    for name, after in (("names", 3), ("numbers", "x"), ("numbers", 1.5), ("rarely", "x")):
        yield Question("entries", (Box, "a", name), {"after": after})
    for text in NO_TEXTS:
        for verb in VERBS:
            yield Question(verb, (text,))
    for step in ("1", 1.5, True, None):
        yield Question("restart", ("inv_1x",), {"from_step": step})
        yield Question("restart_as_new", ("inv_1x",), {"from_step": step})


async def test_questions_that_cannot_mean_anything_are_refused_with_a_sentence() -> None:
    async with Harness(Box, Clerk) as app:
        await app.object(Box, "a").fill()
        for question in questions():
            with pytest.raises((TypeError, ValueError)) as told:
                pytest.fail(f"{question} is answered: {await question.ask(app)}")
            assert str(told.value).endswith("."), question
            for internal in ("not supported between", "object is not", "has no attribute", "object can't", "expected "):
                assert internal not in str(told.value), question
        assert await app.state(Box, "a") == {"number": 1}, "the runtime still runs"
        assert await app.entries(Box, "a", "numbers") == [(0, 1)]


async def test_a_target_of_a_handler_that_is_gone_is_listed_as_long_as_there_is_anything_of_it() -> None:
    class Older(Service, name="Clerk"):
        @handler
        async def gone(self, ctx: Context) -> None:
            await ctx.sleep(60)

    store = MemoryStore()
    async with Harness(Older, store=store) as app:
        sent = await app.service(Older).gone.send()
        await app.settle()
    async with Harness(Clerk, store=store) as app:
        assert [one.id async for one in app.invocations(target="Clerk/gone")] == [sent.id]


@pytest.mark.parametrize("decorator", [handler, shared])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"shared": True}, "is made with @shared"), ({"retries": 3}, "has no option 'retries'. Its options: name, ")],
)
def test_options_that_a_handler_cannot_have_are_refused_with_what_to_write(
    decorator: Any, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        decorator(**options)
