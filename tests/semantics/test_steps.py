"""Rules S: steps, retries, replay."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import operator
import os
import re
import subprocess
import sys
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel, field_serializer, field_validator

from durably import (
    Context,
    HandlerMistakeError,
    InvocationStatus,
    NonDeterminismError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from durably.testing.harness.virtual import VirtualClock
from tests.semantics.support import PuppetStore, World, begin, tuned, turns, wait_a_little

PATIENT = RetryPolicy(initial=1, factor=1, maximum=1)


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count


class TestS1:
    """A step is one advance; its commands are acted on after the whole advance has returned."""

    async def test_nothing_happens_before_the_advance_has_returned(self) -> None:
        order: list[str] = []

        class Callee(VirtualObject):
            @handler
            async def work(self, ctx: ObjectContext) -> None:
                order.append("callee")

        class Caller(Service):
            @handler
            async def go(self, ctx: Context) -> None:
                await ctx.object(Callee, "a").work.send()
                call = ctx.object(Callee, "b").work()
                order.append("still in the step")
                await call
                order.append("next step")

        async with tuned(Harness(Callee, Caller), verify_replay=False) as app:
            await app.service(Caller).go()
            await app.settle()
            assert order == ["still in the step", "callee", "callee", "next step"]

    async def test_the_time_stands_still_within_a_step(self) -> None:
        class Clock(Service):
            @handler
            async def look(self, ctx: Context) -> list[float]:
                before = ctx.now()
                await asyncio.sleep(0)
                await ctx.object(Counter, "a").add.send()
                same = ctx.now() == before
                await ctx.sleep(60)
                return [float(same), (ctx.now() - before).total_seconds()]

        async with Harness(Clock, Counter) as app:
            call = begin(app.service(Clock).look())
            await app.advance(60)
            assert await call == [1.0, 60.0]


class Three(Service):
    @handler
    async def three(self, ctx: Context, number: int) -> int:
        for name in ("one", "two", "three"):
            number = await ctx.run(name, partial(operator.add, number, 1))
        return number


async def test_a_step_is_one_row_with_the_answers_that_it_took_in(monkeypatch: pytest.MonkeyPatch) -> None:
    store = PuppetStore()
    async with Harness(Three, store=store) as app:
        assert await app.service(Three).three(1) == 4
    three = [batch for batch in store.commits if batch.accepted or batch.steps or batch.removed]
    assert [(len(batch.accepted), len(batch.steps), len(batch.removed)) for batch in three] == [
        (1, 1, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)
    ]  # fmt: skip
    assert [batch.completions + batch.updated for batch in store.commits] == [[]] * len(store.commits)


async def test_an_answer_that_a_step_keeps_is_not_asked_for_again_after_a_crash() -> None:
    """Nor one that is too large to be kept in a step."""
    world = World()

    class Twice(Service):
        @handler
        async def twice(self, ctx: Context) -> int:
            small = await ctx.run("small", world.act_at_once, "small")
            large = await ctx.run("large", in_large_letters)
            await ctx.sleep(60)
            return len(small) + len(large)

    async def in_large_letters() -> str:
        return 5_000 * await world.act_at_once("large")

    async with Harness(Twice) as app:
        asked = begin(app.service(Twice).twice.options(idempotency_key="k")())
        await app.settle()
        await app.crash()
        await app.advance(60)
        assert await asked > 5_000
        assert world.started == ["small", "large"]


class TestS2:
    """An advance that ends in a retryable error is no transition: what it did is dropped, what it took in is kept."""

    class Stumbler(VirtualObject):
        failures = 0

        count: int = state(default=0)

        @handler
        async def go(self, ctx: ObjectContext) -> int:
            got = await ctx.object(Counter, "source").add()
            self.count += got
            await ctx.object(Counter, "sink").add.send(10)
            called = ctx.object(Counter, "sink").add(1)
            if TestS2.Stumbler.failures > 0:
                TestS2.Stumbler.failures -= 1
                raise ConnectionError("not yet")
            await called
            return self.count

        @shared
        async def peek(self, ctx: SharedContext) -> int:
            return self.count

    async def test_what_a_failed_advance_did_never_happened(self, suspend_after: float) -> None:
        self.Stumbler.failures = 3
        async with Harness(Counter, self.Stumbler, retry=PATIENT, suspend_after=suspend_after) as app:
            call = begin(app.object(self.Stumbler, "s").go())
            await turns()
            assert await app.object(self.Stumbler, "s").peek() == 0
            assert await app.object(Counter, "sink").peek() == 0
            await app.advance(3)
            assert await call == 1
            await app.settle()
            assert await app.object(Counter, "source").peek() == 1
            assert await app.object(Counter, "sink").peek() == 11

    async def test_a_crash_while_it_backs_off_forgets_neither_the_answer_nor_the_failure(
        self, suspend_after: float
    ) -> None:
        self.Stumbler.failures = 1
        async with Harness(Counter, self.Stumbler, retry=PATIENT, suspend_after=suspend_after) as app:
            sent = await app.object(self.Stumbler, "s").go.send()
            await turns()
            assert await sent.status() is InvocationStatus.BACKING_OFF
            await app.crash()
            assert await sent.status() is InvocationStatus.BACKING_OFF
            await app.advance(1)
            assert await sent.result() == 1
            assert await app.object(Counter, "source").peek() == 1

    async def test_the_attempts_are_counted(self) -> None:
        attempts: list[int] = []

        class Failing(Service):
            @handler
            async def go(self, ctx: Context) -> None:
                attempts.append(ctx.request.attempt)
                if len(attempts) < 3:
                    raise ConnectionError("not yet")

        async with tuned(Harness(Failing, retry=PATIENT), verify_replay=False) as app:
            call = begin(app.service(Failing).go())
            await turns()
            await app.advance(2)
            await call
            assert attempts == [1, 2, 3]

    async def test_a_handler_may_look_at_the_number_of_its_attempt(self, suspend_after: float) -> None:
        """What it did by it is replayed as it was, when the count has begun anew."""

        class Cautious(Service):
            @handler
            async def go(self, ctx: Context) -> int:
                attempt = ctx.request.attempt
                if attempt < 3:
                    raise ConnectionError("not yet")
                await ctx.sleep(60)
                return attempt

        async with Harness(Cautious, retry=PATIENT, suspend_after=suspend_after) as app:
            call = begin(app.service(Cautious).go())
            await turns()
            await wait_a_little(app, 2)
            await app.crash()
            await wait_a_little(app, 60)
            assert await call == 3

    async def test_backoff_grows_and_progress_starts_it_anew(self) -> None:
        times: list[int] = []

        class Slow(Service):
            @handler(retry=RetryPolicy(initial=1, factor=2, maximum=100, max_attempts=4))
            async def go(self, ctx: Context) -> None:
                await ctx.object(Counter, "a").add()
                times.append(round(app.clock.elapsed_us / 1_000_000))
                raise ConnectionError("never")

        async with tuned(Harness(Counter, Slow), verify_replay=False) as app:
            call = begin(app.service(Slow).go())
            await turns()
            await wait_a_little(app, 30)
            with pytest.raises(PausedInvocationError, match="ConnectionError: never"):
                await call
            assert times == [0, 1, 3, 7]


CHANGED = {"code": False}


class TestS3:
    """Replay compares commands, changed fields and outcome; a difference shows both sides and the handler's line."""

    class Changing(VirtualObject):
        step: str = state(default="")

        @handler
        async def command(self, ctx: ObjectContext) -> str:
            await ctx.object(Counter, "new" if CHANGED["code"] else "old").add()
            await ctx.sleep(60)
            return "done"

        @handler
        async def fewer(self, ctx: ObjectContext) -> str:
            if not CHANGED["code"]:
                await ctx.object(Counter, "a").add.send()
            await ctx.sleep(60)
            return "done"

        @handler
        async def field(self, ctx: ObjectContext) -> str:
            self.step = "new" if CHANGED["code"] else "old"
            await ctx.sleep(60)
            return "done"

        @handler
        async def outcome(self, ctx: ObjectContext) -> str:
            if CHANGED["code"]:
                return "early"
            await ctx.sleep(60)
            return "done"

        @handler
        async def error(self, ctx: ObjectContext) -> str:
            if CHANGED["code"]:
                raise ValueError("a new bug")
            await ctx.sleep(60)
            return "done"

    @pytest.mark.parametrize(
        ("name", "recorded", "attempted"),
        [
            ("command", "old", "new"),
            ("fewer", "Send", "Sleep"),
            ("field", '"old"', '"new"'),
            ("outcome", "goes on", "early"),
            ("error", "goes on", "a new bug"),
        ],
    )
    async def test_changed_code_under_an_open_journal_pauses_and_resumes_when_it_is_back(
        self, name: str, recorded: str, attempted: str
    ) -> None:
        CHANGED["code"] = False
        async with Harness(Counter, self.Changing, suspend_after=0) as app:
            changing = app.object(self.Changing, "c")
            sent = await getattr(changing, name).send()
            await app.settle()
            CHANGED["code"] = True
            result = begin(sent.result())
            await turns()
            await wait_a_little(app, 60)
            with pytest.raises(PausedInvocationError) as told:
                await result
            assert isinstance(told.value.__cause__, NonDeterminismError)
            text = str(told.value.__cause__)
            assert recorded in text
            assert attempted in text
            assert "recorded" in text
            assert "attempted" in text
            assert "code changed" in text
            if name in ("command", "fewer"):
                assert "test_steps.py:" in text
            CHANGED["code"] = False
            await app.resume(sent.id)
            assert await sent.result() == "done"

    async def test_a_handler_that_asks_the_world_is_found_out_when_it_ends(self) -> None:
        throws = iter(range(100))

        class Dice(Service):
            @handler
            async def throw(self, ctx: Context) -> int:
                await ctx.object(Counter, str(next(throws))).add()
                return 1

        async with Harness(Counter, Dice) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.service(Dice).throw()
            assert isinstance(told.value.__cause__, NonDeterminismError)

    def test_a_journal_is_replayed_in_another_process_with_other_hashes(self, tmp_path: Path) -> None:
        program = Path(__file__).with_name("program_with_sets.py")
        root = Path(__file__).parents[2]

        def run(what: str, seed: str) -> str:
            environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
            command = [sys.executable, str(program), what, str(tmp_path / "app.db")]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        assert run("begin", "1") == "suspended"
        answers = [run("end", seed) for seed in ("2", "3")]
        assert answers[0] == answers[1]
        assert answers[0].startswith("[")


