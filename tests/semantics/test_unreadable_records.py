"""Rule L5: one stored record that cannot be read stops what needs it, by name, and nothing else; mended, it goes on.

The law is tried on every kind of stored payload, in plain and encrypted: the bytes of one are changed at rest, and the
store is used by all that it holds.
"""

# pyright: reportPrivateUsage=false
# A harness that says nothing of pauses, and the store of a runtime, are looked at from inside.

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from durably import (
    Context,
    DurableList,
    DurablePromise,
    InvocationStatus,
    JsonSerde,
    ObjectContext,
    PausedInvocationError,
    RetryPolicy,
    Service,
    SharedWorkflowContext,
    UnreadableRecordError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)
from durably.codecs import AesGcmCodec, Codec
from durably.errors import DurablyError
from durably.ingress import Ingress
from durably.models import Machine, Model, TransitionContext, initial
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.memory import Disk, MemoryStore
from durably.storage.sqlite import SqliteStore
from durably.testing import Harness
from durably.testing.replaying.export import export_journals
from tests.levels import level
from tests.semantics.support import begin, keep_one_incarnation

HOUR = 3600
KEY = bytes(range(32))


async def itself(value: str) -> str:
    return value


class Box(VirtualObject):
    """Does everything that leaves a record."""

    items: list[str] = state(default_factory=list)
    shelf: DurableList[str] = state()

    @handler
    async def add(self, ctx: ObjectContext, item: str) -> list[str]:
        self.items.append(item)
        return self.items

    @shared
    async def look(self, ctx: Context) -> list[str]:
        return self.items

    @handler
    async def put(self, ctx: ObjectContext, item: str) -> None:
        self.shelf.append(item)

    @handler
    async def first(self, ctx: ObjectContext) -> str:
        return await self.shelf.get(0)

    @shared
    async def shelved(self, ctx: Context) -> list[str]:
        return await self.shelf.range()

    @handler
    async def slow(self, ctx: ObjectContext, item: str, seconds: int = HOUR) -> list[str]:
        first = await ctx.run("first", itself, item)
        await ctx.sleep(seconds)
        self.items.append(first + await ctx.run("second", itself, ctx.request.headers.get("x-own", "")))
        return self.items

    @handler
    async def wait(self, ctx: ObjectContext) -> str:
        await ctx.sleep(HOUR)
        return await ctx.signal("go", str)

    @handler(timeout=60)
    async def clean_up(self, ctx: ObjectContext) -> None:
        try:
            await ctx.sleep(9 * HOUR)
        except asyncio.CancelledError:
            await ctx.sleep(HOUR)
            self.items.append("clean")

    @handler(retry=RetryPolicy(initial=HOUR, maximum=HOUR))
    async def flaky(self, ctx: ObjectContext) -> int:
        if ctx.request.attempt == 1:
            raise OSError("not yet")
        return ctx.request.attempt


class Flow(Workflow):
    approved: DurablePromise[str] = promise()

    @handler
    async def run(self, ctx: WorkflowContext) -> str:
        await ctx.sleep(HOUR)
        return await self.approved

    @shared
    async def approve(self, ctx: SharedWorkflowContext, word: str) -> None:
        await self.approved.resolve(word)


class Asker(Service):
    @handler
    async def ask(self, ctx: Context, id: str) -> Any:
        return await ctx.invocation(id, JsonSerde[Any]()).result()

    @handler
    async def join(self, ctx: Context) -> Any:
        return await ctx.object(Box, "keyed").add.options(idempotency_key="k")("again")


class Paper(Model):
    text: str


class Written(Paper):
    pass


class Papers(Machine[Paper]):
    @initial
    async def write(self, ctx: TransitionContext, text: str) -> Written:
        return Written(text=text)


PAPER = "paper_1"
ACTORS = (Box, Flow, Asker, Papers)
Ids = dict[str, str]
Probe = Callable[[Harness, Ids], Awaitable[Any]]


async def fill(app: Harness) -> Ids:
    """Leave records of every kind."""
    await app.object(Box, "state").add("a")
    await app.object(Box, "keyed").add.options(idempotency_key="k")("a")
    await app.object(Box, "shelf").put("an entry")
    await app.call("Papers", "write", key=PAPER, argument={"text": "w"})
    sends = {
        "slow": app.object(Box, "slow").slow.options(headers={"x-own": "own"}).send("s"),
        "held": app.object(Box, "held").slow.send("s"),
        "queued": app.object(Box, "held").add.send("q"),
        "scheduled": app.object(Box, "scheduled").add.after(hours=1).send("later"),
        "signal": app.object(Box, "signal").wait.send(),
        "deadline": app.object(Box, "deadline").clean_up.send(),
        "flaky": app.object(Box, "flaky").flaky.send(),
        "paused": app.object(Box, "paused").slow.send("p", 60),
        "flow": app.workflow(Flow, "flow").run.send(),
    }
    ids = {name: (await sent).id for name, sent in sends.items()}
    await app.settle()
    await app.pause(ids["paused"])
    await app.invocation(ids["signal"], str).signal("go", "went")
    await app.workflow(Flow, "flow").approve("yes")
    await app.advance(minutes=2)  # What is paused gets an answer that no step takes in.
    async for one in app.invocations(target="Box/keyed"):
        ids["keyed"] = one.id
    return ids


