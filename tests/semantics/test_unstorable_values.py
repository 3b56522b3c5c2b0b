"""Rule L5: a value that cannot be stored is the failure of what gave it, by name, and of nothing else.

The law is tried on every place where a value comes from, with one that is too large for the store, and one that
the codec refuses. The store itself refuses a batch with such a value, so what is overlooked ends the incarnation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from durably import (
    CodecError,
    Context,
    DurablePromise,
    InvalidArgumentError,
    InvocationStatus,
    ObjectContext,
    PausedInvocationError,
    Service,
    SharedContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.codecs import AesGcmCodec
from durably.errors import DurablyError
from durably.runtime.supervision.contained_codec import contained_codec
from durably.storage import encoding
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.memory import MemoryStore
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from durably.storage.store import DiskFullError
from durably.storage.wrapping import WrappedStore
from durably.testing import Harness
from tests.semantics.support import keep_one_incarnation

LIMIT_BYTES = 20_000
LARGE = "x" * 30_000
POISON = "POISON"
HALF = "x" * 12_000


class Codec:
    """Refuses some values. Those that are in order come back."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def encode(self, data: bytes, /) -> bytes:
        if POISON.encode() in data:
            raise self.error
        return b"!" + data

    def decode(self, data: bytes, /) -> bytes:
        return data[1:]


async def itself(value: str) -> str:
    return value


async def fail_with(value: str) -> str:
    raise TerminalError(value)


class Box(VirtualObject):
    """Gives a value to each place that there is."""

    kept: str = state(default="")
    other: str = state(default="")

    @handler
    async def field(self, ctx: ObjectContext, size: int) -> None:
        self.kept = bad(size)

    @handler
    async def field_in_between(self, ctx: ObjectContext, size: int) -> None:
        self.kept = bad(size)
        await ctx.sleep(1)

    @handler
    async def result(self, ctx: ObjectContext, size: int) -> str:
        return bad(size)

    @handler
    async def failure(self, ctx: ObjectContext, size: int) -> None:
        raise TerminalError(bad(size))

    @handler
    async def mistake(self, ctx: ObjectContext, size: int) -> None:
        raise ValueError(bad(size))

    @handler
    async def action(self, ctx: ObjectContext, size: int) -> str:
        return await ctx.run("act", itself, bad(size))

    @handler
    async def failed_action(self, ctx: ObjectContext, size: int) -> str:
        return await ctx.run("act", fail_with, bad(size))

    @handler
    async def action_name(self, ctx: ObjectContext, size: int) -> str:
        return await ctx.run(bad(size), itself, "")

    @handler
    async def call(self, ctx: ObjectContext, size: int) -> None:
        await ctx.service(Sink).take(bad(size))

    @handler
    async def send(self, ctx: ObjectContext, size: int) -> None:
        await ctx.service(Sink).take.send(bad(size))

    @handler
    async def header(self, ctx: ObjectContext, size: int) -> None:
        await ctx.service(Sink).take.options(headers={"x-own": bad(size)})("")

    @handler
    async def signal(self, ctx: ObjectContext, size: int) -> None:
        await ctx.invocation("inv_1" + "0" * 33, str).signal("go", bad(size))

    @handler
    async def next(self, ctx: ObjectContext, size: int, value: str = "") -> None:
        ctx.continue_as_new(Box.next, size, bad(size))

    @handler
    async def add(self, ctx: ObjectContext, value: str) -> str:
        self.other = value
        return await ctx.run("act", itself, value)

    @shared
    async def look(self, ctx: Context) -> int:
        seen = self.kept + self.other
        await ctx.sleep(1)
        return len(seen)

    @handler
    async def fill(self, ctx: ObjectContext) -> None:
        self.kept = self.other = HALF

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        return await ctx.signal("go", str)


class Sink(Service):
    @handler
    async def take(self, ctx: Context, value: str) -> None: ...