class TestS4:
    """What an invocation reads that another can change is a recorded input of its step."""

    class Object(VirtualObject):
        count: int = state(default=0)
        names: list[str] = state(default=[])

        @handler
        async def grow(self, ctx: ObjectContext) -> None:
            self.count += 1
            self.names.append(str(self.count))
            ctx.set(f"extra{self.count}", self.count)

        @handler
        async def grow_in_steps(self, ctx: ObjectContext) -> None:
            for _ in range(3):
                self.count += 1
                await ctx.sleep(10)

        @shared
        async def look_twice(self, ctx: SharedContext) -> list[str]:
            first = f"{self.count} {self.names} {ctx.keys()}"
            await ctx.sleep(10)
            return [first, f"{self.count} {self.names} {ctx.keys()}"]

        @shared
        async def look_later(self, ctx: SharedContext) -> list[int]:
            seen: list[int] = []
            for _ in range(4):
                await ctx.sleep(6)
                seen.append(self.count)
            return seen

    async def test_a_shared_handler_that_crashes_after_the_exclusive_changed_its_field_replays_what_it_saw(
        self, suspend_after: float
    ) -> None:
        async with Harness(self.Object, suspend_after=suspend_after) as app:
            one = app.object(self.Object, "o")
            looking = begin(one.look_twice())
            await app.settle()
            await one.grow()
            await app.crash()
            await app.advance(10)
            assert await looking == ["0 [] []", "1 ['1'] ['count', 'extra1', 'names']"]

    async def test_what_it_sees_of_an_exclusive_handler_under_way_is_recorded_too(self, suspend_after: float) -> None:
        async with Harness(self.Object, suspend_after=suspend_after) as app:
            one = app.object(self.Object, "o")
            looking = begin(one.look_later())
            growing = begin(one.grow_in_steps())
            for _ in range(15):
                await app.advance(2)
                await app.crash()
            assert await looking == [1, 2, 2, 3]
            await growing

    async def test_the_status_of_another_invocation_is_a_recorded_input(self, suspend_after: float) -> None:
        class Watcher(Service):
            @handler
            async def watch(self, ctx: Context) -> list[str]:
                sent = await ctx.object(TestS4.Object, "o").grow_in_steps.send()
                before = await sent.status()
                await ctx.sleep(60)
                return [before, await sent.status()]

        async with Harness(self.Object, Watcher, suspend_after=suspend_after) as app:
            watching = begin(app.service(Watcher).watch())
            await app.settle()
            await app.advance(30)
            await app.crash()
            await app.advance(30)
            before, after = await watching
            assert before != "completed"
            assert after == "completed"

    async def test_one_that_ends_in_its_first_step_records_nothing(self, store: PuppetStore) -> None:
        async with Harness(Counter, store=store) as app:
            await app.object(Counter, "a").add()
            await app.settle()
            store.commits.clear()
            assert await app.object(Counter, "a").peek() == 1
            assert all(not (batch.accepted or batch.steps or batch.state) for batch in store.commits)