async def settled(awaitable: Awaitable[Any]) -> Any:
    """What comes of it: a value, or the text of a refusal."""
    try:
        return await awaitable
    except DurablyError as error:
        return f"refused: {error}"


def outcome_of(name: str) -> Probe:
    return lambda app, ids: app.invocation(ids[name], JsonSerde[Any]()).result()


def items_of(key: str) -> Probe:
    return lambda app, _: app.object(Box, key).look()


SENT = ("slow", "held", "queued", "scheduled", "signal", "deadline", "flaky", "paused", "flow")
PROBES: dict[str, Probe] = {
    "state": lambda app, _: app.object(Box, "state").add("b"),
    "look": items_of("state"),
    "first": lambda app, _: app.object(Box, "shelf").first(),
    "shelved": lambda app, _: app.object(Box, "shelf").shelved(),
    "keyed": lambda app, _: app.object(Box, "keyed").add.options(idempotency_key="k")("other"),
    "items": items_of("keyed"),
    "attach": outcome_of("keyed"),
    "ask": lambda app, ids: app.service(Asker).ask(ids["keyed"]),
    "join": lambda app, _: app.service(Asker).join(),
    "paper": lambda app, _: app.machine(Papers).find_one(Paper, id=PAPER),
    "history": lambda app, _: app.machine(Papers).get_object_transitions(PAPER),
    **{name: outcome_of(name) for name in SENT},
}
AFTERWARDS: dict[str, Probe] = {
    **{name: PROBES[name] for name in ("keyed", "attach", *SENT)},
    **{f"items of {key}": items_of(key) for key in ("state", "keyed", "slow", "held", "scheduled", "deadline")},
}
CONCERNED = {
    "state": {"state", "look"},
    "keyed": {"keyed", "items", "attach", "ask", "join"},
    "held": {"held", "queued"},
    "shelf": {"first", "shelved"},
    PAPER: {"paper", "history"},
}
"""Who hears of a damaged record, by the key of its object; of all others it is the one of that name."""


def store_at(path: Path, codec: Codec | None) -> InspectableStore:
    plain = SqliteStore(path)
    return plain if codec is None else EncodedStore(plain, codec)


class Forbearing(Harness):
    """Lets invocations be paused of which nobody outside hears."""

    def _raise_unheard(self) -> None:
        self._ledger.unheard.clear()


@asynccontextmanager
async def running(path: Path, codec: Codec | None) -> AsyncGenerator[Harness]:
    async with Forbearing(*ACTORS, store=store_at(path, codec), suspend_after=0) as app:
        yield app
        keep_one_incarnation(app)


async def probe_all(app: Harness, ids: Ids) -> dict[str, Any]:
    await app.resume(ids["paused"])
    asked = {name: begin(settled(probe(app, ids))) for name, probe in PROBES.items()}
    await app.advance(hours=5)
    return {name: await one for name, one in asked.items()}


async def finish_all(app: Harness, ids: Ids) -> dict[str, Any]:
    async for one in app.invocations(status=InvocationStatus.PAUSED):
        await app.resume(one.id)
    await app.advance(hours=5)
    return {name: await settled(probe(app, ids)) for name, probe in AFTERWARDS.items()}


@dataclass(frozen=True)
class Place:
    """Where a payload is kept."""

    table: str
    column: str
    row: int
    key: str

    def read(self, file: sqlite3.Connection) -> object:
        return file.execute(f"select {self.column} from {self.table} where rowid = ?", [self.row]).fetchone()[0]

    def write(self, file: sqlite3.Connection, value: object, *, as_text: bool = False) -> None:
        """`as_text`: bytes that may be no text at all."""
        typed = "cast(? as text)" if as_text else "?"
        file.execute(f"update {self.table} set {self.column} = {typed} where rowid = ?", [value, self.row])
        file.commit()

    def held(self, file: sqlite3.Connection) -> object:
        """What tells whether it was written anew, without reading what may be no text."""
        found = file.execute(f"select hex({self.column}) from {self.table} where rowid = ?", [self.row]).fetchone()
        return None if found is None else found[0]


TEXT_COLUMNS = ("argument", "headers")


