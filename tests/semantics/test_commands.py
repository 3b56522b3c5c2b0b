"""Rules C: commands, futures, calls."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from durably import (
    Context,
    ForgottenAwaitError,
    InvocationStatus,
    ObjectContext,
    OverloadedError,
    PausedInvocationError,
    Service,
    SharedContext,
    TerminalError,
    UnknownTargetError,
    VirtualObject,
    handler,
    select,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import (
    PuppetStore,
    World,
    begin,
    keep_one_incarnation,
    supervisor_of,
    tuned,
    turns,
    wait_a_little,
)


class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @handler
    async def add_slowly(self, ctx: ObjectContext, by: int = 1) -> int:
        await ctx.sleep(10)
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count


class TestC1:
    """An operation is issued when it is called, in program order, awaited or not; it may be awaited many times."""

    class Caller(Service):
        @handler
        async def late(self, ctx: Context) -> list[int]:
            first = ctx.object(Counter, "a").add(1)
            second = ctx.object(Counter, "a").add(10)
            return [await second, await first, await second]

        @handler
        async def everywhere(self, ctx: Context) -> list[int]:
            counter = ctx.object(Counter, "a")
            operation = counter.add()
            gathered = await asyncio.gather(operation, counter.add())
            done, _ = await asyncio.wait([asyncio.create_task(counter.add())])
            shielded = await asyncio.shield(counter.add())
            async with asyncio.timeout(5):
                timed = await counter.add()
            async with asyncio.TaskGroup() as group:
                task = group.create_task(counter.add())
            completed = [await one for one in asyncio.as_completed([counter.add(), counter.add()])]
            return [
                *gathered,
                *(one.result() for one in done),
                shielded,
                timed,
                task.result(),
                *completed,
                await operation,
            ]

        @handler
        async def forgets(self, ctx: Context) -> str:
            ctx.object(Counter, "a").add()  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
            return "done"

    async def test_a_handler_that_fails_has_not_forgotten_anything(self) -> None:
        class Failing(Service):
            @handler
            async def go(self, ctx: Context) -> int:
                first, second = ctx.object(Counter, "a").add_slowly(), ctx.object(Counter, "a").add()
                if await ctx.object(Counter, "b").add() == 1:
                    raise TerminalError("enough", code=418)
                return await first + await second

        async with Harness(Counter, Failing) as app:
            with pytest.raises(TerminalError, match="enough"):
                await app.service(Failing).go()
            await app.advance(10)

    async def test_calls_go_out_in_the_order_in_which_they_were_written(self, suspend_after: float) -> None:
        async with Harness(Counter, self.Caller, suspend_after=suspend_after) as app:
            assert await app.service(self.Caller).late() == [11, 1, 11]

    async def test_an_operation_works_wherever_asyncio_takes_a_coroutine_or_a_future(
        self, suspend_after: float
    ) -> None:
        async with Harness(Counter, self.Caller, suspend_after=suspend_after) as app:
            assert await app.service(self.Caller).everywhere() == [1, 2, 3, 4, 5, 6, 7, 8, 1]

    async def test_one_that_is_never_awaited_fails_in_the_harness_and_is_named(self) -> None:
        async with Harness(Counter, self.Caller) as app:
            with pytest.raises(PausedInvocationError) as told:
                await app.service(self.Caller).forgets()
            assert isinstance(told.value.__cause__, ForgottenAwaitError)
            assert "Counter/add" in str(told.value)
            assert "test_commands.py:" in str(told.value)

    async def test_one_that_is_never_awaited_is_issued_all_the_same(self, caplog: pytest.LogCaptureFixture) -> None:
        async with tuned(Harness(Counter, self.Caller), forgotten_await="warn") as app:
            assert await app.service(self.Caller).forgets() == "done"
            await app.settle()
            assert await app.object(Counter, "a").peek() == 1
        assert "Counter/add" in caplog.text


class TestC2:
    """The answer to a command is a record of the caller, in the same transition as the callee's outcome."""

    class Chain(VirtualObject):
        passed: int = state(default=0)

        @handler
        async def step(self, ctx: ObjectContext, left: int) -> int:
            self.passed += 1
            if left == 0:
                return 0
            return 1 + await ctx.object(TestC2.Chain, f"link{left - 1}").step(left - 1)

        @shared
        async def count(self, ctx: SharedContext) -> int:
            return self.passed

    async def test_a_crash_at_any_commit_neither_loses_nor_doubles_an_answer(self, suspend_after: float) -> None:
        for crash_at in range(1, 30):
            store = PuppetStore()
            async with Harness(self.Chain, suspend_after=suspend_after, store=store) as app:
                store.hold()
                call = begin(app.object(self.Chain, "top").step.options(idempotency_key="k").send(3))
                await turns()
                for _ in range(crash_at - 1):
                    if store.waiting:
                        await store.let_one()
                if not store.waiting:
                    await store.go_on()
                    await call
                    break
                await store.lose(app)
                if call.done():
                    assert call.exception() is None or crash_at == 1
                else:
                    call.cancel()
                again = app.object(self.Chain, "top").step.options(idempotency_key="k")
                assert await again(3) == 3
                for link in ("top", "link2", "link1", "link0"):
                    assert await app.object(self.Chain, link).count() == 1
        else:
            pytest.fail("there was no end of commits")

    async def test_a_callee_that_ends_while_its_caller_is_on_disk_only_leaves_its_answer_there(
        self, store: PuppetStore
    ) -> None:
        class Waiting(Service):
            @handler
            async def go(self, ctx: Context) -> int:
                return await ctx.object(Counter, "a").add_slowly(5)

        async with Harness(Counter, Waiting, suspend_after=0, store=store) as app:
            call = begin(app.service(Waiting).go())
            await turns()
            store.hold()
            await wait_a_little(app, 10)
            assert not call.done()
            await store.let_one()
            await store.lose(app)
            assert await call == 5
            assert await app.object(Counter, "a").peek() == 5


