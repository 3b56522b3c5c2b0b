"""A program that leaves an open journal of every kind in a store, and what must come of them in any later layout.

`tests/storage/golden/` holds a store of each layout as a script. When a migration has been added, write the one of the
new layout and commit it with the migration: `python -m tests.storage.layout_program`. Never write an old one again.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
from collections.abc import Awaitable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from durably import (
    Context,
    DurablePromise,
    InvocationStatus,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedWorkflowContext,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.errors import PausedInvocationError
from durably.storage.encoding import LARGE_BYTES
from durably.storage.sqlite import SqliteStore
from durably.storage.statements import MIGRATIONS
from durably.testing import Harness

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).resolve().parents[2]
LARGE = "x" * LARGE_BYTES
DONE_AFTER_SECONDS = 4_000
AWAKEABLE = "awakeable"
"""The object whose only line is the id of an awakeable."""
RESULTS = sorted([
    "1", "1", "1", "2", "2", "3", "mended", "mended", str(4 + LARGE_BYTES),
    "a person's word", "given, at last", "at last", "None",
])  # fmt: skip
"""Of all that is in the store in the end, sorted."""


class LayoutWorld:
    """Tells a handler to fail in the first life."""

    is_broken = True


class LayoutBook(VirtualObject):
    """Keeps its mailbox while it sleeps."""

    lines: list[str] = state(default=[])

    @handler
    async def write_slowly(self, ctx: ObjectContext, line: str) -> int:
        await ctx.sleep(600)
        self.lines.append(line)
        return len(self.lines)

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)


class LayoutClerk(Service):
    """Calls, joins calls, acts, waits, fails."""

    def __init__(self, world: LayoutWorld) -> None:
        self.world = world

    @handler
    async def dictate(self, ctx: Context, key: str, line: str) -> int:
        written = await ctx.run("think", lambda: line)
        write = ctx.object(LayoutBook, key).write_slowly.options(idempotency_key="once")
        first, joined = write(written), write(written)
        return await first + await joined

    @handler
    async def wait_for_word(self, ctx: Context) -> int:
        await ctx.sleep(600)
        first, second = await ctx.signal("word", int), await ctx.signal("word", str)
        return first + len(second)

    @handler
    async def wait_for_a_person(self, ctx: Context) -> str:
        asked = ctx.awakeable(str)
        await ctx.object(LayoutBook, AWAKEABLE).write.send(asked.id)
        return await asked

    @handler(retry=RetryPolicy(initial=600.0, maximum=600.0))
    async def fail_and_back_off(self, ctx: Context) -> str:
        await ctx.sleep(1)
        return self._work()

    @handler(retry=RetryPolicy(max_attempts=1))
    async def fail_and_pause(self, ctx: Context) -> str:
        await ctx.sleep(1)
        return self._work()

    def _work(self) -> str:
        if self.world.is_broken:
            raise RuntimeError("not yet")
        return "mended"


class LayoutConsent(Workflow):
    """Waits for two promises; others wait for the second, too."""

    given: DurablePromise[str] = promise()
    missing: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return f"{await self.given}, {await self.missing}"

    @shared
    async def watch(self, ctx: SharedWorkflowContext) -> str:
        return await self.missing

    @shared
    async def give(self, ctx: SharedWorkflowContext, word: str, *, is_last: bool) -> None:
        await (self.missing if is_last else self.given).resolve(word)


def harness(path: Path, world: LayoutWorld) -> Harness:
    actors = (LayoutBook, LayoutClerk, LayoutConsent)
    return Harness(*actors, store=SqliteStore(path), dependencies={LayoutWorld: world}, suspend_after=0)


async def begin(path: Path) -> None:
    """The first life: everything is under way when it ends."""
    async with harness(path, LayoutWorld()) as app:
        clerk, mary = app.service(LayoutClerk), app.object(LayoutBook, "mary")
        await app.object(LayoutBook, "joe").write.options(idempotency_key="done").send("done")
        await clerk.dictate.options(timeout=3_000).send("mary", LARGE)
        await app.advance(2)
        await mary.write.send("queued")
        await mary.write.after(3_000).send("scheduled")
        await clerk.fail_and_back_off.send()
        heard = asyncio.create_task(hear_of_the_pause((await clerk.fail_and_pause.send()).result()))
        await app.advance(2)
        await heard
        waiting = await clerk.wait_for_word.send()
        await waiting.signal("word", 4)
        await waiting.signal("word", LARGE)
        await clerk.wait_for_a_person.send()
        consent = app.workflow(LayoutConsent, "ann")
        await consent.run.send()
        await consent.watch.send()
        await consent.give.send("given", is_last=False)
        await app.settle()


async def hear_of_the_pause(result: Awaitable[str]) -> None:
    try:
        await result
    except PausedInvocationError:
        return
    raise AssertionError("nothing is paused")


async def finish(path: Path) -> tuple[list[str], list[str]]:
    """The second life, in any later version: what there was to do, and how all of it ended."""
    world = LayoutWorld()
    world.is_broken = False
    async with harness(path, world) as app:
        found = [invocation async for invocation in app.invocations()]
        statuses = [await invocation.status() for invocation in found]
        for invocation, status in zip(found, statuses, strict=True):
            if status is InvocationStatus.PAUSED:
                await app.resume(invocation.id)
        awakeables: list[str] = (await app.state(LayoutBook, AWAKEABLE))["lines"]
        await app.resolve_awakeable(awakeables[0], "a person's word")
        await app.workflow(LayoutConsent, "ann").give("at last", is_last=True)
        await app.advance(DONE_AFTER_SECONDS)
        results = [str(await invocation.result()) for invocation in found]
        state = await app.state(LayoutBook, "mary")
        assert state == {"lines": [LARGE, "queued", "scheduled"]}, state
    return sorted(statuses), sorted(results)


# ---------------------------------------------------------------------- golden files


def golden_path(version: int) -> Path:
    return GOLDEN / f"layout_{version:04}.sql"


def restore(version: int, path: Path) -> None:
    """The store of a layout as it was written then."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(golden_path(version).read_text("utf-8"))


def dump(path: Path) -> str:
    """A store as a script that makes it."""
    with closing(sqlite3.connect(path)) as connection:
        headers = [
            f"pragma {name} = {connection.execute(f'pragma {name}').fetchone()[0]};"
            for name in ("application_id", "user_version")
        ]
        script = "\n".join([*headers, *connection.iterdump(), ""])
    # It does not tell on which machine it was made.
    return script.replace(f"{ROOT}/", "").replace(f"'{socket.gethostname()}'", "'golden'")


def write_golden() -> Path:
    """The golden file of today's layout."""
    target = golden_path(MIGRATIONS[-1].version)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "app.db"
        asyncio.run(begin(path))
        GOLDEN.mkdir(exist_ok=True)
        target.write_text(dump(path), "utf-8")
    return target


if __name__ == "__main__":
    print(f"Wrote {write_golden()}.")
