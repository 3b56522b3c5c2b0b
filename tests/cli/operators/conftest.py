"""A server in a thread of this process, with operators' port and store, and the command run in this process."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import orjson
import pytest

from durably import Context, ObjectContext, Runtime, Service, SharedContext, VirtualObject, handler, shared, state
from durably.admin import Admin
from durably.cli.commands import run
from durably.cli.servers import uvicorn_server
from durably.codecs import Codec
from durably.ingress import Ingress
from tests.cli.output_schemas import assert_fits, command_of

PATIENCE_SECONDS = 30


class Counter(VirtualObject):
    count: int = state(default=0)
    note: str = state(default="")

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count

    @handler
    async def wait(self, ctx: ObjectContext) -> None:
        await ctx.sleep(3600)

    @handler
    async def charge(self, ctx: ObjectContext) -> None:
        await ctx.run("charge", unreachable)


async def unreachable() -> None:
    raise ConnectionError("the printer is off")


class Mailer(Service):
    @handler
    async def send(self, ctx: Context, to: str) -> str:
        return to


@dataclass(frozen=True)
class Told:
    """What a command said and ended with."""

    arguments: tuple[str, ...]
    status: int | str | None
    out: str
    err: str

    @property
    def data(self) -> Any:
        """What it printed as JSON, which fits the command's schema."""
        assert self.status == 0, self.err
        return self.data_of_a_failure

    @property
    def data_of_a_failure(self) -> Any:
        """The same where it ended with another status than 0."""
        data = orjson.loads(self.out)
        assert_fits(command_of(self.arguments), data)
        return data


Command = Callable[..., Told]


@dataclass(frozen=True)
class Site:
    """Where the server is."""

    url: str
    admin: str
    store: str

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        told = headers if body is None else {"content-type": "application/json", **headers}
        content = b"" if body is None else orjson.dumps(body)
        answer = httpx.post(self.url + path, content=content, headers=told, timeout=PATIENCE_SECONDS)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def send(self, path: str, body: object = None) -> str:
        """The id of a message."""
        id: str = self.post(f"{path}/send", body)["invocationId"]
        return id

    def until(self, id: str, status: str) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while httpx.get(f"{self.admin}/invocations/{id}").json()["status"] != status:
            assert time.monotonic() < deadline


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    with served(folder) as found:
        yield found


class served:  # noqa: N801
    """A server on a store in a folder, until the end of the block."""

    def __init__(
        self,
        folder: Path,
        guard: Callable[[Any], Any] = lambda admin: admin,
        *,
        store: str | None = None,
        codec: Codec | None = None,
    ) -> None:
        self._store = f"sqlite:///{folder / 'app.db'}" if store is None else store
        self._codec = codec
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self._guard = guard
        self._thread = Thread(target=lambda: asyncio.run(self._serve()))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def __enter__(self) -> Site:
        self._thread.start()
        ports = [one.getsockname()[1] for one in self._sockets]
        found = Site(f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", self._store)
        httpx.get(f"{found.url}/restate/health", timeout=PATIENCE_SECONDS).raise_for_status()
        return found

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with Runtime(self._store, [Counter, Mailer], codec=self._codec, drain=0) as runtime:
            applications: list[Any] = [Ingress(runtime), self._guard(Admin(runtime, is_own_port=True))]
            servers = [
                uvicorn_server.make(application, listener, lambda: None)
                for application, listener in zip(applications, self._sockets, strict=True)
            ]
            serving = [asyncio.ensure_future(one.serve()) for one in servers]
            await self._stop.wait()
            for one in servers:
                one.stop()
            await asyncio.gather(*serving)


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `durably …` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def told(*arguments: str) -> Told:
        monkeypatch.setattr("sys.argv", ["durably", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Told(arguments, 0 if ended.value.code is None else ended.value.code, captured.out, captured.err)

    return told