class TestC3:
    """Completions are delivered in log order; one of a command that is not pending is ignored."""

    class Racer(Service):
        def __init__(self, world: World) -> None:
            self.world = world

        @handler
        async def race(self, ctx: Context) -> list[str]:
            order: list[str] = []

            async def run(name: str) -> None:
                order.append(await ctx.run(name, self.world.act, name))

            async with asyncio.TaskGroup() as group:
                for name in ("a", "b", "c"):
                    group.create_task(run(name))
            return order

    async def test_completions_arrive_in_the_order_in_which_they_were_recorded(
        self, world: World, suspend_after: float
    ) -> None:
        async with Harness(self.Racer, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Racer).race())
            await turns()
            for name in ("c", "a", "b"):
                world.end(name)
                await turns()
                if name == "a":
                    await app.crash()
                    await turns()
            assert await call == ["c done", "a done", "b done"]

    async def test_a_caller_that_was_told_of_the_deadline_is_not_told_again(self, suspend_after: float) -> None:
        class Impatient(VirtualObject):
            @handler
            async def go(self, ctx: ObjectContext) -> list[str]:
                try:
                    await ctx.object(Counter, "a").add_slowly.options(timeout=1)()
                except TerminalError as error:
                    seen = [type(error).__name__]
                else:
                    seen = ["in time"]
                await ctx.sleep(60)
                return [*seen, "slept"]

        async with Harness(Counter, Impatient, suspend_after=suspend_after) as app:
            call = begin(app.object(Impatient, "i").go())
            await turns()
            await wait_a_little(app, 30)
            keep_one_incarnation(app)
            await app.crash()
            await wait_a_little(app, 60)
            assert await call == ["DeadlineExceededError", "slept"]


