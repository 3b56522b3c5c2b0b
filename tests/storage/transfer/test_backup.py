"""A backup is one moment of a store that is in use, whole, or it is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from durably import StoreUnavailableError
from durably.storage.records import Batch
from durably.storage.sqlite import SqliteStore
from durably.storage.transfer.backup import back_up
from durably.storage.transfer.dump import export_store
from durably.storage.transfer.snapshot import Stage
from tests.storage.samples import MARY, OWNER, RIVAL, field
from tests.storage.transfer.test_dump import unheard


async def test_a_backup_is_the_moment_at_which_it_began_however_much_is_written_meanwhile(tmp_path: Path) -> None:
    path, copy = tmp_path / "app.db", tmp_path / "copy.db"
    store = SqliteStore(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"x" * 5_000_000), field("b", b"0")]))
    loop, written = asyncio.get_running_loop(), [1]

    async def write() -> None:
        written[0] += 1
        await store.commit(Batch(last_position=written[0], state=[field("b", b"%d" % written[0])]))

    def progressed(stage: Stage, done: int, total: int) -> None:
        if stage is Stage.COPYING:
            asyncio.run_coroutine_threadsafe(write(), loop).result()

    told = await asyncio.to_thread(back_up, path, "the store", copy, progressed=progressed)
    await store.close()
    assert written[0] > 4
    assert told.bytes == copy.stat().st_size
    restored = SqliteStore(copy)
    assert (await restored.open(RIVAL)).last_position == 1
    assert await restored.state(MARY) == {"a": b"x" * 5_000_000, "b": b"0"}
    await restored.close()


async def test_a_damaged_store_gives_no_backup_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    store = SqliteStore(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"x" * 200_000)]))
    await store.close()
    data = bytearray(path.read_bytes())
    middle = data.index(b"x" * 4_000)
    data[middle // 4096 * 4096 : middle // 4096 * 4096 + 4] = b"\xff" * 4  # The number of the page after an overflow.
    path.write_bytes(data)
    with pytest.raises(StoreUnavailableError, match="damaged"):
        back_up(path, "the store", tmp_path / "copy.db", progressed=unheard)
    assert {one.name for one in tmp_path.iterdir()} == {"app.db", "app.db.lock"}


@pytest.mark.parametrize("write", [back_up, partial(export_store, written_by="tests")])
async def test_of_two_that_write_one_file_at_a_time_one_gives_it_the_name_whole(
    tmp_path: Path, write: Callable[..., object]
) -> None:
    path, copy = tmp_path / "app.db", tmp_path / "copy"
    store = SqliteStore(path)
    await store.open(OWNER)
    await store.commit(Batch(last_position=1, state=[field("a", b"x" * 5_000)]))
    await store.close()
    alone = tmp_path / "alone"
    write(path, "the store", alone, progressed=unheard)
    others: list[object] = []

    def progressed(stage: Stage, done: int, total: int) -> None:
        if not others:
            others.append(stage)
            write(path, "the store", copy, progressed=unheard)

    with pytest.raises(StoreUnavailableError, match="is there already"):
        write(path, "the store", copy, progressed=progressed)
    assert copy.read_bytes() == alone.read_bytes()
    assert {one.name for one in tmp_path.iterdir()} == {"app.db", "app.db.lock", "alone", "copy"}
