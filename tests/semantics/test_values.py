"""Rules V: state and values."""

from __future__ import annotations

import asyncio
import math
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pydantic
import pytest

from durably import (
    Context,
    InvalidArgumentError,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedContext,
    TerminalError,
    UnencodableError,
    UnknownTargetError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.testing import Harness
from tests.semantics.support import PuppetStore, World, begin, turns, wait_a_little


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Item:
    name: str
    tags: list[str] = field(default_factory=lambda: list[str]())


class Odd:
    """Nobody knows how to encode it."""


class Bag(VirtualObject):
    items: list[Item] = state(default=[])
    colors: dict[int, Color] = state(default={})
    count: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext, item: Item) -> list[Item]:
        self.items.append(item)
        return self.items

    @handler
    async def put_and_sleep(self, ctx: ObjectContext, name: str) -> int:
        item = Item(name)
        self.items.append(item)
        await ctx.sleep(1)
        item.tags.append("slept")
        await ctx.sleep(1)
        self.items[-1].tags.append("twice")
        return len(self.items)

    @handler
    async def paint(self, ctx: ObjectContext, number: int, color: Color) -> dict[int, Color]:
        self.colors[number] = color
        return self.colors

    @shared
    async def look(self, ctx: SharedContext) -> list[Item]:
        return self.items

    @shared
    async def look_and_wait(self, ctx: SharedContext) -> int:
        mine = self.items
        before = len(mine)
        await ctx.sleep(1)
        return before

    @handler
    async def fail(self, ctx: ObjectContext, how: str) -> None:
        self.count += 1
        await ctx.sleep(1)
        self.count += 1
        raise TerminalError(how)

    @shared
    async def total(self, ctx: SharedContext) -> int:
        return self.count


class TestV1:
    """Values cross every border as bytes, live and in process too: what is live equals what replay will see."""

    class Values(Service):
        @handler
        async def plain(self, ctx: Context) -> list[str]:
            def loose() -> Any:
                return {1: ("a", (2, 3)), "x": {4: [5]}}

            live = await ctx.run("loose", loose)
            before = repr(live)
            await ctx.sleep(1)
            return [before, repr(live)]

        @handler
        async def typed(self, ctx: Context) -> list[str]:
            async def exact() -> tuple[int, tuple[str, ...], dict[int, Color], Item]:
                return (1, ("a", "b"), {3: Color.RED}, Item("x"))

            live = await ctx.run("exact", exact)
            before = repr(live)
            await ctx.sleep(1)
            return [before, repr(live)]

        @handler
        async def pair(self, ctx: Context, numbers: tuple[int, int], by: dict[int, str]) -> tuple[int, dict[int, str]]:
            assert type(numbers) is tuple
            assert set(map(type, by)) <= {int}
            return (sum(numbers), by)

        @handler
        async def call(self, ctx: Context) -> list[str]:
            got = await ctx.service(TestV1.Values).pair((1, 2), {3: "x"})
            before = repr(got)
            await ctx.sleep(1)
            return [before, repr(got)]

    @pytest.mark.parametrize("name", ["plain", "typed", "call"])
    async def test_tuples_and_integer_keys_are_the_same_live_and_replayed(
        self, name: str, suspend_after: float
    ) -> None:
        async with Harness(self.Values, suspend_after=suspend_after) as app:
            call = begin(getattr(app.service(self.Values), name)())
            await turns()
            await wait_a_little(app, 1)
            before, after = await call
            assert before == after
            if name == "typed":
                assert before == "(1, ('a', 'b'), {3: <Color.RED: 'red'>}, Item(name='x', tags=[]))"
            if name == "call":
                assert before == "(3, {3: 'x'})"

    async def test_an_argument_is_a_copy_and_so_is_a_result(self, suspend_after: float) -> None:
        async with Harness(Bag, suspend_after=suspend_after) as app:
            item = Item("a")
            call = begin(app.object(Bag, "b").put(item))
            item.tags.append("changed too late")
            items = await call
            assert items == [Item("a")]
            items[0].tags.append("changed outside")
            assert await app.object(Bag, "b").look() == [Item("a")]

    async def test_two_handlers_never_share_a_value(self, suspend_after: float) -> None:
        async with Harness(Bag, suspend_after=suspend_after) as app:
            bag = app.object(Bag, "b")
            looking = begin(bag.look_and_wait())
            await turns()
            await bag.put(Item("a"))
            await wait_a_little(app, 1)
            assert await looking == 0

    async def test_a_default_is_never_shared(self) -> None:
        async with Harness(Bag) as app:
            await app.object(Bag, "one").put(Item("a"))
            assert await app.object(Bag, "two").look() == []


