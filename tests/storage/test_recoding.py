"""`recode`: the values of a store written anew are what they were, all at once, and nothing of the old ones is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import stat
from contextlib import closing
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from durably import ObjectContext, Runtime, StoreInUseError, StoreUnavailableError, VirtualObject, handler, state
from durably.codecs import AcceptPlain, AesGcmCodec, Codec, CodecChain, CompressionCodec
from durably.storage.encoded import EncodedStore
from durably.storage.introspection import InspectableStore
from durably.storage.migrations import migrate
from durably.storage.recoding import FRESH_SUFFIX, HEADERS, TABLES, TEXT_PAYLOADS, Recoded, Stage, recode
from durably.storage.records import Opened, Owner
from durably.storage.sqlite import SqliteStore
from durably.storage.wrapping import WrappedStore
from durably.testing.stores.contract import StoreContract
from tests.levels import level
from tests.storage.samples import OWNER

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
SECRET = "the-secret-of-mary"


def test_every_table_of_the_layout_is_copied() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, "a new one")
        tables = connection.execute("select name from sqlite_schema where type = 'table'").fetchall()
        assert {name for (name,) in tables} == set(TABLES)
        text_payloads = {
            (table, column)
            for table in TABLES
            for _, column, kind, *_ in connection.execute(f"pragma table_info({table})")
            if kind == "TEXT" and column in ("argument", "headers", "content", "value", "outcome", "failure")
        }
    assert text_payloads == {HEADERS, *TEXT_PAYLOADS}


def unheard(stage: Stage, done: int, total: int) -> None:
    assert 0 <= done <= total


def recoded(path: Path, old: Codec | None, new: Codec | None, progressed: Any = unheard) -> Recoded:
    return recode(path, owner=OWNER, old=old, new=new, progressed=progressed)


def store_at(path: Path, codec: Codec | None) -> InspectableStore:
    plain = SqliteStore(path)
    return plain if codec is None else EncodedStore(plain, codec)


CODECS: list[Codec | None] = [
    None,
    AesGcmCodec({"old": KEY}),
    CodecChain(CompressionCodec(threshold_bytes=8), AesGcmCodec({"new": OTHER_KEY})),
    CompressionCodec(threshold_bytes=0),
]


class RecodedStore(WrappedStore):
    """A store that is written anew with another codec each time that it is opened after a close."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._codecs = cycle(CODECS)
        self._codec = next(self._codecs)
        self._is_closed = False
        super().__init__(store_at(path, self._codec))

    @override
    async def open(self, owner: Owner, /) -> Opened:
        if self._is_closed:
            self._is_closed = False
            old, self._codec = self._codec, next(self._codecs)
            recoded(self.path, old, self._codec)
            self.inner = store_at(self.path, self._codec)
        return await super().open(owner)

    @override
    async def close(self) -> None:
        await super().close()
        self._is_closed = True


class TestRecodedStore(StoreContract):
    """Whatever a store holds, it holds after it was written anew: in plain, encrypted, with other keys, compressed."""

    examples = level().examples // 12
    keeps_values_as_given = False

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    @override
    def make_store(self) -> InspectableStore:
        return RecodedStore(next(self.paths))

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        assert isinstance(store, RecodedStore)
        store.path.with_name(store.path.name + ".lock").unlink()
        return store_at(store.path, store._codec)  # pyright: ignore[reportPrivateUsage] - The same one.


class Diary(VirtualObject):
    lines: list[str] = state(default_factory=list)

    @handler
    async def write(self, ctx: ObjectContext, line: str) -> list[str]:
        self.lines.append(line)
        return self.lines

    @handler
    async def forget(self, ctx: ObjectContext) -> None:
        del self.lines

    @handler
    async def wait(self, ctx: ObjectContext, line: str) -> None:
        await ctx.sleep(hours=1)


def runtime(path: Path, codec: Codec | None) -> Runtime:
    return Runtime(f"sqlite:///{path}", [Diary], codec=codec)


async def fill(path: Path, codec: Codec | None) -> None:
    """Values of many sizes and kinds, many of which are deleted again, so that free pages hold them too."""
    async with runtime(path, codec) as app:
        for number in range(12):
            diary = app.object(Diary, f"{number}")
            await diary.write.options(idempotency_key="k", headers={"x-own": SECRET})(
                f"{SECRET} {'x' * number * 2_500}"
            )
            if number % 2:
                await diary.forget()
        await app.object(Diary, "waiting").wait.send(SECRET)


def files_of(folder: Path) -> bytes:
    return b"".join(one.read_bytes() for one in sorted(folder.iterdir()) if one.is_file())


async def holds_all(path: Path, codec: Codec | None) -> None:
    async with runtime(path, codec) as app:
        for number in range(12):
            line = f"{SECRET} {'x' * number * 2_500}"
            diary = app.object(Diary, f"{number}")
            assert await diary.write.options(idempotency_key="k").attach() == [line]
            assert await diary.write("y") == (["y"] if number % 2 else [line, "y"])