class TestC4:
    """Each execution has a random seed of its own; ids, `random` and `uuid` derive from it, never from names."""

    class Dice(Service):
        @handler
        async def throw(self, ctx: Context) -> list[str]:
            before = [str(ctx.uuid()), str(ctx.random().random())]
            sent = await ctx.object(Counter, "a").add.send()
            await ctx.sleep(1)
            return [*before, sent.id, str(ctx.uuid()), str(ctx.random().random())]

    async def test_two_executions_have_nothing_in_common(self, suspend_after: float) -> None:
        async with Harness(Counter, self.Dice, suspend_after=suspend_after) as app:
            calls = [begin(app.service(self.Dice).throw()) for _ in range(2)]
            await app.advance(1)
            first, second = [await call for call in calls]
            assert len({*first, *second}) == 10

    async def test_a_crash_does_not_throw_again(self) -> None:
        async def thrown(crash: bool) -> list[str]:
            async with Harness(Counter, self.Dice, seed=7) as app:
                call = begin(app.service(self.Dice).throw())
                await app.settle()
                if crash:
                    await app.crash()
                await app.advance(1)
                return await call

        assert await thrown(crash=True) == await thrown(crash=False)

    async def test_the_callee_is_accepted_in_the_transition_of_its_caller(self, store: PuppetStore) -> None:
        async with Harness(Counter, self.Dice, store=store) as app:
            call = begin(app.service(self.Dice).throw())
            await app.advance(1)
            sent = (await call)[2]
            for batch in store.commits:
                callers = {record.id for record in batch.accepted}
                if sent in callers:
                    assert any(record.address.service == "Dice" for record in batch.accepted)
                    break
            else:
                pytest.fail("the message was not accepted together with its sender")


class TestC5:
    """Giving up: a sleep's timer goes, an action is cancelled, a call's callee runs on and its answer is dropped."""

    class Hasty(Service):
        def __init__(self, world: World) -> None:
            self.world = world

        async def _call(self, ctx: Context) -> str:
            try:
                async with asyncio.timeout(1):
                    await ctx.object(Counter, "a").add_slowly()
            except TimeoutError:
                return "gave up"
            return "in time"

        @handler
        async def call(self, ctx: Context) -> str:
            return await self._call(ctx)

        @handler
        async def call_and_stay(self, ctx: Context) -> str:
            seen = await self._call(ctx)
            await ctx.sleep(60)
            return seen

        @handler
        async def run(self, ctx: Context) -> str:
            try:
                async with asyncio.timeout(1):
                    await ctx.run("slow", self.world.act, "slow")
            except TimeoutError:
                await ctx.sleep(60)
                return "gave up"
            return "in time"

        @handler
        async def keep(self, ctx: Context) -> list[str]:
            slow = ctx.object(Counter, "a").add_slowly()
            name, _ = await select(slow=slow, fast=ctx.sleep(1))
            try:
                async with asyncio.timeout(1):
                    await asyncio.shield(slow)
            except TimeoutError:
                name += ", still waiting"
            return [name, str(await slow)]

        @handler
        async def arm(self, ctx: Context) -> str:
            async with asyncio.timeout(3600):
                await ctx.run("quick", self.world.act_at_once, "quick")
            sleeper = asyncio.create_task(asyncio.sleep(7200))
            await asyncio.sleep(0)
            sleeper.cancel()
            await ctx.sleep(60)
            return "disarmed"

    async def test_an_abandoned_callee_runs_on_and_its_answer_disturbs_nobody(
        self, world: World, suspend_after: float
    ) -> None:
        actors = (Counter, self.Hasty)
        async with Harness(*actors, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Hasty).call())
            await turns()
            await wait_a_little(app, 1)
            assert await call == "gave up"
            await wait_a_little(app, 20)
            keep_one_incarnation(app)
            assert await app.object(Counter, "a").peek() == 1

    async def test_an_abandoned_callee_ends_while_its_caller_sleeps(self, world: World, suspend_after: float) -> None:
        actors = (Counter, self.Hasty)
        async with Harness(*actors, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Hasty).call_and_stay())
            await turns()
            await wait_a_little(app, 30)
            keep_one_incarnation(app)
            await app.crash()
            await wait_a_little(app, 60)
            assert await call == "gave up"
            assert await app.object(Counter, "a").peek() == 1

    async def test_an_abandoned_action_is_cancelled_and_not_started_again(
        self, world: World, suspend_after: float
    ) -> None:
        async with Harness(self.Hasty, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Hasty).run())
            await turns()
            await wait_a_little(app, 1)
            assert world.cancelled == ["slow"]
            await app.crash()
            await wait_a_little(app, 60)
            assert await call == "gave up"
            assert world.started == ["slow"]

    async def test_select_and_shield_abandon_nothing(self, world: World, suspend_after: float) -> None:
        actors = (Counter, self.Hasty)
        async with Harness(*actors, dependencies={World: world}, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Hasty).keep())
            await app.advance(10)
            assert await call == ["fast, still waiting", "1"]

    async def test_a_timer_that_was_given_up_leaves_no_row(
        self, world: World, store: PuppetStore, suspend_after: float
    ) -> None:
        async with Harness(self.Hasty, dependencies={World: world}, store=store, suspend_after=suspend_after) as app:
            call = begin(app.service(self.Hasty).arm())
            await app.settle()
            assert store.timers_on_disk() == 1  # the sleep that it waits for
            dues = {timer.due - app.clock.now() for batch in store.commits for timer in batch.timers}
            assert 7_200_000_000 not in dues, "a timer that was set and given up in one step was written"
            await app.advance(60)
            assert await call == "disarmed"
            assert store.timers_on_disk() == 0


