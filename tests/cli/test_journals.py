"""`durably debug` and `durably export-test`: production's failure, here, under a debugger and as a test."""

from __future__ import annotations

import asyncio
import io
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import orjson
import pytest

from durably import InvocationStatus, Runtime
from durably.cli.commands import run
from tests.cli.output_schemas import assert_fits

APPLICATION = """
from dataclasses import dataclass

from durably import Context, ObjectContext, RetryPolicy, Runtime, Service, VirtualObject, handler, state

PRICES = {"tea": 3}


class Prices:
    def of(self, item: str) -> int:
        raise AssertionError("no action is run again")


class Cart(VirtualObject):
    total: int = state(default=0)

    def __init__(self, prices: Prices) -> None:
        self.prices = prices

    @handler(retry=RetryPolicy(max_attempts=1))
    async def add(self, ctx: ObjectContext, item: str) -> int:
        price = await ctx.run("price", price_of, item)
        self.total += price
        if item == "gone":
            raise LookupError(f"{item} is not there")
        return self.total

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        self.total += 1
        await ctx.sleep(3600)


def price_of(item: str) -> int:
    return PRICES.get(item, 0)


runtime = Runtime("sqlite:///app.db", [Cart], dependencies={Prices: Prices()}, drain=0)


def make():
    return Runtime("sqlite:///app.db", [Cart], dependencies={Prices: Prices()})
"""
MODULE = "application_of_journals"