class TestV2:
    """A field is encoded at the end of a step if it was written, or read and can change in place."""

    async def test_a_change_in_place_is_kept_whenever_it_is_made(self, suspend_after: float) -> None:
        async with Harness(Bag, suspend_after=suspend_after) as app:
            call = begin(app.object(Bag, "b").put_and_sleep("a"))
            await turns()
            await wait_a_little(app, 1)
            await app.crash()
            await wait_a_little(app, 1)
            assert await call == 1
            assert await app.object(Bag, "b").look() == [Item("a", ["slept", "twice"])]

    async def test_the_object_that_was_put_in_stays_the_object_in_the_field(self, suspend_after: float) -> None:
        class Keeper(VirtualObject):
            item: Item = state(default=Item("nothing"))

            @handler
            async def keep(self, ctx: ObjectContext) -> list[str]:
                mine = Item("mine")
                self.item = mine
                mine.tags.append("1")
                await ctx.sleep(1)
                mine.tags.append("2")
                assert self.item is mine
                await ctx.sleep(1)
                return self.item.tags

        async with Harness(Keeper, suspend_after=suspend_after) as app:
            call = begin(app.object(Keeper, "k").keep())
            await turns()
            await wait_a_little(app, 2)
            assert await call == ["1", "2"]
            assert await app.state(Keeper, "k") == {"item": Item("mine", ["1", "2"])}

    async def test_reading_what_cannot_change_writes_nothing(self, store: PuppetStore) -> None:
        class Reader(VirtualObject):
            number: int = state(default=1)
            names: list[str] = state(default=[])

            @handler
            async def read(self, ctx: ObjectContext) -> str:
                return f"{self.number}{self.names}"

        async with Harness(Reader, store=store) as app:
            await app.object(Reader, "r").read()
            await app.settle()
            assert [batch.state for batch in store.commits if batch.state] == []


class TestV3:
    """A shared handler sees the snapshot under the recorded changes of the exclusive invocation in flight."""

    class Job(VirtualObject):
        status: str = state(default="idle")

        @handler
        async def run(self, ctx: ObjectContext) -> None:
            for part in ("one", "two"):
                self.status = f"doing {part}"
                await ctx.sleep(10)
            self.status = "done"

        @handler(atomic=True)
        async def run_unseen(self, ctx: ObjectContext) -> None:
            self.status = "secret"
            await ctx.sleep(10)

        @shared
        async def look(self, ctx: SharedContext) -> str:
            return self.status

    async def test_it_sees_progress_whether_the_other_is_in_memory_or_suspended(self, suspend_after: float) -> None:
        async with Harness(self.Job, suspend_after=suspend_after) as app:
            job = app.object(self.Job, "j")
            running = begin(job.run())
            await turns()
            assert await job.look() == "doing one"
            await app.crash()
            assert await job.look() == "doing one"
            await app.advance(10)
            assert await job.look() == "doing two"
            assert await app.state(self.Job, "j") == {}
            await app.advance(10)
            assert await job.look() == "done"
            await running

    async def test_it_sees_nothing_of_an_atomic_one(self, suspend_after: float) -> None:
        async with Harness(self.Job, suspend_after=suspend_after) as app:
            job = app.object(self.Job, "j")
            running = begin(job.run_unseen())
            await turns()
            assert await job.look() == "idle"
            await app.advance(10)
            assert await job.look() == "secret"
            await running


