"""A store is its file: every name of it leads to one lock, and what happens to the file at the path is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from durably.errors import StoreInUseError, StoreLostError, StoreUnavailableError
from durably.storage import connections
from durably.storage.files import is_mount_point
from durably.storage.lock_waiting import LockWaiting
from durably.storage.records import Batch
from durably.storage.sqlite import MIB
from tests.storage.conftest import NewStore
from tests.storage.samples import MARY, OWNER, RIVAL, field

Harm = Callable[[Path], object]


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


def _delete_everything(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


def _rename_the_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("renamed"))


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


HARMS: dict[str, Harm] = {
    "deleted": lambda path: path.unlink(),
    "renamed": lambda path: path.rename(path.with_name("renamed.db")),
    "replaced": _replace,
    "deleted with everything beside it": _delete_everything,
    "in a folder that was renamed": _rename_the_folder,
    "without its lock file": lambda path: path.with_name("app.db.lock").unlink(),
    "with another lock file": lambda path: _replace(path.with_name("app.db.lock")),
    "without its write-ahead log": lambda path: path.with_name("app.db-wal").unlink(),
    "without the index of its log": lambda path: path.with_name("app.db-shm").unlink(),
    "with another log": lambda path: _replace(path.with_name("app.db-wal")),
    "with another index": lambda path: _replace(path.with_name("app.db-shm")),
    "with a log cut to nothing": lambda path: os.truncate(path.with_name("app.db-wal"), 0),
    "with a log cut short": lambda path: _cut_short(path.with_name("app.db-wal")),
    "cut to nothing": lambda path: os.truncate(path, 0),
    "cut short": _cut_short,
    "with another name": lambda path: path.with_name("other.db").hardlink_to(path),
    "in a folder that was removed": lambda path: shutil.rmtree(path.parent),
}
FOUND_AGAIN = [
    "without its lock file", "with another lock file", "without its write-ahead log", "without the index of its log",
    "with another log", "with another index",
]  # fmt: skip


async def make_store(path: Path, new_store: NewStore) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=5))
    await store.close()


def overwrite(path: Path, content: bytes) -> None:
    """What a careless restore does: other content in the same file, and its log deleted."""
    for beside in ("app.db-wal", "app.db-shm"):
        path.with_name(beside).unlink()
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(content)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "app.db"


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
async def test_nothing_is_acknowledged_or_verified_while_the_files_are_not_the_open_ones(
    path: Path, new_store: NewStore, harm: Harm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("durably.storage.sqlite.CHECK_ALL_EVERY_SECONDS", 0.0)
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    await store.verify()
    harm(path)
    with pytest.raises(StoreUnavailableError, match="Nothing more is acknowledged"):
        await store.verify()
    with pytest.raises(StoreUnavailableError, match="Nothing more is acknowledged"):
        await store.commit(Batch(last_position=2, state=[field("a", b"2")]))


@pytest.mark.parametrize("harm", FOUND_AGAIN)
async def test_an_owner_that_lost_a_side_file_alone_finds_everything_again(
    path: Path, new_store: NewStore, harm: str
) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    HARMS[harm](path)
    opened = await store.open(OWNER)
    assert opened.last_position == 1
    assert await store.state(MARY) == {"a": b"1"}
    await store.commit(Batch(last_position=2))
    with pytest.raises(StoreInUseError):
        await new_store(path).open(RIVAL)


@pytest.mark.parametrize(
    "harm",
    [
        "deleted",
        "renamed",
        "deleted with everything beside it",
        "in a folder that was renamed",
        "in a folder that was removed",
    ],
)
async def test_a_store_that_is_gone_is_never_created_anew(path: Path, new_store: NewStore, harm: str) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1))
    HARMS[harm](path)
    for _ in range(2):
        with pytest.raises(StoreLostError, match="is not created anew"):
            await store.open(OWNER)
        assert not path.exists()
    await store.close()
    assert not path.parent.exists() or not path.exists()


@pytest.mark.parametrize("link", ["symlink", "symlink to the folder", "dotted", "relative"])
async def test_a_live_store_is_refused_by_every_other_name_and_stays(
    path: Path, tmp_path: Path, new_store: NewStore, link: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    (tmp_path / "link.db").symlink_to(path)
    (tmp_path / "link").symlink_to(path.parent)
    monkeypatch.chdir(path.parent)
    names = {
        "symlink": tmp_path / "link.db",
        "symlink to the folder": tmp_path / "link" / "app.db",
        "dotted": path.parent / ".." / path.parent.name / "app.db",
        "relative": Path("app.db"),
    }
    with pytest.raises(StoreInUseError, match="process 11 on first"):
        await new_store(names[link]).open(RIVAL)
    await store.verify()
    await store.commit(Batch(last_position=2, state=[field("b", b"2")]))
    assert await store.state(MARY) == {"a": b"1", "b": b"2"}


async def test_a_file_with_several_names_is_refused(path: Path, new_store: NewStore) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.close()
    (path.parent / "twin.db").hardlink_to(path)
    for name in ("app.db", "twin.db"):
        with pytest.raises(StoreUnavailableError, match="2 names \\(hard links\\)"):
            await new_store(path.parent / name).open(OWNER)
        with pytest.raises(StoreUnavailableError, match="hard links"):
            await new_store(path.parent / name).open_read_only()
    (path.parent / "twin.db").unlink()
    await new_store(path).open(OWNER)


MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
31 22 254:0 /home/me/app.db /data/my\040app.db rw,relatime - ext4 /dev/vda rw
"""