class TestC6:
    """Delayed sends are durable at once and join the mailbox when due, behind what is there, in order of acceptance."""

    class Diary(VirtualObject):
        lines: list[str] = state(default=[])

        @handler
        async def write(self, ctx: ObjectContext, line: str) -> None:
            self.lines.append(line)

        @handler
        async def write_slowly(self, ctx: ObjectContext, line: str) -> None:
            await ctx.sleep(10)
            self.lines.append(line)

        @shared
        async def read(self, ctx: SharedContext) -> list[str]:
            return self.lines

    async def test_a_delayed_message_survives_a_crash_and_comes_when_due(self, suspend_after: float) -> None:
        async with Harness(self.Diary, suspend_after=suspend_after) as app:
            diary = app.object(self.Diary, "d")
            sent = await diary.write.after(minutes=15).send("late")
            assert await sent.status() is InvocationStatus.SCHEDULED
            await app.crash()
            await app.advance(minutes=14)
            assert await diary.read() == []
            await app.advance(minutes=1)
            assert await diary.read() == ["late"]

    async def test_it_stands_behind_what_is_in_the_mailbox_when_it_is_due(self, suspend_after: float) -> None:
        async with Harness(self.Diary, suspend_after=suspend_after) as app:
            diary = app.object(self.Diary, "d")
            await diary.write.after(5).send("due at 5")
            await diary.write_slowly.send("first")
            await diary.write.send("second")
            await app.advance(6)
            await diary.write.send("third")
            await app.crash()
            await app.advance(10)
            assert await diary.read() == ["first", "second", "due at 5", "third"]

    async def test_equal_due_times_go_by_the_order_of_acceptance(self, suspend_after: float) -> None:
        async with Harness(self.Diary, suspend_after=suspend_after) as app:
            diary = app.object(self.Diary, "d")
            when = datetime(2026, 1, 1, 1, tzinfo=UTC)
            for line in ("one", "two", "three"):
                await diary.write.at(when).send(line)
            await app.crash()
            await app.advance(hours=1)
            assert await diary.read() == ["one", "two", "three"]

    async def test_a_moment_that_has_passed_is_now(self) -> None:
        async with Harness(self.Diary) as app:
            diary = app.object(self.Diary, "d")
            await diary.write.at(datetime(2001, 1, 1, tzinfo=UTC)).send("long ago")
            await app.settle()
            assert await diary.read() == ["long ago"]