class Flow(Workflow):
    word: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return await self.word

    @shared
    async def say(self, ctx: SharedWorkflowContext, size: int) -> None:
        await self.word.resolve(bad(size))


def bad(size: int) -> str:
    return "x" * size if size else POISON


BY_HANDLERS = [
    "field", "field_in_between", "result", "failure", "mistake", "action", "failed_action", "action_name", "call",
    "send", "header", "signal", "next",
]  # fmt: skip
MEMORY = "too large for memory"
SQLITE = "too large for SQLite"
ENCRYPTED = "too large once encrypted"
CODEC = "refused by the codec"
EXIT = "the codec exits"
WAYS = (MEMORY, SQLITE, ENCRYPTED, CODEC, EXIT)
ERRORS: dict[str, BaseException] = {CODEC: ValueError("too secret"), EXIT: SystemExit(3)}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def value(way: str) -> str:
    return LARGE if way in (MEMORY, SQLITE, ENCRYPTED) else POISON


@pytest.fixture
def store(way: str, tmp_path: Path) -> InspectableStore:
    if way == MEMORY:
        return MemoryStore(value_limit_bytes=LIMIT_BYTES)
    if way == SQLITE:
        return SqliteStore(tmp_path / "a.db", value_limit_bytes=LIMIT_BYTES)
    if way == ENCRYPTED:
        return EncodedStore(MemoryStore(value_limit_bytes=LIMIT_BYTES), AesGcmCodec(bytes(32)))
    return EncodedStore(
        MemoryStore(), contained_codec(Codec(ValueError("too secret") if way == CODEC else SystemExit(3)))
    )


async def told(awaitable: Awaitable[Any]) -> str:
    try:
        return f"answered: {await awaitable!r}"
    except DurablyError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("place", BY_HANDLERS)
async def test_a_handler_that_gives_such_a_value_fails_alone(
    place: str, way: str, value: str, store: InspectableStore
) -> None:
    async with Harness(Box, Sink, Flow, store=store) as app:
        size = 0 if value == POISON else len(value)
        asked = [
            asyncio.create_task(told(app.object(Box, "good").add("a"))),
            asyncio.create_task(told(getattr(app.object(Box, "bad"), place)(size))),
            asyncio.create_task(told(app.object(Box, "other").add("b"))),
        ]
        await app.advance(seconds=2)
        answers = [await one for one in asked]
        assert [answers[0], answers[2]] == ["answered: 'a'", "answered: 'b'"]
        assert answers[1].startswith(("PausedInvocationError", "TerminalError", "ActionFailedError"))
        if place != "mistake":
            assert "cannot be stored" in answers[1]
            assert ("Codec" in answers[1]) is (value == POISON) or place in ("failure", "failed_action")
        assert await app.object(Box, "again").add("c") == "c"
        keep_one_incarnation(app)
        async for one in app.invocations(status=InvocationStatus.PAUSED):
            await app.kill(one.id)


async def test_such_an_argument_is_not_accepted(way: str, value: str, store: InspectableStore) -> None:
    async with Harness(Box, Sink, Flow, store=store) as app:
        refused = CodecError if value == POISON else InvalidArgumentError
        waiting = await app.object(Box, "waits").wait.send()
        await app.settle()
        for place in (
            app.service(Sink).take(value),
            app.service(Sink).take.send(value),
            app.call("Sink", "take", b'"%s"' % value.encode()),
            app.service(Sink).take.options(headers={"x-own": value})(""),
            waiting.signal("go", value),
        ):
            with pytest.raises(refused, match="cannot be stored"):
                await place
        if value == LARGE:
            with pytest.raises(refused, match="cannot be stored"):
                await app.object(Box, value).add("")
        await waiting.signal("go", "went")
        assert await waiting.result() == "went"
        keep_one_incarnation(app)