def test_a_file_that_is_mounted_by_itself_is_recognized() -> None:
    assert is_mount_point(Path("/data/my app.db"), MOUNTS)
    assert not is_mount_point(Path("/data/app.db"), MOUNTS)


async def test_a_file_that_is_mounted_by_itself_is_refused(
    path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.touch()
    monkeypatch.setattr("durably.storage.files._mounts", lambda: f"1 2 3:4 /a {path} rw - ext4 /dev/vda rw\n")
    with pytest.raises(StoreUnavailableError, match="Mount the folder"):
        await new_store(path).open(OWNER)


async def test_a_relative_path_leads_to_the_same_file_after_a_change_of_folder(
    path: Path, tmp_path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    store = new_store("app.db")
    await store.open(OWNER)
    monkeypatch.chdir(tmp_path)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    os.mkdir("elsewhere")
    monkeypatch.chdir("elsewhere")
    assert (await store.open(OWNER)).last_position == 1
    await store.close()
    assert (await store.open(OWNER)).last_position == 1
    assert await store.state(MARY) == {"a": b"1"}
    assert path.exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["elsewhere", "folder"]


async def test_the_log_behind_a_symbolic_link_is_reused_when_it_is_full(
    path: Path, tmp_path: Path, new_store: NewStore
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    store = new_store(link, checkpoint_mib=1, wal_limit_mib=3)
    await store.open(OWNER)
    for position in range(1, 300):
        await store.commit(Batch(last_position=position, state=[field("a", b"x" * 30_000)]))
    assert path.with_name("app.db-wal").stat().st_size < 4 * MIB


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
async def test_what_is_no_file_is_refused_at_once_and_left_alone(
    tmp_path: Path, new_store: NewStore, make: Callable[[Path], object]
) -> None:
    make(tmp_path / "app.db")
    with pytest.raises(StoreUnavailableError, match=r"is (a folder|no regular file)\. Name a file"):
        await new_store(tmp_path / "app.db").open(OWNER)
    with pytest.raises(StoreUnavailableError, match=r"is (a folder|no regular file)\. Name a file"):
        await new_store(tmp_path / "app.db").open_read_only()
    assert [file.name for file in tmp_path.iterdir()] == ["app.db"]


async def test_a_circle_of_links_and_a_file_for_a_folder_are_told(tmp_path: Path, new_store: NewStore) -> None:
    (tmp_path / "circle.db").symlink_to(tmp_path / "circle.db")
    (tmp_path / "file").touch()
    for name in ("circle.db", "file/app.db"):
        with pytest.raises(StoreUnavailableError, match="Check the path"):
            await new_store(tmp_path / name).open(OWNER)


async def test_a_link_to_a_file_that_is_not_there_yet_creates_that_one(path: Path, new_store: NewStore) -> None:
    link = path.with_name("link.db")
    link.symlink_to(path)
    await new_store(link).open(OWNER)
    assert path.is_file()
    assert link.is_symlink()
    assert path.with_name("app.db.lock").is_file()


async def test_an_opening_that_is_given_up_while_it_closes_the_old_connections_closes_all_of_them(
    path: Path, new_store: NewStore
) -> None:
    """A connection that is forgotten open is a `ResourceWarning`, and keeps the file from being closed."""
    store = new_store(path)
    await store.open(OWNER)
    for turns in range(1, 7):
        opening = asyncio.ensure_future(store.open(OWNER))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        assert not any(name.endswith("app.db") for name in open_files())
    await store.open(OWNER)


def open_files() -> list[str]:
    found: list[str] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(descriptor.readlink()))
    return found


class TestReopening:
    """Rule X9: an owner finds its own store again, as it left it, or stops."""

    async def test_another_file_at_the_path_is_not_opened_beside_the_log_of_the_first(
        self, path: Path, new_store: NewStore
    ) -> None:
        """SQLite would read the pages in the log as if they belonged to it."""
        store = new_store(path)
        await store.open(OWNER)
        await make_store(path.with_name("other.db"), new_store)
        path.with_name("other.db").replace(path)
        before = path.read_bytes()
        with pytest.raises(StoreLostError, match="replaced by another file"):
            await store.open(OWNER)
        assert path.read_bytes() == before

    async def test_another_store_in_the_same_file_is_not_taken_for_the_open_one(
        self, path: Path, new_store: NewStore
    ) -> None:
        store = new_store(path)
        await store.open(OWNER)
        await make_store(path.with_name("other.db"), new_store)
        overwrite(path, path.with_name("other.db").read_bytes())
        before = path.read_bytes()
        with pytest.raises(StoreLostError, match="another store lies at its path"):
            await store.open(OWNER)
        assert path.read_bytes() == before

    async def test_an_older_copy_is_not_taken_for_the_open_one(self, path: Path, new_store: NewStore) -> None:
        store = new_store(path)
        await store.open(OWNER)
        copy = path.read_bytes()
        await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
        await store.open(OWNER)  # From here on nothing of the commit is in the log.
        overwrite(path, copy)
        with pytest.raises(StoreLostError, match="ends at position 0, and 1 was acknowledged"):
            await store.open(OWNER)

    @pytest.mark.parametrize("content", [b"", b"not a database at all" * 100], ids=["empty", "garbage"])
    async def test_what_is_no_store_any_more_is_left_as_it_is(
        self, path: Path, new_store: NewStore, content: bytes
    ) -> None:
        store = new_store(path)
        await store.open(OWNER)
        overwrite(path, content)
        with pytest.raises(StoreLostError, match="not a store of durably any more"):
            await store.open(OWNER)
        assert path.read_bytes() == content

    async def test_an_owner_in_between_ends_it(self, path: Path, new_store: NewStore) -> None:
        store, rival = new_store(path), new_store(path)
        await store.open(OWNER)
        path.with_name("app.db.lock").unlink()
        await rival.open(RIVAL)
        await rival.close()
        with pytest.raises(StoreInUseError, match="taken over by process 22"):
            await store.open(OWNER)

    async def test_an_epoch_that_may_have_become_durable_is_its_own(
        self, path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The failure came after the epoch was counted up: the next try finds one that it has never been given."""
        monkeypatch.setattr(connections.connect, "__kwdefaults__", {"timeout_seconds": 0.0})
        paused = asyncio.Event()

        async def pause(self: LockWaiting, reason: str) -> None:
            paused.set()
            await asyncio.get_running_loop().create_future()

        monkeypatch.setattr(LockWaiting, "pause", pause)
        store = new_store(path)
        await store.open(OWNER)
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("begin")
            reader.execute("select * from owner").fetchall()
            await store.commit(Batch(last_position=1))
            opening = asyncio.ensure_future(store.open(OWNER))
            await paused.wait()
            opening.cancel()
            await asyncio.wait([opening])
            reader.execute("commit")
        opened = await store.open(OWNER)
        assert opened.epoch == 3
        assert opened.last_position == 1


async def test_an_owner_whose_log_was_cut_off_stops_for_good_unless_all_is_there(
    path: Path, new_store: NewStore
) -> None:
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"1")]))
    os.truncate(path.with_name("app.db-wal"), 0)
    with pytest.raises(StoreUnavailableError, match="was cut off while it was open"):
        await store.commit(Batch(last_position=2))
    with pytest.raises(StoreLostError, match="is older than it was before the failure"):
        await store.open(OWNER)


async def test_a_checkpoint_of_another_program_is_no_harm(path: Path, new_store: NewStore) -> None:
    store = new_store(path)
    await store.open(OWNER)
    for position in range(1, 4):
        await store.commit(Batch(last_position=position, state=[field("a", b"%d" % position)]))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("pragma wal_checkpoint(truncate)").fetchone() == (0, 0, 0)
        assert path.with_name("app.db-wal").stat().st_size == 0
    await store.commit(Batch(last_position=4))
    assert await store.state(MARY) == {"a": b"3"}


@pytest.mark.parametrize("restored", ["an older copy", "another store", "something else"])
async def test_what_is_copied_over_the_open_database_is_noticed_and_a_store_is_left_as_it_is(
    tmp_path: Path, path: Path, new_store: NewStore, restored: str
) -> None:
    await make_store(path, new_store)
    content = path.read_bytes()
    if restored == "another store":
        await make_store(tmp_path / "other.db", new_store)
        content = (tmp_path / "other.db").read_bytes()
    elif restored == "something else":
        content = b"nothing of durably" * 1_000
    store = new_store(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=6, state=[field("a", b"1")]))
    number = path.stat().st_ino
    path.write_bytes(content + b"\0" * max(path.stat().st_size - len(content), 0))
    assert path.stat().st_ino == number
    put = path.read_bytes()
    with pytest.raises(StoreLostError, match="was overwritten while it was open"):
        await store.verify()
    with pytest.raises(StoreLostError, match="was overwritten while it was open"):
        await store.commit(Batch(last_position=7))
    await store.close()
    if restored != "something else":  # Which SQLite cannot open to keep its log from being copied.
        assert path.read_bytes() == put


async def test_a_backup_of_this_very_run_that_is_copied_back_is_noticed(
    path: Path, new_store: NewStore, tmp_path: Path
) -> None:
    store = new_store(path, checkpoint_mib=0)
    await store.open(OWNER)
    copy = path.read_bytes()
    await store.commit(Batch(last_position=6, state=[field("a", b"1" * 100_000)]))
    await store._checkpointer.close()  # pyright: ignore[reportPrivateUsage] # When its checkpoint has ended.
    assert path.read_bytes() != copy
    path.write_bytes(copy + b"\0" * (path.stat().st_size - len(copy)))
    with pytest.raises(StoreLostError, match="was overwritten while it was open"):
        await store.verify()


def _refuse_access(path: Path, mode: int) -> bool:
    return False


async def test_permissions_that_are_taken_away_are_noticed(
    path: Path, new_store: NewStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = new_store(path)
    await store.open(OWNER)
    path.chmod(0o640)
    await store.verify()  # It may still be read and written.
    monkeypatch.setattr(os, "access", _refuse_access)  # The tests may run as root, who may do anything.
    path.chmod(0)
    with pytest.raises(StoreUnavailableError, match=r"permissions of .* were taken away"):
        await store.verify()
    with pytest.raises(StoreUnavailableError, match=r"permissions of .* were taken away"):
        await store.commit(Batch(last_position=1))
