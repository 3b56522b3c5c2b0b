"""An export is the whole store, and an import makes it again: any store, of any layout, or nothing at all."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from durably import StoreInUseError, StoreUnavailableError
from durably.storage.introspection import InspectableStore
from durably.storage.records import Batch, Opened, Owner
from durably.storage.sqlite import SqliteStore
from durably.storage.statements import MIGRATIONS
from durably.storage.transfer.backup import back_up
from durably.storage.transfer.dump import export_store, import_store
from durably.storage.transfer.snapshot import Contents, Stage
from durably.storage.wrapping import WrappedStore
from durably.testing.stores.contract import StoreContract
from tests.levels import level
from tests.storage.layout_program import restore
from tests.storage.samples import OWNER, RIVAL, field, invocation


def unheard(stage: Stage, done: int, total: int) -> None:
    assert 0 <= done <= total


def exported(path: Path, target: Path, progressed: Any = unheard) -> Contents:
    return export_store(path, f"sqlite {path}", target, written_by="this version", progressed=progressed)


def imported(source: Path, path: Path, progressed: Any = unheard) -> Contents:
    return import_store(source, path, f"sqlite {path}", owner=OWNER, progressed=progressed)


class TransferredStore(WrappedStore):
    """A store that goes on in a copy each time that it is opened after a close: an imported one, a backup."""

    def __init__(self, paths: Any) -> None:
        self.path: Path = next(paths)
        self._paths = paths
        self._is_closed = False
        super().__init__(SqliteStore(self.path))

    @override
    async def open(self, owner: Owner, /) -> Opened:
        if self._is_closed:
            self._is_closed = False
            self._transfer()
            self.inner = SqliteStore(self.path)
        return await super().open(owner)

    def _transfer(self) -> None:
        old, self.path, copy = self.path, next(self._paths), next(self._paths)
        dump, again = self.path.with_suffix(".jsonl"), self.path.with_suffix(".again.jsonl.gz")
        told = exported(old, dump)
        assert imported(dump, self.path) == told
        assert exported(self.path, again).sha256 == told.sha256
        assert back_up(self.path, "", copy, progressed=unheard).contents.sha256 == told.sha256
        self.path = copy

    @override
    async def close(self) -> None:
        await super().close()
        self._is_closed = True


@pytest.mark.slow
class TestTransferredStore(StoreContract):
    """Whatever a store holds, its imported export and its backup hold."""

    examples = level().examples // 30

    @pytest.fixture(autouse=True)
    def _in_folder(self, tmp_path: Path) -> None:
        self.paths = (tmp_path / f"{number}.db" for number in count())

    @override
    def make_store(self) -> InspectableStore:
        return TransferredStore(self.paths)

    @override
    def make_rival(self, store: InspectableStore) -> InspectableStore:
        assert isinstance(store, TransferredStore)
        store.path.with_name(store.path.name + ".lock").unlink()
        return SqliteStore(store.path)


async def make(path: Path) -> None:
    store = SqliteStore(path)
    await store.open(OWNER)
    values = [b"plain", bytes(range(256)), b"\xff" * 3]
    state = [field(f"f{number}", value) for number, value in enumerate(values)]
    await store.commit(Batch(last_position=9, accepted=[invocation(7)], state=state))
    await store.close()


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("dump")
    asyncio.run(make(folder / "app.db"))
    exported(folder / "app.db", folder / "app.jsonl")
    return (folder / "app.jsonl").read_bytes()


def changed(data: st.DataObject, dump: bytes) -> bytes:
    """An export with a byte, a line or its end gone, doubled or changed."""
    lines = dump.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 1), "line")
    kind = data.draw(st.sampled_from(["cut", "byte", "drop", "double", "swap", "more"]))
    place = data.draw(st.integers(0, len(dump) - 1), "byte")
    match kind:
        case "cut":
            return dump[:place]
        case "byte":
            return dump[:place] + bytes([data.draw(st.integers(0, 255))]) + dump[place + 1 :]
        case "drop":
            return b"".join(lines[:at] + lines[at + 1 :])
        case "double":
            return b"".join([*lines[: at + 1], *lines[at:]])
        case "swap":
            return b"".join([*lines[:at], *lines[at + 1 : at + 2], lines[at], *lines[at + 2 :]])
        case _:
            return dump + lines[at]


@given(st.data())
def test_what_is_not_as_it_was_written_is_refused_and_leaves_nothing(
    dump: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("changed", numbered=True)
    source, target = folder / "app.jsonl", folder / "app.db"
    other = changed(data, dump)
    source.write_bytes(other)
    refusal = ""
    try:
        imported(source, target)
    except StoreUnavailableError as error:
        refusal = str(error)
    if refusal:
        assert str(source) in refusal or str(target) in refusal
        assert {one.name for one in folder.iterdir()} <= {"app.jsonl", "app.db.lock"}
        return
    # The rows are the same: only the first line, for people, may have been another one.
    exported(target, folder / "again.jsonl")
    assert other.splitlines()[1:] == dump.splitlines()[1:] == (folder / "again.jsonl").read_bytes().splitlines()[1:]


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@given(st.data())
def test_rows_that_fit_no_table_are_refused_in_a_sentence_though_the_checksum_is_right(
    dump: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    first, *rows, _ = dump.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(rows) - 1), "row")
    row = msgspec.json.decode(rows[at])
    row[data.draw(st.integers(0, len(row) - 1), "column")] = data.draw(ODD)
    rows[at] = msgspec.json.encode(data.draw(st.just(row) | ODD, "odd")) + b"\n"
    contents = Contents()
    for line in rows:
        table, *_ = msgspec.json.decode(line) if line.startswith(b"[") and len(line) > len(b"[]\n") else [""]
        contents.add(str(table), line)
    end = msgspec.json.encode({"rows": contents.rows, "sha256": contents.sha256}) + b"\n"
    folder = tmp_path_factory.mktemp("odd", numbered=True)
    (folder / "app.jsonl").write_bytes(first + b"".join(rows) + end)
    try:
        imported(folder / "app.jsonl", folder / "app.db")
    except StoreUnavailableError:
        assert {one.name for one in folder.iterdir()} <= {"app.jsonl", "app.db.lock"}


@pytest.mark.parametrize(
    "written", [b"", b"\0\xff" * 99, b"[" * 100_000, b'{"format":' + b"[" * 100_000, b"null\n", b"\x1f\x8b\x08 no gzip"]
)
@pytest.mark.parametrize("name", ["app.jsonl", "app.jsonl.gz"])
def test_what_is_no_export_is_refused_in_a_sentence(tmp_path: Path, written: bytes, name: str) -> None:
    source = tmp_path / name
    source.write_bytes(written)
    with pytest.raises(StoreUnavailableError, match=re.escape(str(source))):
        imported(source, tmp_path / "app.db")


def test_a_folder_is_no_export(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be read: Is a directory"):
        imported(tmp_path, tmp_path / "app.db")


@pytest.mark.parametrize("version", [one.version for one in MIGRATIONS])
async def test_an_export_of_an_older_layout_becomes_a_store_of_this_one(tmp_path: Path, version: int) -> None:
    old, source, path = tmp_path / "old.db", tmp_path / "old.jsonl", tmp_path / "app.db"
    restore(version, old)
    told = exported(old, source)
    assert imported(source, path) == told
    from_file, from_dump = SqliteStore(old), SqliteStore(path)
    for store in (from_file, from_dump):
        await store.open(RIVAL)
        await store.close()
    assert exported(old, tmp_path / "a.jsonl").sha256 == exported(path, tmp_path / "b.jsonl").sha256


@pytest.mark.parametrize("stage", [Stage.READING, Stage.WRITING, Stage.VERIFYING])
async def test_what_is_interrupted_leaves_nothing(tmp_path: Path, stage: Stage) -> None:
    def interrupted(at: Stage, done: int, total: int) -> None:
        if at is stage:
            raise KeyboardInterrupt

    path, dump = tmp_path / "app.db", tmp_path / "app.jsonl"
    await make(path)
    if stage is not Stage.WRITING:
        with pytest.raises(KeyboardInterrupt):
            exported(path, dump, interrupted)
    assert {one.name for one in tmp_path.iterdir()} == {"app.db", "app.db.lock"}
    if stage is not Stage.READING:
        exported(path, dump)
        with pytest.raises(KeyboardInterrupt):
            imported(dump, tmp_path / "new.db", interrupted)
        assert {one.name for one in tmp_path.iterdir()} == {"app.db", "app.db.lock", "app.jsonl", "new.db.lock"}


async def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    path, dump, new = tmp_path / "app.db", tmp_path / "app.jsonl", tmp_path / "new.db"
    await make(path)
    exported(path, dump)
    before = dump.read_bytes(), path.read_bytes()
    with pytest.raises(StoreUnavailableError, match="is there already, and is left as it is"):
        exported(path, dump)
    with pytest.raises(StoreUnavailableError, match="is there already, and is left as it is"):
        imported(dump, path)
    assert (dump.read_bytes(), path.read_bytes()) == before
    (tmp_path / "new.db-wal").write_bytes(b"of another one")
    with pytest.raises(StoreUnavailableError, match=r"new\.db-wal is left of another database"):
        imported(dump, new)
    with pytest.raises(StoreUnavailableError, match="no folder"):
        exported(path, tmp_path / "nowhere" / "x")
    with pytest.raises(StoreUnavailableError, match="is not there"):
        exported(new, tmp_path / "x")


async def test_where_a_runtime_is_about_to_make_a_store_none_is_imported(tmp_path: Path) -> None:
    path, dump, new = tmp_path / "app.db", tmp_path / "app.jsonl", tmp_path / "new.db"
    await make(path)
    exported(path, dump)
    store = SqliteStore(new)
    await store.open(OWNER)
    for name in ("new.db", "new.db-wal", "new.db-shm"):
        (tmp_path / name).unlink()
    with pytest.raises(StoreInUseError, match=r"process 11 on first\.example"):
        imported(dump, new)
    await store.close()


async def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    await make(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update state set value = cast(x'ff' as text) where field = 'f0'")
    with pytest.raises(StoreUnavailableError, match="damaged: Ticket/mary/f0 in state"):
        exported(path, tmp_path / "app.jsonl")