class TestC7:
    """Idempotency: (target, handler, key); the first arguments win; a duplicate joins the first in any phase."""

    async def test_the_first_arguments_win_and_everybody_gets_the_first_outcome(self, suspend_after: float) -> None:
        async with Harness(Counter, suspend_after=suspend_after) as app:
            counter = app.object(Counter, "a")
            calls = [begin(counter.add_slowly.options(idempotency_key="k")(by)) for by in (5, 7)]
            await turns()
            sent = await counter.add_slowly.options(idempotency_key="k").send(100)
            await app.advance(10)
            assert [await call for call in calls] == [5, 5]
            assert await sent.result() == 5
            assert await counter.add_slowly.options(idempotency_key="k")(9) == 5
            assert await counter.add_slowly.options(idempotency_key="k").attach() == 5
            assert await counter.peek() == 5

    async def test_another_object_another_handler_or_another_key_is_another_request(self) -> None:
        async with Harness(Counter) as app:
            a, b = app.object(Counter, "a"), app.object(Counter, "b")
            assert await a.add.options(idempotency_key="k")(1) == 1
            assert await b.add.options(idempotency_key="k")(2) == 2
            assert await a.add.options(idempotency_key="other")(3) == 4
            slow = asyncio.create_task(a.add_slowly.options(idempotency_key="k")(4))
            await app.advance(10)
            assert await slow == 8

    async def test_a_duplicate_joins_across_a_crash_and_a_restart_of_the_runtime(self, suspend_after: float) -> None:
        store = PuppetStore()
        async with Harness(Counter, suspend_after=suspend_after, store=store) as app:
            sent = await app.object(Counter, "a").add_slowly.options(idempotency_key="k").send(5)
            await app.crash()
            again = await app.object(Counter, "a").add_slowly.options(idempotency_key="k").send(7)
            assert again.id == sent.id
        async with Harness(Counter, suspend_after=suspend_after, store=store) as app:
            call = begin(app.object(Counter, "a").add_slowly.options(idempotency_key="k")(9))
            await turns()
            await app.advance(10)
            assert await call == 5

    async def test_a_delayed_message_is_joined_by_its_duplicates(self, suspend_after: float) -> None:
        async with Harness(Counter, suspend_after=suspend_after) as app:
            counter = app.object(Counter, "a")
            first = await counter.add.options(idempotency_key="k").after(60).send(5)
            call = begin(counter.add.options(idempotency_key="k")(7))
            await app.settle()
            await app.crash()
            await app.advance(60)
            assert await call == 5
            assert await first.result() == 5

    async def test_a_handlers_duplicate_joins_too_and_its_handle_leads_to_the_first(self, suspend_after: float) -> None:
        class Sender(Service):
            @handler
            async def go(self, ctx: Context) -> list[int]:
                add = ctx.object(Counter, "a").add.options(idempotency_key="k")
                sent = await add.send(7)
                called = await add(9)
                return [await sent.result(), called, await add.attach()]

        async with Harness(Counter, Sender, suspend_after=suspend_after) as app:
            assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
            await app.settle()
            assert await app.service(Sender).go() == [5, 5, 5]
            assert await app.object(Counter, "a").peek() == 5

    @pytest.mark.parametrize("phase", ["in memory", "in the store", "scheduled", "unknown"])
    async def test_a_handlers_message_that_joins_gets_the_id_of_the_first(
        self, phase: str, suspend_after: float
    ) -> None:
        class Joiner(Service):
            @handler
            async def join(self, ctx: Context) -> tuple[list[str], int]:
                add = ctx.object(Counter, "a").add_slowly.options(idempotency_key="k")
                sent = await asyncio.gather(add.send(7), add.after(1).send(8))
                return [one.id for one in sent], await sent[0].result()

        async with Harness(Counter, Joiner, suspend_after=suspend_after) as app:
            add = app.object(Counter, "a").add_slowly.options(idempotency_key="k")
            match phase:
                case "unknown":
                    first_id = None
                case "scheduled":
                    first_id = (await add.after(60).send(5)).id
                case _:
                    first_id = (await add.send(5)).id
            if phase == "in the store":
                await app.advance(60)
                await app.crash()
            joined = begin(app.service(Joiner).join())
            await app.advance(120)
            ids, result = await joined
            assert len(set(ids)) == 1
            assert first_id is None or ids[0] == first_id
            assert result == (7 if first_id is None else 5)
            assert await app.invocation(ids[0], int).result() == result

    async def test_an_operation_that_was_handed_to_asyncio_is_not_forgotten(self) -> None:
        class Careful(Service):
            @handler
            async def hand_over(self, ctx: Context) -> str:
                handed = [
                    asyncio.ensure_future(ctx.object(Counter, "a").add(1)),
                    asyncio.shield(ctx.object(Counter, "a").add(2)),
                    asyncio.gather(ctx.object(Counter, "a").add(3)),
                    asyncio.create_task(ctx.object(Counter, "a").add(4)),
                ]
                await asyncio.sleep(0)
                return f"{len(handed)} under way"

        async with Harness(Counter, Careful) as app:
            call = begin(app.service(Careful).hand_over())
            await app.advance(1)
            assert await call == "4 under way"
            assert await app.state(Counter, "a") == {"count": 10}

    async def test_an_atomic_handlers_keyed_message_joins_the_first_whenever_it_is_sent_at_last(
        self, suspend_after: float
    ) -> None:
        class Atomic(VirtualObject):
            @handler(atomic=True)
            async def go(self, ctx: ObjectContext) -> str:
                await ctx.object(Counter, "a").add.options(idempotency_key="k").send(100)
                await ctx.sleep(1)
                return "sent"

        async with Harness(Counter, Atomic, suspend_after=suspend_after) as app:
            assert await app.object(Counter, "a").add.options(idempotency_key="k")(5) == 5
            await app.settle()
            call = begin(app.object(Atomic, "x").go())
            await turns()
            await wait_a_little(app, 1)
            keep_one_incarnation(app)
            assert await call == "sent"
            assert await app.object(Counter, "a").peek() == 5

    async def test_retention_counts_from_the_outcome_and_then_the_key_is_free(self, suspend_after: float) -> None:
        async with Harness(Counter, suspend_after=suspend_after) as app:
            counter = app.object(Counter, "a")
            first = await counter.add_slowly.options(idempotency_key="k").send(5)
            await app.advance(10)
            await app.advance(timedelta(days=1, seconds=-5))
            assert await counter.add_slowly.options(idempotency_key="k")(7) == 5
            await app.advance(10)
            await app.crash()  # The look for what has expired comes with the first look at the timers.
            await app.settle()
            with pytest.raises(UnknownTargetError):
                await first.result()
            again = begin(counter.add_slowly.options(idempotency_key="k")(7))
            await app.advance(10)
            assert await again == 12

    async def test_the_key_is_free_again_without_a_restart(self) -> None:
        async with Harness(Counter) as app:
            counter = app.object(Counter, "a")
            assert await counter.add.options(idempotency_key="k")(5) == 5
            await app.advance(days=3)
            assert await counter.add.options(idempotency_key="k")(7) == 12

    async def test_there_is_nothing_to_attach_to_before_the_first(self) -> None:
        async with Harness(Counter) as app:
            with pytest.raises(UnknownTargetError, match="idempotency key 'k'"):
                await app.object(Counter, "a").add.options(idempotency_key="k").attach()


