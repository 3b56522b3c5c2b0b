"""`durably why` reads a store beside its owner or after it, as a tree or as JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from durably import SqliteStore
from durably.cli.failures import CommandError
from durably.cli.operators.output import Format
from durably.cli.operators.services import tell_why
from durably.cli.operators.sources import Whom
from durably.codecs import CompressionCodec
from durably.inspection import WaitingInvocation
from durably.storage.encoded import EncodedStore
from durably.testing import Harness
from tests.cli.output_schemas import assert_fits
from tests.semantics.test_why import Desk


async def waiting(path: Path) -> WaitingInvocation:
    """A store in which one invocation waits for another that sleeps; what its runtime says of it."""
    async with Harness(Desk, store=SqliteStore(path)) as app:
        await app.object(Desk, "d").sleep.send(90)
        asked = await app.object(Desk, "a").ask.send("d")
        await app.settle()
        return await app.why(asked.id)


async def _told(path: Path, capsys: pytest.CaptureFixture[str], id: str, *, as_json: bool) -> str:
    await asyncio.to_thread(tell_why, id, Whom(store=f"sqlite:///{path}"), Format.JSON if as_json else Format.TABLE)
    return capsys.readouterr().out


async def test_a_stopped_store_tells_what_its_runtime_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.db"
    live = await waiting(path)
    before = path.read_bytes()
    text = await _told(path, capsys, live.id, as_json=False)
    assert text == f"{live}\n"
    assert text.splitlines()[-1].strip() == "waits for a timer until 2026-01-01 00:01:30+00:00"
    data = json.loads(await _told(path, capsys, live.id, as_json=True))
    assert_fits("why", data)
    assert data == live.data()
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["app.db", "app.db.lock"]


async def test_a_live_store_is_read_beside_its_owner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.db"
    async with Harness(Desk, store=SqliteStore(path)) as app:
        sent = await app.object(Desk, "d").sleep.send(90)
        await app.settle()
        assert "waits for a timer" in await _told(path, capsys, sent.id, as_json=False)
        await app.advance(minutes=2)


async def test_what_cannot_be_told_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    live = await waiting(path)
    url = f"sqlite:///{path}"
    with pytest.raises(CommandError, match="There is no invocation inv_1x in the store"):
        await _to_thread("inv_1x", url)
    with pytest.raises(CommandError, match="is not there"):
        await _to_thread(live.id, f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(CommandError, match="is no file"):
        await _to_thread(live.id, "memory:")


async def test_a_store_with_a_codec_asks_for_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with Harness(Desk, store=EncodedStore(SqliteStore(path), CompressionCodec())) as app:
        sent = await app.object(Desk, "d").sleep.send(90)
    with pytest.raises(CommandError, match="--codec module:attribute"):
        await _to_thread(sent.id, f"sqlite:///{path}")


async def _to_thread(id: str, url: str) -> None:
    await asyncio.to_thread(tell_why, id, Whom(store=url), Format.TABLE)