class TestS6:
    """A step ends when the main task is done: leftovers are thrown away with a warning, what was sent stands."""

    class Leaver(Service):
        def __init__(self, world: World) -> None:
            self.world = world

        @handler
        async def leave(self, ctx: Context) -> str:
            asyncio.create_task(self._sleep_and_add(ctx), name="sleeper")  # noqa: RUF006
            asyncio.create_task(self._act(ctx), name="actor")  # noqa: RUF006
            await ctx.object(Counter, "a").add.send(10)
            call = ctx.object(Counter, "a").add(1)
            await ctx.sleep(1)
            assert await call == 11
            asyncio.get_running_loop().call_soon(self.world.started.append, "a later callback")
            return "left"

        async def _sleep_and_add(self, ctx: Context) -> None:
            await ctx.sleep(3600)
            await ctx.object(Counter, "a").add(100)

        async def _act(self, ctx: Context) -> None:
            await ctx.run("act", self.world.act, "act")

    async def test_tasks_timers_and_actions_go_and_messages_stay(
        self, world: World, store: PuppetStore, caplog: pytest.LogCaptureFixture, suspend_after: float
    ) -> None:
        app = Harness(Counter, self.Leaver, dependencies={World: world}, store=store, suspend_after=suspend_after)
        async with app:
            call = begin(app.service(self.Leaver).leave())
            await turns()
            await wait_a_little(app, 1)
            assert await call == "left"
            await turns()
            assert world.started == ["act"]
            assert world.cancelled == ["act"]
            assert store.timers_on_disk() == 0
            assert "sleeper" in caplog.text
            assert "actor" in caplog.text
            await wait_a_little(app, 7200)
            assert await app.object(Counter, "a").peek() == 11
            assert store.unfinished() == []

    async def test_calls_of_the_last_step_are_made_and_nobody_hears_their_answers(self, suspend_after: float) -> None:
        class Last(Service):
            @handler
            async def go(self, ctx: Context) -> str:
                task = asyncio.create_task(self._call(ctx))
                await asyncio.sleep(0)
                return "done" if not task.done() else "?"

            async def _call(self, ctx: Context) -> None:
                await ctx.object(Counter, "a").add(5)

        async with Harness(Counter, Last, suspend_after=suspend_after) as app:
            assert await app.service(Last).go() == "done"
            await app.settle()
            assert await app.object(Counter, "a").peek() == 5