class TestV4:
    """A journal is replayed on the state as its execution first saw it."""

    class Account(VirtualObject):
        balance: int = state(default=0)

        @handler
        async def double(self, ctx: ObjectContext) -> list[int]:
            before = self.balance
            self.balance *= 2
            await ctx.sleep(1)
            between = self.balance
            self.balance += 1
            await ctx.sleep(1)
            return [before, between, self.balance]

        @handler
        async def put(self, ctx: ObjectContext, amount: int) -> None:
            self.balance += amount

    async def test_its_own_changes_are_not_applied_twice(self, suspend_after: float) -> None:
        async with Harness(self.Account, suspend_after=suspend_after) as app:
            account = app.object(self.Account, "a")
            await account.put(5)
            call = begin(account.double())
            await turns()
            for _ in range(2):
                await app.crash()
                await app.advance(1)
            assert await call == [5, 10, 11]
            assert await app.state(self.Account, "a") == {"balance": 11}


class TestV5:
    """Outside input is decoded at admission, a misfit between objects is a 400; what cannot be encoded is named."""

    class Strict(VirtualObject):
        @handler
        async def add(self, ctx: ObjectContext, number: int) -> int:
            return number

        @handler
        async def unencodable_result(self, ctx: ObjectContext) -> Any:
            return object()

        @handler
        async def wrong_result(self, ctx: ObjectContext) -> int:
            return "text"  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

        @handler
        async def unencodable_argument(self, ctx: ObjectContext) -> str:
            try:
                await ctx.object(TestV5.Loose, "l").take(Odd())
            except UnencodableError as error:
                return str(error)
            return "it was taken"

    class Loose(VirtualObject):
        thing: Any = state(default=None)

        @handler
        async def take(self, ctx: ObjectContext, thing: Any) -> None:
            self.thing = thing

        @handler
        async def keep(self, ctx: ObjectContext) -> str:
            try:
                self.thing = Odd()
            except UnencodableError as error:
                return str(error)
            return "it was kept"

        @handler
        async def spoil(self, ctx: ObjectContext) -> None:
            self.thing = []
            self.thing.append(object())

    @pytest.mark.parametrize("body", [b'"five"', b"null", b"", b"{", b"[1]", b'{"numbr": 1}'])
    async def test_a_body_that_does_not_fit_is_refused_and_nothing_is_accepted(
        self, body: bytes, store: PuppetStore
    ) -> None:
        async with Harness(self.Strict, store=store) as app:
            with pytest.raises(InvalidArgumentError, match="number: int"):
                await app.call("Strict", "add", body, key="s")
            with pytest.raises(InvalidArgumentError):
                await app.send("Strict", "add", body, key="s", idempotency_key="k")
            await app.settle()
            assert store.commits == []

    async def test_a_wrong_value_in_process_is_refused_and_nothing_is_accepted(self, store: PuppetStore) -> None:
        async with Harness(self.Strict, store=store) as app:
            wrong: Any = "five"
            with pytest.raises((InvalidArgumentError, UnencodableError)):
                await app.object(self.Strict, "s").add(wrong)
            with pytest.raises((InvalidArgumentError, UnencodableError)):
                await app.object(self.Strict, "s").add.send(wrong)
            await app.settle()
            assert store.stored() == []

    async def test_between_objects_it_is_a_terminal_400_for_the_caller(self, suspend_after: float) -> None:
        class Caller(Service):
            @handler
            async def by_name(self, ctx: Context) -> str:
                try:
                    await ctx.call("Strict", "add", b'"five"', key="s")
                except InvalidArgumentError as error:
                    return f"{error.code}: {error}"
                return "it was accepted"

            @handler
            async def unknown(self, ctx: Context) -> str:
                try:
                    await ctx.call("Nobody", "add", b"1", key="s")
                except UnknownTargetError as error:
                    return f"{error.code}: {error}"
                return "it was accepted"

        async with Harness(self.Strict, Caller, suspend_after=suspend_after) as app:
            assert (await app.service(Caller).by_name()).startswith("400: ")
            said = await app.service(Caller).unknown()
            assert said.startswith("404: ")
            assert "Strict" in said

    @pytest.mark.parametrize("name", ["unencodable_result", "wrong_result"])
    async def test_a_result_that_cannot_be_encoded_pauses_and_is_named(self, name: str) -> None:
        async with Harness(self.Strict, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError, match=name) as told:
                await getattr(app.object(self.Strict, "s"), name)()
            assert isinstance(told.value.__cause__, UnencodableError)

    async def test_an_argument_that_cannot_be_encoded_raises_where_it_is_given(self) -> None:
        async with Harness(self.Strict, self.Loose) as app:
            with pytest.raises(UnencodableError, match="'thing'"):
                app.object(self.Loose, "l").take(object())  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
            assert "'thing'" in await app.object(self.Strict, "s").unencodable_argument()

    async def test_a_field_that_cannot_be_encoded_raises_in_the_handler(self) -> None:
        async with Harness(self.Loose) as app:
            assert "self.thing" in await app.object(self.Loose, "l").keep()

    async def test_a_field_that_was_spoilt_in_place_pauses_and_is_named(self) -> None:
        async with Harness(self.Loose, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError, match=r"self\.thing"):
                await app.object(self.Loose, "l").spoil()


