"""Constructors get values, what factories make in their scope, and references that call for the handler that runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import pytest

from durably import (
    ActivationKey,
    Caller,
    CallNext,
    Context,
    DefinitionError,
    Keyed,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Runtime,
    Service,
    VirtualObject,
    Workflow,
    WorkflowContext,
    WrongContextError,
    factory,
    handler,
    state,
)
from durably.storage.memory import MemoryStore
from durably.testing import Faults, Harness, Simulation, simulate
from durably.testing.replaying import export_journals, replay_journals
from durably.testing.replaying.checking import check_store
from durably.testing.replaying.stand_ins import stand_in_for
from tests.semantics.support import turns

LOG: list[str] = []
Dsn = Annotated[str, "dsn"]


@pytest.fixture(autouse=True)
def _fresh_log() -> None:
    LOG.clear()


def _of(what: str) -> list[str]:
    return [line for line in LOG if line.startswith(what)]


class Settings:
    url = "db"


class Database:
    def __init__(self, url: str) -> None:
        self.url = url


class Cache:
    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database


class Session:
    def __init__(self, database: Database, key: str) -> None:
        self.database = database
        self.key = key


async def open_database(settings: Settings) -> AsyncIterator[Database]:
    LOG.append("database up")
    await asyncio.sleep(0)
    yield Database(settings.url)
    await asyncio.sleep(0)
    LOG.append("database down")


async def make_cache(database: Database, settings: Settings) -> Cache:
    LOG.append("cache up")
    return Cache(database, settings)


def open_session(database: Database, key: ActivationKey) -> Iterator[Session]:
    LOG.append(f"session {key} up")
    yield Session(database, key)
    LOG.append(f"session {key} down")


GIVEN: Mapping[Any, Any] = {
    Settings: Settings(),
    Database: factory(open_database),
    Cache: factory(make_cache),
    Session: factory(open_session, scope="activation"),
}


class Shelf(VirtualObject):
    def __init__(self, session: Session, cache: Cache) -> None:
        self.session = session
        self.cache = cache

    count: int = state(default=0)

    @handler
    async def put(self, ctx: ObjectContext) -> str:
        self.count += 1
        return await ctx.run("put", lambda: f"{self.session.key} of {self.session.database.url}")

    @handler
    async def wait(self, ctx: ObjectContext) -> bool:
        await ctx.sleep(60)
        return self.session.database is self.cache.database


class Tagged:
    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        assert self.cache.database.url == "db"
        return await call_next()


async def test_factories_are_called_once_in_their_scope_and_torn_down_in_reverse() -> None:
    async with Harness(Shelf, dependencies=GIVEN, middleware=[Tagged]) as app:
        assert LOG == ["database up", "cache up"]
        assert await asyncio.gather(*(app.object(Shelf, key).put() for key in "aab")) == [
            "a of db", "a of db", "b of db"
        ]  # fmt: skip
        await app.object(Shelf, "c").put()
        assert LOG[2:] == ["session a up", "session b up", "session c up"]
    assert LOG[5:] == ["session c down", "session b down", "session a down", "database down"]


async def test_what_an_activation_has_is_torn_down_when_it_leaves_memory_and_made_again() -> None:
    async with Harness(Shelf, dependencies=GIVEN) as app:
        await app.object(Shelf, "a").put()
        await app.advance(600)  # It idles.
        assert _of("session") == ["session a up", "session a down"]
        await app.object(Shelf, "a").put()
        assert _of("session")[2:] == ["session a up"]
        await app.crash()
        await app.settle()
        assert _of("session")[3:] == ["session a down"]
        assert app.snapshots[Shelf, "a"].count == 2
    LOG.clear()
    async with Harness(Shelf, dependencies=GIVEN, nothing_resident=True) as app:
        task = asyncio.ensure_future(app.object(Shelf, "a").wait())
        await app.advance(61)
        assert await task
        assert LOG.count("session a up") == LOG.count("session a down") > 1


async def test_what_fails_to_be_set_up_is_tried_again_and_leaves_nothing_behind() -> None:
    tries = 0

    async def open_at_times(database: Database, key: ActivationKey) -> AsyncIterator[Session]:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no route")
        yield Session(database, key)

    class Guard:
        pass

    def guard() -> Iterator[Guard]:
        LOG.append("guard up")
        yield Guard()
        LOG.append("guard down")

    class Guarded(Shelf, name="Shelf"):
        def __init__(self, guard: Guard, session: Session, cache: Cache) -> None:
            super().__init__(session, cache)

    given = {
        **GIVEN, Guard: factory(guard, scope="activation"), Session: factory(open_at_times, scope="activation")
    }  # fmt: skip
    async with Harness(Guarded, dependencies=given, retry=RetryPolicy(initial=1)) as app:
        task = asyncio.ensure_future(app.object(Guarded, "a").put())
        await app.advance(30)
        assert await task == "a of db"
        assert _of("guard") == ["guard up", "guard down"] * 2 + ["guard up"]
    tries = 0
    async with Harness(Guarded, dependencies=given) as app:
        with pytest.raises(PausedInvocationError, match="no route") as paused:
            await app.object(Guarded, "a").put()
        notes = getattr(paused.value.__cause__, "__notes__", [])
        assert any("open_at_times" in note and "Session" in note for note in notes)


async def test_a_runtime_whose_dependencies_fail_does_not_start_and_tears_down_what_it_made() -> None:
    async def fails(database: Database, settings: Settings) -> Cache:
        raise OSError("no route")

    store = MemoryStore()
    runtime = Runtime(store, [Shelf], dependencies={**GIVEN, Cache: factory(fails)}, middleware=[Tagged])
    with pytest.raises(OSError, match="no route"):
        await runtime.__aenter__()
    assert LOG == ["database up", "database down"]
    async with Runtime(store, [Shelf], dependencies=GIVEN) as app:
        assert await app.object(Shelf, "a").put() == "a of db"


async def test_a_tear_down_that_fails_does_not_keep_the_others_from_being_torn_down() -> None:
    async def bad(database: Database, settings: Settings) -> AsyncIterator[Cache]:
        yield Cache(database, settings)
        raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):  # A harness tells it; a runtime writes it into the log.
        async with Harness(Shelf, dependencies={**GIVEN, Cache: factory(bad)}) as app:
            await app.object(Shelf, "a").put()
    assert LOG == ["database up", "session a up", "session a down", "database down"]


async def test_overrides_are_values_in_place_of_factories_which_then_are_not_called() -> None:
    fake = Session(Database("fake"), "any")
    async with Harness(Shelf, dependencies={**GIVEN, Session: fake}) as app:
        assert await app.object(Shelf, "a").put() == "any of fake"
    assert LOG == ["database up", "cache up", "database down"]


def test_each_simulated_process_has_its_own() -> None:
    made: list[Database] = []

    class Desk(VirtualObject):
        def __init__(self, database: Database) -> None:
            self.database = database

        count: int = state(default=0)

        @handler
        async def put(self, ctx: ObjectContext) -> int:
            await ctx.sleep(5)
            self.count += 1
            count = self.count
            return await ctx.run("put", lambda: count)

    def make() -> Database:
        made.append(Database("db"))
        return made[-1]

    async def program(sim: Simulation) -> None:
        before = len(made)
        for number in range(1, 4):
            assert await sim.object(Desk, "a").put() == number
        assert len(made) - before in (sim.lives - 1, sim.lives)

    simulate(program, Desk, runs=10, faults=Faults.crash(), dependencies={Database: factory(make)})


class Payments(Service, name="Payments", abstract=True):
    @handler
    async def charge(self, ctx: Context, amount: int) -> str:
        raise NotImplementedError


class Cards(Payments):
    @handler
    async def charge(self, ctx: Context, amount: int) -> str:
        return f"charged {amount}"


class Cart(VirtualObject):
    lines: list[str] = state(default_factory=list[str])

    @handler
    async def add(self, ctx: ObjectContext, line: str) -> int:
        self.lines.append(line)
        return len(self.lines)


class Errand(Workflow):
    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        return self.key


class Till:
    """Not an actor: it calls for the handler that uses it."""

    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    async def take(self, amount: int) -> str:
        return await self.payments.charge(amount)


class Checkout(Service):
    def __init__(self, till: Till, carts: Keyed[Cart], errands: Keyed[Errand], caller: Caller) -> None:
        self.till = till
        self.carts = carts
        self.errands = errands
        self.caller = caller

    @handler
    async def buy(self, ctx: Context) -> list[Any]:
        sent = await self.carts["mary"].add.send("tea")
        known = await self.caller.service(Cards).charge(2)
        return [await self.till.take(1), known, await self.carts["mary"].add("milk"), await self.errands["e"].run(),
                await sent.result()]  # fmt: skip

    @handler
    async def buy_in_an_action(self, ctx: Context) -> str:
        async def take() -> str:
            return await self.till.take(1)

        return await ctx.run("take", take)


PROXIED: Mapping[Any, Any] = {Till: factory(Till)}


@pytest.mark.parametrize("way", [{}, {"nothing_resident": True}])
async def test_services_objects_and_workflows_are_injected_as_typed_references(way: dict[str, Any]) -> None:
    async with Harness(Checkout, Cards, Cart, Errand, dependencies=PROXIED, **way) as app:
        assert await app.service(Checkout).buy() == ["charged 1", "charged 2", 2, "e", 1]
        with pytest.raises(PausedInvocationError, match="where no handler runs") as paused:
            await app.service(Checkout).buy_in_an_action()
        assert isinstance(paused.value.__cause__, WrongContextError)


class Needs:
    def __init__(self, other: Other) -> None: ...


class Other:
    def __init__(self, needs: Needs) -> None: ...


def _asking(annotation: Any) -> Any:
    class Asker(Service):
        def __init__(self, wanted: Any) -> None: ...

        @handler
        async def ask(self, ctx: Context) -> None: ...

    Asker.__init__.__annotations__["wanted"] = annotation
    return Asker


def _without_annotation(wanted: Database) -> Cache:
    return Cache(wanted, Settings())


del _without_annotation.__annotations__["wanted"]


def _needs_session(session: Session) -> Cache:
    return Cache(session.database, Settings())


MISTAKES: list[tuple[Any, Any, str]] = [
        (_asking(Database), {Settings: 1}, "asks for wanted: .*Database, and dependencies= has .*Settings"),
        (Cart, {Database: factory(open_database)}, "factory of Database, open_database, asks for settings: .*Settings"),
        (Cart, {Needs: factory(Needs), Other: factory(Other)}, "need each other.*Needs -> .*Other -> .*Needs"),
        (_asking(Session), GIVEN, "made for each activation, and is of a Service"),
        (Cart, {**GIVEN, Cache: factory(_needs_session)}, "made for each activation, and makes it for the runtime"),
        (_asking(Cart), {}, r"each of these has a key. Write wanted: Keyed\[.*Cart\]"),
        (_asking(Payments), {}, "called 'Payments' on the wire, and no class of this runtime answers"),
        (Cart, [Database], "takes a mapping from annotations"),
        (Cart, {ActivationKey: "a", Cache: factory(_without_annotation)}, "'wanted' of the factory.* no annotation"),
]  # fmt: skip


@pytest.mark.parametrize(("actor", "given", "sentence"), MISTAKES)
def test_what_cannot_be_found_is_a_sentence_when_the_runtime_is_made(actor: Any, given: Any, sentence: str) -> None:
    with pytest.raises(DefinitionError, match=sentence):
        Harness(actor, dependencies=given)


def test_middleware_lives_too_long_for_what_an_activation_has() -> None:
    class Sessioned:
        def __init__(self, session: Session) -> None: ...

        async def __call__(self, ctx: Context, call_next: CallNext) -> Any: ...

    with pytest.raises(DefinitionError, match="made for each activation, and is of middleware"):
        Harness(Shelf, dependencies=GIVEN, middleware=[Sessioned])


@pytest.mark.parametrize("given", [3, "a"])
def test_a_factory_is_a_function_or_a_class_with_a_scope(given: Any) -> None:
    with pytest.raises(DefinitionError, match="takes a function or a class"):
        factory(given)
    with pytest.raises(DefinitionError, match="a scope is 'runtime' or 'activation'"):
        factory(open_database, scope=given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Session, "the class .*Session"),
        (lambda: None, "the function .*"),
        (open_database, "the function open_database"),
    ],
)
def test_what_would_make_a_dependency_is_no_dependency(given: Any, said: str) -> None:
    with pytest.raises(DefinitionError, match=f"gives {said} for .*Session, and an instance is asked for.*factory"):
        Runtime("memory:", [], dependencies={Session: given})


async def test_context_managers_of_generators_are_entered_and_others_are_values() -> None:
    @contextlib.asynccontextmanager
    async def managed() -> AsyncGenerator[Database, None]:
        LOG.append("up")
        yield Database("managed")
        LOG.append("down")

    class Holder(VirtualObject):
        def __init__(self, database: Database, lock: asyncio.Lock, dsn: Dsn) -> None:
            self.database, self.lock, self.dsn = database, lock, dsn

        @handler
        async def look(self, ctx: ObjectContext) -> list[Any]:
            return [self.database.url, self.lock.locked(), self.dsn]

    given = {Database: factory(managed), asyncio.Lock: factory(asyncio.Lock), Dsn: factory(lambda: "dsn")}
    async with Harness(Holder, dependencies=given) as app:
        await turns(2)
        assert await app.object(Holder, "a").look() == ["managed", False, "dsn"]
    assert LOG == ["up", "down"]


async def test_a_replay_of_journals_and_a_check_call_no_factory(tmp_path: Path) -> None:
    store = MemoryStore()
    async with Harness(Shelf, dependencies=GIVEN, middleware=[Passing], store=store) as app:
        await app.object(Shelf, "a").wait.send()
        await app.settle()
        await export_journals(store, tmp_path)
        LOG.clear()
        assert replay_journals(tmp_path, Shelf, dependencies=GIVEN, middleware=[Passing]).steps == 1
        checked = Runtime(MemoryStore(), [Shelf], dependencies=GIVEN, middleware=[Passing])
        checked.use_stand_ins(stand_in_for)
        report = await check_store(store, checked.actors)
        assert report.journals == 1
        assert not report.problems
        assert LOG == []


class Passing:
    def __init__(self, cache: Cache) -> None: ...

    async def __call__(self, ctx: Context, call_next: CallNext) -> Any:
        return await call_next()