class TestS7:
    """Waiting for nothing pauses at once; an advance without end fails with a sentence; a slow one warns."""

    class Waiter(VirtualObject):
        @handler
        async def wait_for_nothing(self, ctx: ObjectContext) -> None:
            await asyncio.Event().wait()

        @handler
        async def wait_in_a_task(self, ctx: ObjectContext) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._never(), name="the one who waits")

        async def _never(self) -> None:
            await asyncio.get_running_loop().create_future()

        @handler
        async def wait_deep_down(self, ctx: ObjectContext) -> None:
            await self._one_level_down()

        async def _one_level_down(self) -> None:
            async for _ in self._nothing_comes():
                pass

        async def _nothing_comes(self) -> AsyncGenerator[int]:
            await asyncio.Queue[int]().get()  # Here.
            yield 1

        @handler
        async def spin(self, ctx: ObjectContext) -> None:
            while True:
                await asyncio.sleep(0)

        @handler
        async def dawdle(self, ctx: ObjectContext) -> str:
            CLOCKS[-1]._elapsed += 200_000
            return "slow"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            (
                "wait_for_nothing",
                ["waits for something that nothing will ever supply", "wait_for_nothing", "test_steps.py"],
            ),
            ("wait_in_a_task", ["the one who waits", "_never", "TaskGroup"]),
            (
                "wait_deep_down",
                ["in wait_deep_down", "in _one_level_down", "await asyncio.Queue[int]().get()  # Here.", "in get"],
            ),
            ("spin", ["callbacks", "sleep(0)"]),
        ],
    )
    async def test_it_pauses_at_once_and_says_why(self, name: str, words: list[str]) -> None:
        app = tuned(Harness(self.Waiter, retry=RetryPolicy()), advance_limit_callbacks=1_000)
        async with app:
            with pytest.raises(PausedInvocationError) as told:
                await getattr(app.object(self.Waiter, "w"), name)()
            assert isinstance(told.value.__cause__, HandlerMistakeError)
            for word in words:
                assert word in str(told.value.__cause__), word

    @pytest.mark.parametrize("how", ["by_a_timeout", "before_they_start", "after_they_start"])
    async def test_a_group_of_many_tasks_can_be_cancelled(self, how: str) -> None:
        """The limit grows with the tasks that are there; an endless loop that makes tasks still runs into it."""
        app = tuned(Harness(self.Crowd, retry=RetryPolicy()), advance_limit_callbacks=1_000)
        async with app:
            call = begin(app.service(self.Crowd).cancelled(510, how))
            await turns()
            await wait_a_little(app, 5)
            assert await call == "cancelled"
            for name in ("make_tasks_without_end", "await_tasks_without_end"):
                with pytest.raises(PausedInvocationError, match="callbacks in one go"):
                    await getattr(app.service(self.Crowd), name)()

    @pytest.mark.slow
    async def test_fifty_one_thousand_tasks_can_be_cancelled(self) -> None:
        async with tuned(Harness(self.Crowd, retry=RetryPolicy())) as app:
            call = begin(app.service(self.Crowd).cancelled(51_000, "by_a_timeout"))
            await turns()
            await wait_a_little(app, 5)
            assert await call == "cancelled"

    class Crowd(Service):
        @handler
        async def cancelled(self, ctx: Context, tasks: int, how: str) -> str:
            async def wait() -> None:
                await ctx.sleep(1000)

            try:
                async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                    for _ in range(tasks):
                        group.create_task(wait())
                    if how == "after_they_start":
                        await asyncio.sleep(0)
                    if how != "by_a_timeout":
                        raise ConnectionError
            except (TimeoutError, ExceptionGroup):
                return "cancelled"
            return "not cancelled"

        @handler
        async def make_tasks_without_end(self, ctx: Context) -> None:
            async def wait() -> None:
                await ctx.sleep(1000)

            while True:
                asyncio.create_task(wait())  # noqa: RUF006
                await asyncio.sleep(0)

        @handler
        async def await_tasks_without_end(self, ctx: Context) -> None:
            while True:
                await asyncio.create_task(asyncio.sleep(0))

    async def test_blocking_code_in_a_handler_is_warned_of(self, caplog: pytest.LogCaptureFixture) -> None:
        async with Harness(self.Waiter) as app:
            CLOCKS.append(app.clock)
            assert await app.object(self.Waiter, "w").dawdle() == "slow"
        assert "slow handler code" in caplog.text
        assert "ctx.run" in caplog.text

    @pytest.mark.parametrize(
        ("handler_us", "blamed"),
        [(10_000, "not the handler's code"), (900_000, "slow handler code")],
    )
    async def test_the_time_that_durably_spends_on_a_large_field_is_told_apart(
        self, caplog: pytest.LogCaptureFixture, handler_us: int, blamed: str
    ) -> None:
        async with tuned(Harness(Archive), verify_replay=False) as app:
            CLOCKS.append(app.clock)
            await app.object(Archive, "a").add("x" * 20_000)
            caplog.clear()
            SLOW.append(app.clock)
            try:
                await app.object(Archive, "a").add("y", handler_us)
            finally:
                SLOW.clear()
        (line,) = [record.getMessage() for record in caplog.records]
        assert blamed in line
        # Read, encoded, verified, each once: 100 ms, or 200 where verifying encodes again.
        times = rf"handler_milliseconds={handler_us // 1000} coding_milliseconds=[34]00 "
        assert re.search(f"{times}largest='self.pages' largest_bytes=20018", line)