class Price(pydantic.BaseModel):
    price: float
    extra: Any = None


class Ticket(pydantic.BaseModel):
    id: UUID = pydantic.Field(default_factory=uuid4)


@dataclass
class Plain:
    number: float | None = None


@dataclass
class Fancy(Plain):
    extra: str = ""


class RefusedPriceError(TerminalError):
    price: float | None

    def __init__(self, message: str = "", *, price: float | None = None) -> None:
        super().__init__(message)
        self.price = price


class Till(VirtualObject):
    prices: list[float] = state(default=[])
    plain: Plain = state(default=Plain())
    last: Price | None = state(default=None)
    anything: Any = state(default=None)

    @handler
    async def pay(self, ctx: ObjectContext, price: Price) -> Price:
        self.last = price
        self.anything = price.extra
        return price

    @handler
    async def keep(self, ctx: ObjectContext, by: dict[float, int], thing: Any = None) -> Any:
        self.anything = thing
        return thing

    @handler
    async def issue(self, ctx: ObjectContext, ticket: Ticket) -> list[UUID]:
        first = ticket.id
        await ctx.sleep(1)
        return [first, ticket.id]

    @handler
    async def measure(self, ctx: ObjectContext, what: str) -> str:
        async def listed() -> list[float]:
            return [1.0, math.nan]

        async def plain() -> Plain:
            return Fancy(1.0, "lost")

        async def untyped():  # type: ignore[no-untyped-def] # noqa: ANN202
            return {"a": [math.inf]}

        async def optional() -> float | None:
            return math.nan

        actions: dict[str, Any] = {"listed": listed, "plain": plain, "untyped": untyped, "optional": optional}
        try:
            await ctx.run(what, actions[what])
        except TerminalError as error:
            return str(error)
        return "it was journaled"

    @handler
    async def assign(self, ctx: ObjectContext, what: str) -> str:
        try:
            match what:
                case "list":
                    self.prices = [math.nan]
                case "optional":
                    self.plain = Plain(math.nan)
                case "derived":
                    self.plain = Fancy(1.0, "lost")
                case "by name":
                    ctx.set("anything", {1: "a", "1": "b"})
                case _:
                    self.anything = {1: "a", "1": "b"}
        except UnencodableError as error:
            return f"{error.path}: {error}"
        return "it was stored"

    @handler
    async def spoil(self, ctx: ObjectContext, what: str) -> None:
        if what == "prices":
            self.prices.append(math.nan)
        else:
            assert self.plain.number is None
            self.plain.number = math.nan

    @handler
    async def refuse(self, ctx: ObjectContext) -> None:
        raise RefusedPriceError("no", price=math.nan)