Told = tuple[int | str | None, str, str]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Told]]:
    """Runs the command in this process, in a folder with an application."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / f"{MODULE}.py").write_text(APPLICATION, "utf-8")

    def told(*arguments: str, typed: str = "") -> Told:
        monkeypatch.setattr("sys.argv", ["durably", *arguments])
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        with pytest.raises(SystemExit) as ended:
            run()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    yield told
    sys.modules.pop(MODULE, None)


async def stuck() -> tuple[str, str]:
    """A runtime that has stopped, with an invocation that failed and one that sleeps: their ids."""
    module = __import__(MODULE)
    runtime: Runtime = module.make()
    async with runtime as app:
        failing = await app.object(module.Cart, "mary").add.send("gone")
        waiting = await app.object(module.Cart, "ann").wait.send()
        while await failing.status() is not InvocationStatus.PAUSED:
            pass
        while await waiting.status() in (InvocationStatus.PENDING, InvocationStatus.RUNNING):
            pass
    return failing.id, waiting.id


def test_the_debugger_stops_in_the_handler_and_where_it_fails(command: Callable[..., Told]) -> None:
    failing, waiting = asyncio.run(stuck())
    options = (f"{MODULE}:runtime", "--store", "sqlite:///app.db")
    status, out, err = command("debug", failing, *options, typed="p item\nn\np price\nc\np price\nq\n")
    assert status == 3
    assert [line.removeprefix("(Pdb) ") for line in out.splitlines() if line.endswith(("'gone'", " 0"))] == [
        "'gone'", "0", "0",
    ]  # fmt: skip
    assert "LookupError: gone is not there" in err
    status, out, err = command("debug", waiting, *options, typed="c\n")
    assert (status, out.count("-> self.total += 1")) == (0, 1)
    assert "Cart/ann/wait follows its 1 recorded step, and waits for what these lines asked for" in err
    assert f"{MODULE}.py:" in err
    assert command("debug", waiting, *options, typed="q\n")[0] == 0
    status, out, err = command("debug", failing, *options, "--no-pdb")
    assert (status, out) == (3, "")
    assert "LookupError: gone is not there" in err


def test_code_that_does_not_follow_the_journal_is_told_as_such(command: Callable[..., Told], tmp_path: Path) -> None:
    failing, _ = asyncio.run(stuck())
    (tmp_path / "other.py").write_text(APPLICATION.replace('ctx.run("price"', 'ctx.run("cost"'), "utf-8")
    status, out, err = command("debug", failing, "other:runtime", "--store", "sqlite:///app.db", "--no-pdb")
    sys.modules.pop("other")
    assert (status, out) == (3, "")
    assert "1 of 1 journals do not replay with this code" in err
    assert "Traceback" not in err


def test_a_failing_journal_becomes_a_test_that_fails_until_the_code_is_mended(
    command: Callable[..., Told], tmp_path: Path
) -> None:
    failing, waiting = asyncio.run(stuck())
    (tmp_path / "durably.toml").write_text(
        f"[server]\ntarget = '{MODULE}:make'\n[store]\nurl = 'sqlite:///app.db'", "utf-8"
    )
    for id in (failing, waiting):
        status, out, err = command("export-test", id, "--json")
        assert (status, err) == (0, "")
        assert_fits("export-test", files := orjson.loads(out))
        assert all(Path(name).is_file() for name in files.values())
    refused = command("export-test", failing)
    assert (refused[0], "is there already, and is left as it is" in refused[2]) == (1, True)

    goes_on, fails = sorted((tmp_path / "tests").glob("test_*.py"), key=lambda path: "add" in path.name)
    the_test_of(goes_on)()
    with pytest.raises(LookupError, match="gone is not there"):
        the_test_of(fails)()
    mended = APPLICATION.replace('if item == "gone"', 'if item == "lost"')
    (tmp_path / f"{MODULE}.py").write_text(mended, "utf-8")
    sys.modules.pop(MODULE)
    the_test_of(fails)()


async def test_beside_the_runtime_that_runs_it_a_journal_is_debugged_and_becomes_a_test(
    command: Callable[..., Told], tmp_path: Path
) -> None:
    module = __import__(MODULE)
    runtime: Runtime = module.make()
    async with runtime as app:
        failing = await app.object(module.Cart, "mary").add.send("gone")
        waiting = await app.object(module.Cart, "ann").wait.send()
        for id, status in ((failing.id, "PAUSED"), (waiting.id, "SUSPENDED")):
            while (await app.why(id)).status is not InvocationStatus[status]:
                pass
        options = (f"{MODULE}:runtime", "--store", "sqlite:///app.db")
        for invocation, ends_with in ((failing, 3), (waiting, 0)):
            ended, out, err = await asyncio.to_thread(command, "debug", invocation.id, *options, "--no-pdb")
            assert (ended, out) == (ends_with, ""), err
            ended, out, err = await asyncio.to_thread(command, "export-test", invocation.id, *options)
            assert (ended, err) == (0, "")
        tests = {path.name.split("_")[2]: the_test_of(path) for path in (tmp_path / "tests").glob("test_*.py")}
        await asyncio.to_thread(tests["wait"])
        with pytest.raises(LookupError, match="gone is not there"):
            await asyncio.to_thread(tests["add"])
        # It goes on as if nobody had looked.
        assert await app.object(module.Cart, "joe").add("tea") == 3
        assert (await app.why(waiting.id)).status is InvocationStatus.SUSPENDED


def the_test_of(file: Path) -> Callable[[], None]:
    """The only test of a file, loaded anew."""
    (found,) = [value for name, value in runpy.run_path(str(file)).items() if name.startswith("test_")]
    return cast("Callable[[], None]", found)


def test_what_cannot_be_debugged_is_a_sentence(command: Callable[..., Told]) -> None:
    for name in ("debug", "export-test"):
        assert "Nothing says whose code is to run" in command(name, "inv_1x")[2]
        assert "is not there" in command(name, "inv_1x", f"{MODULE}:runtime", "--store", "sqlite:///none.db")[2]
        nowhere = ("--admin", "http://127.0.0.1:9")
        assert "No server answers at http://127.0.0.1:9." in command(name, "inv_1x", f"{MODULE}:runtime", *nowhere)[2]


def test_an_unknown_id_is_a_sentence(command: Callable[..., Told]) -> None:
    asyncio.run(stuck())
    status, out, err = command("debug", "inv_1nowhere", f"{MODULE}:runtime", "--store", "sqlite:///app.db")
    assert (status, out) == (1, "")
    assert "There is no journal of inv_1nowhere in sqlite:///app.db" in err