class TestC8:
    """Limits refuse requests from outside, never messages between objects; long mailboxes are in the store."""

    class Flood(Service):
        @handler
        async def send(self, ctx: Context, count: int) -> None:
            for _ in range(count):
                await ctx.object(Counter, "a").add.send()

    async def test_a_full_mailbox_refuses_the_outside_and_takes_what_objects_send(self) -> None:
        app = tuned(Harness(Counter, self.Flood), mailbox_messages=3)
        async with app:
            counter = app.object(Counter, "a")
            await counter.add_slowly.send()
            for _ in range(3):
                await counter.add.send()
            with pytest.raises(OverloadedError) as refused:
                await counter.add.send()
            assert refused.value.retry_after is not None
            with pytest.raises(OverloadedError):
                await counter.add()
            await app.service(self.Flood).send(5)
            assert await app.object(Counter, "b").add() == 1
            await app.advance(10)
            assert await counter.peek() == 9

    async def test_a_request_that_repeats_another_is_answered_however_full_everything_is(self) -> None:
        async with tuned(Harness(Counter), mailbox_messages=3, waiting_messages=4) as app:
            counter = app.object(Counter, "a")
            await counter.add_slowly.send()
            first = await counter.add.options(idempotency_key="k").send()
            for _ in range(2):
                await counter.add.send()
            again = await counter.add.options(idempotency_key="k").send()
            assert again.id == first.id
            repeated = begin(counter.add.options(idempotency_key="k")())
            with pytest.raises(OverloadedError, match="3 messages waiting"):
                await counter.add.options(idempotency_key="new").send()
            with pytest.raises(OverloadedError, match="3 messages waiting"):
                await counter.add.options(idempotency_key="new")()
            await app.advance(10)
            assert await repeated == 2

    async def test_the_limit_counts_what_waits_in_the_store_too(self) -> None:
        app = tuned(Harness(Counter), mailbox_messages=5, pending_in_memory=2)
        async with app:
            counter = app.object(Counter, "a")
            await counter.add_slowly.send()
            for _ in range(5):
                await counter.add.send()
            with pytest.raises(OverloadedError):
                await counter.add.send()
            await app.advance(10)
            assert await counter.peek() == 6

    async def test_the_tail_of_a_long_mailbox_is_in_the_store_and_keeps_its_order(self, suspend_after: float) -> None:
        app = tuned(Harness(TestC6.Diary, suspend_after=suspend_after), pending_in_memory=2)
        async with app:
            diary = app.object(TestC6.Diary, "d")
            await diary.write_slowly.send("0")
            sent = [await diary.write.send(str(number)) for number in range(1, 12)]
            await app.advance(10)
            await sent[-1].result()
            assert await diary.read() == [str(number) for number in range(12)]

    async def test_a_crash_in_the_middle_of_a_long_mailbox_keeps_its_order(self, suspend_after: float) -> None:
        app = tuned(Harness(TestC6.Diary, suspend_after=suspend_after), pending_in_memory=2)
        async with app:
            diary = app.object(TestC6.Diary, "d")
            for number in range(7):
                await (diary.write_slowly if number % 2 else diary.write).send(str(number))
            await app.advance(10)
            await app.crash()
            await app.advance(30)
            assert await diary.read() == [str(number) for number in range(7)]

    async def test_a_shared_invocation_that_ends_while_the_tail_is_loaded_is_not_run_again(
        self, world: World, store: PuppetStore
    ) -> None:
        class Busy(VirtualObject):
            def __init__(self, world: World) -> None:
                self.world = world

            @handler
            async def work(self, ctx: ObjectContext, name: str) -> str:
                return await ctx.run(name, self.world.act, name)

            @shared
            async def look(self, ctx: SharedContext, name: str) -> str:
                return await ctx.run(name, self.world.act, name)

        app = tuned(Harness(Busy, dependencies={World: world}, store=store), pending_in_memory=1)
        async with app:
            busy = app.object(Busy, "b")
            look = begin(busy.look("look"))
            calls = [begin(busy.work(name)) for name in ("one", "two", "three")]
            await turns()
            store.loads.hold()
            world.end("one")
            world.end("two")
            await turns()
            assert store.loads.waiting == 1, "the tail of the mailbox is being loaded"
            world.end("look")
            await turns()
            assert await look == "look done"
            store.loads.release()
            world.end("three")
            await turns()
            keep_one_incarnation(app)
            assert [await call for call in calls] == ["one done", "two done", "three done"]
            assert world.started.count("look") == 1
            assert supervisor_of(app).incarnations == 1