async def test_what_a_shared_handler_has_read_in_one_step_must_fit_into_one_value() -> None:
    async with Harness(Box, Sink, Flow, store=MemoryStore(value_limit_bytes=LIMIT_BYTES)) as app:
        await app.object(Box, "k").fill()
        with pytest.raises(TerminalError, match="taken together, cannot be stored"):
            await app.object(Box, "k").look()
        keep_one_incarnation(app)


async def test_a_promise_of_such_a_value_is_not_kept(way: str, value: str, store: InspectableStore) -> None:
    async with Harness(Box, Sink, Flow, store=store) as app:
        run = await app.workflow(Flow, "w").run.send()
        with pytest.raises((TerminalError, PausedInvocationError), match="cannot be stored"):
            await app.workflow(Flow, "w").say(0 if value == POISON else len(value))
        await app.kill(run.id)
        keep_one_incarnation(app)
        async for one in app.invocations(status=InvocationStatus.PAUSED):
            await app.kill(one.id)


async def test_a_codec_that_is_mended_lets_a_resumed_invocation_go_on() -> None:
    class Strict(Codec):
        is_mended = False

        def encode(self, data: bytes, /) -> bytes:
            return data if self.is_mended else super().encode(data)

        def decode(self, data: bytes, /) -> bytes:
            return data.removeprefix(b"!")

    codec = Strict(ValueError("too secret"))
    async with Harness(Box, Sink, Flow, store=EncodedStore(MemoryStore(), codec)) as app:
        with pytest.raises(PausedInvocationError, match='The result of run "act" of Box/k/action cannot be stored'):
            await app.object(Box, "k").action.options(idempotency_key="i")(0)
        codec.is_mended = True
        (id,) = await app.resume("Box/k")
        assert await app.invocation(id, str).result() == POISON


async def test_any_number_of_values_that_fit_are_stored_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "STATEMENT_BYTES", 4_096)
    sizes = [500 + 37 * number for number in range(30)]

    class Many(VirtualObject):
        @handler
        async def give(self, ctx: ObjectContext) -> None:
            for size in sizes:
                ctx.set(f"f{size}", "x" * size)
                await ctx.object(Many, f"k{size}").keep.after(hours=1).send("y" * size)

        @handler
        async def keep(self, ctx: ObjectContext, value: str) -> None:
            ctx.set("kept", value)

        @shared
        async def kept(self, ctx: SharedContext) -> list[int]:
            return sorted(len(ctx.get(name, str, "")) for name in ctx.keys())  # noqa: SIM118

    path = tmp_path / "a.db"
    async with Harness(Many, store=SqliteStore(path)) as app:
        await app.object(Many, "k").give()
        keep_one_incarnation(app)
    async with Harness(Many, store=SqliteStore(path)) as app:
        assert await app.object(Many, "k").kept() == sizes
        await app.advance(hours=2)
        assert [await app.object(Many, f"k{size}").kept() for size in sizes] == [[size] for size in sizes]


class SmallDisk(WrappedStore):
    """A disk that is full but for a little."""

    free_bytes = 100_000

    async def commit(self, batch: Batch, /) -> None:
        if sum(map(len, batch.values())) > self.free_bytes:
            raise DiskFullError("The disk is full.")
        await super().commit(batch)


@pytest.mark.parametrize("place", ["field", "result", "action", "field_in_between", "send"])
async def test_what_does_not_fit_on_a_full_disk_is_paused_when_it_has_failed_twice(place: str) -> None:
    store = SmallDisk(MemoryStore())
    async with Harness(Box, Sink, Flow, store=store) as app:
        large = app.object(Box, "large")
        sent = await getattr(large, place).options(idempotency_key="i").send(1_000_000)
        waits = asyncio.create_task(told(sent.result()))
        await app.advance(seconds=30)
        assert "did not fit on the disk" in await waits
        assert await app.object(Box, "small").add("a") == "a"
        store.free_bytes = 10_000_000
        await app.resume(sent.id)
        await app.advance(seconds=2)
        assert await sent.status() is InvocationStatus.COMPLETED