CLOCKS: list[VirtualClock] = []
SLOW: list[VirtualClock] = []
"""The clock, while encoding and decoding a page takes 100 ms."""


class Pages(BaseModel):
    texts: list[str]

    @field_serializer("texts")
    def _encoded(self, texts: list[str]) -> list[str]:
        for clock in SLOW:
            clock._elapsed += 100_000
        return texts

    @field_validator("texts")
    @classmethod
    def _decoded(cls, texts: list[str]) -> list[str]:
        for clock in SLOW:
            clock._elapsed += 100_000
        return texts


class Archive(VirtualObject):
    pages: Pages = state(default=Pages(texts=[]))

    @handler
    async def add(self, ctx: ObjectContext, text: str, handler_us: int = 0) -> None:
        self.pages.texts.append(text)
        CLOCKS[-1]._elapsed += handler_us


class TestS8:
    """Observers may know of a replay; handlers cannot. Their log lines come once."""

    async def test_a_line_is_written_once_however_often_the_handler_is_replayed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Talker(Service):
            @handler
            async def talk(self, ctx: Context) -> str:
                ctx.log.warning("begun", step=1)
                await ctx.sleep(1)
                ctx.log.warning("woken", step=2)
                await ctx.sleep(1)
                ctx.log.warning("ended", step=3)
                return "done"

        async with Harness(Talker, suspend_after=0) as app:
            call = begin(app.service(Talker).talk())
            await turns()
            for _ in range(2):
                await app.crash()
                await app.advance(1)
            assert await call == "done"
        assert [caplog.text.count(word) for word in ("begun", "woken", "ended")] == [1, 1, 1]