class TestV5EveryBorder:
    """What is stored can be read and is what was given; what cannot be is refused where it is given, by its path."""

    @pytest.mark.parametrize(
        ("what", "words"),
        [
            ("listed", r"'listed' cannot be journaled.*nan \(float\), at \$\[1\]"),
            ("plain", r"would be read as Plain\(number=1.0\).*Declare Fancy"),
            ("untyped", r"inf \(float\), at \$\.a\[0\]"),
            ("optional", r"nan \(float\)"),
        ],
    )
    async def test_the_result_of_a_run_is_a_terminal_error_in_the_handler(
        self, what: str, words: str, suspend_after: float
    ) -> None:
        async with Harness(Till, suspend_after=suspend_after) as app:
            assert re.search(words, await app.object(Till, "t").measure(what))

    @pytest.mark.parametrize(
        ("what", "path"),
        [("list", "$[0]"), ("optional", "$.number"), ("derived", "$"), ("by name", "$"), ("any", "$")],
    )
    async def test_a_field_raises_where_it_is_given(self, what: str, path: str) -> None:
        async with Harness(Till) as app:
            assert (await app.object(Till, "t").assign(what)).startswith(f"{path}: ")

    @pytest.mark.parametrize(("what", "words"), [("prices", r"self\.prices.*at \$\[0\]"), ("plain", r"at \$\.number")])
    async def test_a_field_that_is_spoilt_in_place_pauses_before_it_is_stored(self, what: str, words: str) -> None:
        async with Harness(Till, retry=RetryPolicy()) as app:
            with pytest.raises(PausedInvocationError, match=words):
                await app.object(Till, "t").spoil(what)
            assert await app.state(Till, "t") == {}

    @pytest.mark.parametrize(
        ("name", "body"),
        [
            ("pay", b'{"price": "NaN"}'),
            ("pay", b'{"price": "inf"}'),
            ("pay", b'{"price": 1, "extra": ' + b"[" * 300 + b"]" * 300 + b"}"),
            ("keep", b'{"by": {}, "thing": ' + b"[" * 300 + b"]" * 300 + b"}"),
            ("keep", b'{"by": {"1e999": 1}}'),
        ],
    )
    async def test_what_could_not_be_stored_is_not_accepted_and_blocks_nobody(
        self, name: str, body: bytes, store: PuppetStore
    ) -> None:
        async with Harness(Till, store=store) as app:
            for ask in (app.call, app.send):
                with pytest.raises(InvalidArgumentError, match=f"Handler '{name}'") as refused:
                    await ask("Till", name, body, key="t")
                assert refused.value.code == 400
            await app.settle()
            assert store.commits == []
            assert await app.object(Till, "t").pay(Price(price=1)) == Price(price=1)

    async def test_what_a_message_between_objects_could_not_store_is_a_400_for_the_caller(self) -> None:
        class Caller(Service):
            @handler
            async def ask(self, ctx: Context) -> str:
                try:
                    await ctx.call("Till", "pay", b'{"price": "NaN"}', key="t")
                except InvalidArgumentError as error:
                    return f"{error.code} {error.path}"
                return "it was accepted"

        async with Harness(Till, Caller) as app:
            assert await app.service(Caller).ask() == "400 $.price"

    async def test_a_default_that_is_drawn_is_the_same_after_a_restart(self) -> None:
        async with Harness(Till) as app:
            call = begin(app.call("Till", "issue", b"{}", key="t"))
            await turns()
            await app.crash()
            await app.advance(1)
            first, second = msgspec.json.decode(await call)
            assert first == second

    async def test_a_field_of_an_error_that_would_change_is_left_out_and_named(self) -> None:
        async with Harness(Till) as app:
            with pytest.raises(RefusedPriceError) as refused:
                await app.object(Till, "t").refuse()
            assert refused.value.metadata == {"lost_fields": "price"}


