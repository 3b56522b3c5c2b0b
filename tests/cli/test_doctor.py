"""`durably doctor` tells people and programs, and ends with a status that says what it found."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import typer

from durably import SqliteStore
from durably.cli.doctor import PROBLEMS_FOUND, doctor
from durably.cli.failures import CommandError
from durably.cli.operators.output import Format
from durably.testing import Harness
from tests.cli.output_schemas import assert_fits
from tests.doctor.test_doctor import PATIENT, Clerk, Desk, Vote, damage, fill
from tests.processes import durably


async def filled(path: Path) -> str:
    async with Harness(Desk, Clerk, Vote, store=SqliteStore(path), retry=PATIENT) as app:
        await fill(app)
    return f"sqlite:///{path}"


async def examined(url: str, *, format: Format = Format.TABLE) -> int:
    try:
        await asyncio.to_thread(doctor, url, codec=None, format=format)
    except typer.Exit as exit:
        return exit.exit_code
    return 0


async def test_a_sound_store_ends_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "app.db"
    url = await filled(path)
    before = path.read_bytes()
    assert await examined(url) == 0
    told = capsys.readouterr().out
    assert "waits-for-somebody" in told
    assert f"Looked at 13 invocations and 8 objects in the store sqlite {path}: nothing is wrong." in told
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["app.db", "app.db.lock"]


async def test_a_problem_ends_with_3_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = await filled(tmp_path / "app.db")
    damage(tmp_path / "app.db", "delete from timers where kind = 'start'")
    assert await examined(url) == PROBLEMS_FOUND == 3
    told = capsys.readouterr().out
    assert "no-start-timer" in told
    assert "Cancel or kill it" in told
    assert told.strip().endswith("1 problem.")
    assert await examined(url, format=Format.JSON) == PROBLEMS_FOUND
    data = json.loads(capsys.readouterr().out)
    assert_fits("doctor", data)
    assert (data["sound"], data["invocations"], data["objects"]) == (False, 13, 8)
    assert [one["code"] for one in data["findings"] if one["severity"] == "problem"] == ["no-start-timer"]
    assert data["findings"][0]["id"].startswith("inv_1")
    assert await examined(url, format=Format.NAME) == PROBLEMS_FOUND
    assert capsys.readouterr().out.splitlines() == [one["id"] or one["subject"] for one in data["findings"]]


@pytest.mark.parametrize("table", ["state", "promises", "invocations", "owner", "signals"])
async def test_a_table_that_is_missing_is_a_finding(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = await filled(tmp_path / "app.db")
    damage(tmp_path / "app.db", "pragma legacy_alter_table = on", f"alter table {table} rename to lost")
    assert await examined(url, format=Format.JSON) == PROBLEMS_FOUND
    found = [(one["code"], one["sentence"]) for one in json.loads(capsys.readouterr().out)["findings"]]
    assert ("layout", f"The table {table} is missing.") in found


async def test_what_cannot_be_examined_is_said_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is not there"):
        await examined(f"sqlite:///{tmp_path / 'none.db'}")
    (tmp_path / "text.db").write_text("nothing of the kind" * 100)
    with pytest.raises(CommandError, match="not a SQLite database"):
        await examined(f"sqlite:///{tmp_path / 'text.db'}")


@pytest.mark.slow
async def test_the_command_in_a_process_of_its_own_beside_the_owner(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with Harness(Desk, Clerk, Vote, store=SqliteStore(path), retry=PATIENT) as app:
        await fill(app)
        done = await asyncio.to_thread(durably, "doctor", "sqlite:///app.db", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert "nothing is wrong" in done.stdout
        (asleep, *_) = [one.id async for one in app.invocations(target="Desk/d")]
        told = await asyncio.to_thread(durably, "why", asleep, "--store", "sqlite:///app.db", cwd=tmp_path)
        assert (told.returncode, told.stderr) == (0, "")
        assert "waits for a timer" in told.stdout
    damage(path, "delete from timers where kind = 'start'")
    assert durably("doctor", "sqlite:///app.db", "--json", cwd=tmp_path).returncode == PROBLEMS_FOUND
    missing = durably("doctor", "sqlite:///other.db", cwd=tmp_path)
    assert missing.returncode == 1
    assert "is not there" in missing.stderr