def payload_columns(file: sqlite3.Connection) -> list[tuple[str, str]]:
    names = [name for (name,) in file.execute("select name from sqlite_schema where type = 'table'")]
    tables = [name for name in names if not name.startswith("model_")]  # What they say is in the state.
    return [
        (table, column)
        for table in tables
        for _, column, kind, *_ in file.execute(f"pragma table_info({table})").fetchall()
        if kind in ("ANY", "BLOB") or column in TEXT_COLUMNS
    ]


def places(path: Path) -> list[Place]:
    """Every payload of a store."""
    with closing(sqlite3.connect(path)) as file:
        keys = dict(file.execute("select number, key from invocations").fetchall())
        found: list[Place] = []
        for table, column in payload_columns(file):
            owner = "key" if table in ("state", "entries", "promises", "invocations", "events") else "number"
            rows = file.execute(
                f"select rowid, {owner} from {table} where {column} is not null and {column} <> '{{}}'"
            ).fetchall()
            found += [Place(table, column, row, keys.get(it, it)) for row, it in rows if it != "durably"]
        return found


@dataclass(frozen=True)
class Filled:
    """A store with records of every kind, and what comes of them if nothing is damaged."""

    path: Path
    codec: Codec | None
    ids: Ids
    probed: dict[str, Any]
    finished: dict[str, Any]


async def filled(path: Path, codec: Codec | None) -> Filled:
    async with running(path, codec) as app:
        ids = await fill(app)
    used = Path(shutil.copy(path, path.with_suffix(".used")))
    async with running(used, codec) as app:
        probed = await probe_all(app, ids)
    async with running(used, codec) as app:
        finished = await finish_all(app, ids)
    return Filled(path, codec, ids, probed, finished)


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Filled:
    codec = AesGcmCodec(KEY) if request.param == "encrypted" else None
    return asyncio.run(filled(tmp_path_factory.mktemp("filled") / "app.db", codec))


def test_the_store_has_payloads_of_every_kind(store: Filled) -> None:
    with closing(sqlite3.connect(store.path)) as file:
        every = set(payload_columns(file)) - {("arguments", "content")}  # Those are large.
    assert {(place.table, place.column) for place in places(store.path)} == every
    assert [name for name, told in store.probed.items() if str(told).startswith("refused")] == ["deadline"]
    assert store.finished["flow"] == "yes"
    assert store.finished["slow"] == ["sown"]
    assert store.finished["flaky"] == 2