class TestV6:
    """Nobody sees an atomic handler's changes and sends before its outcome; failure drops them."""

    class Order(VirtualObject):
        status: str = state(default="new")

        def __init__(self, world: World) -> None:
            self.world = world

        @handler(atomic=True)
        async def place(self, ctx: ObjectContext, fail: bool) -> str:
            self.status = "placing"
            sent = await ctx.object(Bag, "sent").put.send(Item("sent"))
            await ctx.object(Bag, "delayed").put.after(5).send(Item("delayed"))
            await ctx.object(Bag, "called").put(Item("called"))
            await ctx.run("charge", self.world.act_at_once, "charge")
            await ctx.sleep(1)
            self.status = "placed"
            if fail:
                raise TerminalError("refused", code=409)
            return sent.id

        @handler(atomic=True)
        async def ask(self, ctx: ObjectContext, how: str) -> None:
            sent = await ctx.object(Bag, "sent").put.send(Item("sent"))
            await ctx.sleep(1)
            questions = {"result": sent.result, "output": sent.output, "status": sent.status}
            await questions[how]()

        @handler
        async def plainly(self, ctx: ObjectContext) -> None:
            self.status = "placing"
            await ctx.object(Bag, "sent").put.send(Item("sent"))
            raise TerminalError("refused")

    async def placed(self, app: Harness, *, fail: bool) -> str:
        call = begin(app.object(self.Order, "o").place(fail))
        await turns()
        assert len(await app.object(Bag, "called").look()) == 1
        assert await app.object(Bag, "sent").look() == []
        await app.crash()
        await app.advance(1)
        await asyncio.wait([call])
        await app.advance(5)
        counts = [len(await app.object(Bag, key).look()) for key in ("sent", "delayed", "called")]
        status = (await app.state(self.Order, "o")).get("status", "new")
        return f"{status} {counts} {call.exception()}"

    async def test_success_lets_everything_out(self, world: World, suspend_after: float) -> None:
        async with Harness(Bag, self.Order, dependencies={World: world}, suspend_after=suspend_after) as app:
            assert await self.placed(app, fail=False) == "placed [1, 1, 1] None"

    async def test_failure_drops_changes_and_messages_and_not_calls(self, world: World, suspend_after: float) -> None:
        async with Harness(Bag, self.Order, dependencies={World: world}, suspend_after=suspend_after) as app:
            assert await self.placed(app, fail=True) == "new [0, 0, 1] refused"
            assert world.started == ["charge"]

    async def test_a_plain_handler_keeps_what_it_did_before_it_failed(self, world: World, suspend_after: float) -> None:
        async with Harness(Bag, self.Order, dependencies={World: world}, suspend_after=suspend_after) as app:
            with pytest.raises(TerminalError, match="refused"):
                await app.object(self.Order, "o").plainly()
            await app.settle()
            assert await app.state(self.Order, "o") == {"status": "placing"}
            assert len(await app.object(Bag, "sent").look()) == 1

    @pytest.mark.parametrize("how", ["result", "output", "status"])
    async def test_asking_for_an_unsent_message_says_that_it_is_sent_with_the_outcome(
        self, world: World, suspend_after: float, how: str
    ) -> None:
        async with Harness(Bag, self.Order, dependencies={World: world}, suspend_after=suspend_after) as app:
            asking = begin(app.object(self.Order, "o").ask(how))
            await app.advance(seconds=2)
            with pytest.raises(UnknownTargetError, match="has not been sent: an atomic handler sends with its outcome"):
                await asking


def test_the_wire_forms_used_here_are_what_they_seem() -> None:
    assert msgspec.json.encode({3: Color.RED}) == b'{"3":"red"}'