async def test_nothing_of_the_old_values_is_left_in_file_log_and_backup(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await fill(path, None)
    assert SECRET.encode() in files_of(tmp_path)
    told = recoded(path, None, AesGcmCodec(KEY))
    assert told.values > 40
    assert SECRET.encode() not in files_of(tmp_path)
    assert {one.name for one in tmp_path.iterdir()} == {"app.db", "app.db.lock"}
    async with runtime(path, AesGcmCodec(KEY)) as app:
        assert await app.object(Diary, "0").write.options(idempotency_key="k").attach() == [f"{SECRET} "]
        await app.object(Diary, "fresh").write(SECRET)
        live = shutil.copytree(tmp_path, tmp_path.with_name("live"))  # With its write-ahead log.
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "backup.db")) as backup:
            source.backup(backup)
    assert SECRET.encode() not in files_of(live)
    assert SECRET.encode() not in files_of(tmp_path)
    await holds_all(path, AesGcmCodec(KEY))
    recoded(path, AesGcmCodec(KEY), None)
    await_plain = files_of(tmp_path)
    assert SECRET.encode() in await_plain


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # The child makes no thread.
@pytest.mark.parametrize("stage", [*Stage])
async def test_whenever_it_is_killed_the_store_is_the_old_one_or_the_new_one(tmp_path: Path, stage: Stage) -> None:
    path, codec = tmp_path / "app.db", AesGcmCodec(KEY)
    await fill(path, None)

    def killed(at: Stage, done: int, total: int) -> None:
        if at is stage and done:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        recoded(path, None, codec, killed)
        os._exit(1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.WIFSIGNALED(status)
    fresh = path.with_name(path.name + FRESH_SUFFIX)
    assert fresh.exists() is (stage is not Stage.REPLACING)
    assert not fresh.exists() or SECRET.encode() not in fresh.read_bytes()
    before = codec if stage is Stage.REPLACING else None
    kept = Path(shutil.copy(path, tmp_path.with_name("kept.db")))
    await holds_all(kept, before)
    recoded(path, before, codec)
    assert SECRET.encode() not in files_of(tmp_path)
    assert not fresh.exists()
    await holds_all(path, codec)


async def test_a_store_in_use_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await fill(path, None)
    async with runtime(path, None):
        with pytest.raises(StoreInUseError, match="is in use by process"):
            recoded(path, None, AesGcmCodec(KEY))
    with closing(sqlite3.connect(path)) as other:
        other.execute("begin immediate")
        with pytest.raises(StoreInUseError, match="in use by another program"):
            recoded(path, None, AesGcmCodec(KEY))
    await holds_all(path, None)


async def test_a_wrong_codec_is_refused_and_the_store_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await fill(path, AesGcmCodec(KEY))
    for old, sentence in ((None, "Name the one that reads it"), (AesGcmCodec(OTHER_KEY), "cannot read the store")):
        with pytest.raises(StoreUnavailableError, match=sentence):
            recoded(path, old, None)
    await holds_all(path, AesGcmCodec(KEY))


async def test_a_value_that_cannot_be_read_is_named_and_the_store_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await fill(path, AesGcmCodec(KEY))
    with closing(sqlite3.connect(path)) as file:
        file.execute("update state set value = 'base64:!' where key = '8'")
        file.commit()
    with pytest.raises(StoreUnavailableError, match="state Diary/8/lines: It is damaged"):
        recoded(path, AesGcmCodec(KEY), None)
    async with runtime(path, AesGcmCodec(KEY)) as app:
        assert len(await app.object(Diary, "6").write("y")) == 2
    assert not path.with_name(path.name + FRESH_SUFFIX).exists()


class Forgetful:
    """Loses the last byte, and refuses some values, or gives no bytes for them."""

    def __init__(self, *, remembered: bytes = b"", refused: bytes = b"no such value", gives: Any = None) -> None:
        self._remembered = remembered
        self._refused = refused
        self._gives = gives

    def encode(self, data: bytes, /) -> Any:
        if self._refused in data:
            if self._gives is not None:
                return self._gives
            raise KeyError("refused")
        return data if data == self._remembered else data[:-1]

    def decode(self, data: bytes, /) -> bytes:
        return data


@pytest.mark.parametrize(
    ("codec", "sentence"),
    [
        (Forgetful(), "decodes what it has encoded as something else"),
        (Forgetful(remembered=b"durably"), "is not what was read"),
        (Forgetful(refused=SECRET.encode()), "cannot encode a value"),
        (Forgetful(refused=SECRET.encode(), gives="text"), "gave str, not bytes"),
    ],
)
async def test_a_codec_that_does_not_decode_what_it_encodes_changes_nothing(
    tmp_path: Path, codec: Forgetful, sentence: str
) -> None:
    path = tmp_path / "app.db"
    await fill(path, None)
    with pytest.raises(StoreUnavailableError, match=f"stays as it is.*{sentence}"):
        recoded(path, None, codec)
    await holds_all(path, None)
    assert not path.with_name(path.name + FRESH_SUFFIX).exists()


async def test_an_old_key_is_retired_and_plain_values_among_encrypted_ones_are_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    both = AesGcmCodec({"old": KEY, "new": OTHER_KEY}, current="new")
    await fill(path, None)
    async with runtime(path, AcceptPlain(AesGcmCodec({"old": KEY}))) as app:
        await app.object(Diary, "more").write("more")
    recoded(path, both, AcceptPlain(both))
    assert SECRET.encode() not in files_of(tmp_path)
    async with runtime(path, AesGcmCodec({"new": OTHER_KEY})) as app:
        assert await app.object(Diary, "more").write("x") == ["more", "x"]


async def test_the_new_file_has_the_permissions_of_the_old_one_and_what_is_no_store_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await fill(path, None)
    path.chmod(0o640)
    recoded(path, None, AesGcmCodec(KEY))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with pytest.raises(StoreUnavailableError, match="is not there"):
        recoded(tmp_path / "none.db", None, AesGcmCodec(KEY))
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as file:
        file.execute("create table t (x)")
    with pytest.raises(StoreUnavailableError, match="another program"):
        recoded(foreign, None, AesGcmCodec(KEY))