Damage = Callable[[str], tuple[object, bool]]
DAMAGES: dict[str, Damage] = {
    "cut": lambda kept: (kept[: len(kept) // 2], False),
    "not UTF-8": lambda kept: (kept[:-2].encode() + b"\xff\xfe" + kept[-2:].encode(), True),
    "no base64": lambda kept: ("base64:" + kept.removeprefix("base64:")[:-3] + "!", False),
    "nothing": lambda _: ("", False),
}
SOME_CAN_BE_READ = {("outcome", "cut"), ("completions", "cut"), ("completions", "nothing")}
"""What is left of a plain value, by column and damage, may be one too; nothing can tell."""


def names_it(place: Place, told: str) -> bool:
    """A refusal says what cannot be read, and of what."""
    return "cannot be read" in told and f"/{place.key}" in told


async def damaged_and_mended(store: Filled, path: Path, place: Place, damage: str) -> None:
    shutil.copy(store.path, path)
    with closing(sqlite3.connect(path)) as file:
        kept = place.read(file)
        value, as_text = DAMAGES[damage](str(kept))
        place.write(file, value, as_text=as_text)
        damaged = place.held(file)
    async with running(path, store.codec) as app:
        await export_journals(store_of(app), path.with_suffix(".journals"))
        probed = await probe_all(app, store.ids)
    case = (place, damage, probed)
    differing = {name for name, told in probed.items() if told != store.probed[name]}
    assert differing <= CONCERNED.get(place.key, {place.key}), case
    if store.codec is not None:
        assert all(names_it(place, probed[name]) for name in differing), case
        is_needed = place.column not in ("failure", "argument", "headers") or place.key != "keyed"
        assert differing or place.column == "failure" or not is_needed or place.key == "deadline", case
    elif place.column == "outcome" or (place.table, damage) in SOME_CAN_BE_READ or place.table == "signals":
        return
    with closing(sqlite3.connect(path)) as file:
        if place.column != "failure":
            assert place.held(file) == damaged, f"the damaged record was overwritten: {case}"
            place.write(file, kept)
    async with running(path, store.codec) as app:
        assert await finish_all(app, store.ids) == store.finished, case


def store_of(app: Harness) -> InspectableStore:
    return app._store


@pytest.mark.parametrize(
    "column",
    [
        "argument",
        "headers",
        "failure",
        "outcome",
        "steps",
        "completions",
        "signals",
        "promises",
        "state",
        "entries",
        "events",
    ],
)
def test_a_damaged_record_concerns_its_own_object_only_and_mended_it_goes_on(
    store: Filled, tmp_path: Path, column: str
) -> None:
    random = Random(f"{column} {store.codec}"[:20])
    found = [place for place in places(store.path) if column in (place.table, place.column)]
    assert found
    cases = [(place, damage) for place in found for damage in DAMAGES]
    for number, (place, damage) in enumerate(random.sample(cases, min(len(cases), 12 if level().with_slow else 1))):
        asyncio.run(damaged_and_mended(store, tmp_path / f"{number}.db", place, damage))


class Vault:
    """A codec whose key is gone for some values, until it is given back."""

    def __init__(self) -> None:
        self.lost: bytes | None = None

    def encode(self, data: bytes, /) -> bytes:
        return data

    def decode(self, data: bytes, /) -> bytes:
        if self.lost is not None and self.lost in data:
            raise LookupError("The key is gone.")
        return data


@pytest.mark.parametrize(
    ("lost", "part"),
    [
        (b'"s"', "The argument of Box/slow/slow"),
        (b'"first"', "Step 0 of Box/slow/slow"),
        (b"own", "The headers of Box/slow/slow"),
        (b"old", "The field 'items' of Box/slow"),
    ],
)
async def test_a_key_that_is_given_back_while_the_runtime_runs_lets_a_resume_go_on(lost: bytes, part: str) -> None:
    vault, disk = Vault(), Disk()
    async with Harness(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        await app.object(Box, "slow").add("old")
        sent = await app.object(Box, "slow").slow.options(headers={"x-own": "own"}).send("s")
        await app.settle()
    vault.lost = lost
    async with Forbearing(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        waiting = begin(app.invocation(sent.id, list[str]).result())
        await app.advance(hours=1)
        with pytest.raises(
            PausedInvocationError, match=rf"{part}.* cannot be read: .*The key is gone.*resume"
        ) as paused:
            await waiting
        assert isinstance(paused.value.__cause__, UnreadableRecordError)
        queued = begin(settled(app.object(Box, "slow").add("new")))
        await app.settle()
        assert "The key is gone" in await queued
        assert await app.object(Box, "other").add("x") == ["x"]
        again = begin(settled(app.resume(sent.id)))
        await app.settle()
        assert await again == [sent.id]
        with pytest.raises(PausedInvocationError, match="The key is gone"):  # As long as it is not there.
            await app.invocation(sent.id, list[str]).result()
        vault.lost = None
        await app.resume(sent.id)
        await app.advance(hours=1)
        assert await app.invocation(sent.id, list[str]).result() == ["old", "sown"]
        assert await app.object(Box, "slow").look() == ["old", "sown", "new"]
        keep_one_incarnation(app)


async def test_over_http_a_damaged_record_is_named_and_others_are_served() -> None:
    vault, disk = Vault(), Disk()
    async with Harness(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        await app.object(Box, "keyed").add.options(idempotency_key="k")("kept")
        await app.object(Box, "state").add("old")
    vault.lost = b"kept"
    async with Forbearing(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        transport = httpx.ASGITransport(app=Ingress(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://durably") as client:
            key = {"idempotency-key": "k"}
            outcome = await client.post("/Box/keyed/add", json="kept", headers=key)
            state = await client.post("/Box/keyed/add", json="more")
            shared = await client.post("/Box/keyed/look")
            other = await client.post("/Box/state/add", json="new")
            assert (other.status_code, other.json()) == (200, ["old", "new"])
            told = [(one.status_code, one.json()["message"]) for one in (outcome, state, shared)]
            assert [status for status, _ in told] == [500, 503, 500]
            assert "The outcome of Box/keyed/add" in told[0][1]
            assert all("The field 'items' of Box/keyed cannot be read" in message for _, message in told[1:])
            vault.lost = None
            assert (await client.post("/Box/keyed/add", json="kept", headers=key)).json() == ["kept"]
        keep_one_incarnation(app)


async def test_an_invocation_that_cannot_be_read_can_be_killed_and_its_object_goes_on() -> None:
    vault, disk = Vault(), Disk()
    async with Harness(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        sent = await app.object(Box, "slow").slow.send("s")
        await app.settle()
    vault.lost = b'"first"'
    async with Forbearing(*ACTORS, store=EncodedStore(MemoryStore(disk), vault)) as app:
        await app.advance(hours=1)
        await app.kill(sent.id)
        assert await app.object(Box, "slow").add("x") == ["x"]
        await app.object(Box, "keyed").add.options(idempotency_key="k")("a")
        vault.lost = b'"a"'
        (kept,) = [one async for one in app.invocations(target="Box/keyed")]
        with pytest.raises(UnreadableRecordError, match="The argument of Box/keyed"):
            await app.restart_as_new(kept.id)
        keep_one_incarnation(app)
