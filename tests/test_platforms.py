"""Other systems, as far as one system can try them: no uvloop, Windows' file locks, loops without signal handlers.

docs/operations.md says what was run where.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from durably import MemoryStore, ObjectContext, Runtime, SqliteStore, StoreInUseError, VirtualObject, handler, state
from durably.cli import serve
from durably.storage import ownership
from tests.processes import ROOT, ServerProcess
from tests.storage.samples import OWNER, RIVAL


class Counter(VirtualObject):
    total: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext) -> int:
        self.total += await ctx.run("one", lambda: 1)
        await ctx.sleep(0.001)
        return self.total


LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {
    "asyncio": None,
    "select": asyncio.SelectorEventLoop,
    "uvloop": serve.fastest_loop(),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_runtime_runs_on_each_event_loop(loop: str, tmp_path: Path) -> None:
    async def main() -> list[int]:
        async with Runtime(SqliteStore(tmp_path / "app.db"), [Counter]) as runtime:
            return [await runtime.object(Counter, "a").add() for _ in range(3)]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        assert runner.run(main()) == [1, 2, 3]


def test_without_uvloop_the_command_runs_on_asyncio_s_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert serve.fastest_loop() is None

    async def main() -> None:
        assert type(asyncio.get_running_loop()).__module__.startswith("asyncio.")
        async with Runtime(MemoryStore(), [Counter]) as runtime:
            assert await runtime.object(Counter, "a").add() == 1

    serve.run_on_the_fastest_loop(main())


APPLICATION = """
from durably import Runtime
from tests.test_platforms import Counter
runtime = Runtime("sqlite:///app.db", [Counter])
"""
WITHOUT_UVLOOP = """
import sys
sys.modules["uvloop"] = None
from durably.cli.main import main
main()
"""


@pytest.mark.slow
def test_without_uvloop_a_server_answers_and_stops_at_a_signal(tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    command = [
        sys.executable, "-c", WITHOUT_UVLOOP, "serve", "application:runtime", "--port", "0", "--admin-port", "0"
    ]  # fmt: skip
    server = ServerProcess(command, cwd=tmp_path, environment={"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"})
    try:
        assert server.port
        assert server.stop() == 0
    finally:
        server.end()


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module of locks as Windows loads it, on locks of this system that refuse as Windows' do."""

    def locking(descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (2, 1)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) == ownership.LOCKED_BYTE
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError(13, "Permission denied") from None

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    spec = importlib.util.spec_from_file_location("ownership_on_windows", ownership.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_windows_locks_refuse_a_second_owner_and_name_the_first(tmp_path: Path, windows: Any) -> None:
    first = windows.OwnerLock(tmp_path / "app.db.lock", "test")
    second = windows.OwnerLock(tmp_path / "app.db.lock", "test")
    first.acquire(OWNER)
    with pytest.raises(StoreInUseError, match=f"process {OWNER.process_id} on {OWNER.host}"):
        second.acquire(RIVAL)
    first.acquire(OWNER)  # Again, after a failure.
    first.release()
    second.acquire(RIVAL)
    with pytest.raises(StoreInUseError, match=f"process {RIVAL.process_id} on {RIVAL.host}"):
        first.acquire(OWNER)
    second.release()


@pytest.fixture
def _signals_as_they_were() -> Generator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handled in before.items():
        signal.signal(number, handled)


@pytest.mark.usefixtures("_signals_as_they_were")
async def test_a_loop_that_takes_no_signal_handlers_hears_signals_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where `loop.add_signal_handler` is not there."""
    loop = asyncio.get_running_loop()

    def refused(*_: object) -> None:
        raise NotImplementedError

    monkeypatch.setattr(loop, "add_signal_handler", refused, raising=False)
    monkeypatch.setattr(loop, "remove_signal_handler", refused, raising=False)
    monkeypatch.setattr(serve, "sys", SimpleNamespace(platform="win32", stderr=sys.stderr))
    stopped = serve._stop_signal()  # pyright: ignore[reportPrivateUsage]
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        await stopped
    assert signal.getsignal(signal.SIGINT) is serve.stop_now
