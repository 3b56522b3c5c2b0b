"""Readers of a real `durably serve` lose nothing when it restarts, and slow ones do not grow it."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Thread

import httpx
import msgspec
import pytest

from durably.cli.servers.server import ServerName
from tests.processes import PATIENCE_SECONDS, ServerProcess, UvicornProcess, eventually, free_port, serving

pytestmark = pytest.mark.slow

APPLICATION = """
from durably import Runtime
from durably.events import PubSub

runtime = Runtime("sqlite:///app.db", [], pubsub=PubSub(sse=True))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "application.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(params=list(ServerName))
def in_front(request: pytest.FixtureRequest) -> str:
    """The option for each HTTP server."""
    name: ServerName = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return f"--server={name}"


class Browser:
    """An EventSource: it comes back with the last id when its stream ends, and for good only after an error status."""

    def __init__(self, url: str) -> None:
        self.numbers: list[int] = []
        self.connections = 0
        self.has_id = Event()
        self.refusal: int | None = None
        self._url = url
        self._last_id = ""
        self._leaves = False
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def leave(self) -> None:
        self._leaves = True

    def _read(self) -> None:
        while not self._leaves and self.refusal is None:
            try:
                self._read_once()
            except httpx.TransportError:
                Event().wait(0.01)

    def _read_once(self) -> None:
        headers = {"last-event-id": self._last_id} if self._last_id else {}
        with httpx.stream("GET", self._url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False) as response:
            if response.status_code != 200:
                self.refusal = response.status_code
                return
            self.connections += 1
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    self._last_id = value
                    self.has_id.set()
                elif name == "data":
                    self.numbers.append(msgspec.json.decode(value)["value"]["number"])


def publish(server: ServerProcess, numbers: range, padding: int = 0) -> None:
    """As one request, repeated until it is answered."""
    events = [{"name": "Counted", "value": {"number": number, "padding": "x" * padding}} for number in numbers]
    httpx.post(
        f"{server.url}/events",
        content=msgspec.json.encode(events),
        headers={"idempotency-key": str(numbers), "content-type": "application/json"},
        timeout=PATIENCE_SECONDS,
        trust_env=False,
    ).raise_for_status()


def test_a_reader_misses_nothing_and_sees_nothing_twice_when_the_server_stops_or_is_killed(
    folder: Path, in_front: str
) -> None:
    with serving("application:runtime", in_front, cwd=folder) as server:
        port = server.port
        browser = Browser(f"{server.url}/events")
        assert browser.has_id.wait(PATIENCE_SECONDS)
        publish_hundred(server, 0)
        server.stop()  # The reader may be anywhere in the middle.
    with serving("application:runtime", in_front, cwd=folder, port=port) as server:
        publish_hundred(server, 1)
        server.kill()
    with serving("application:runtime", in_front, cwd=folder, port=port) as server:
        publish_hundred(server, 2)
        assert eventually(lambda: len(browser.numbers) >= 300 or browser.refusal is not None)
        browser.leave()
    assert browser.refusal is None
    assert browser.numbers == [*range(300)]
    assert browser.connections >= 2


def publish_hundred(server: ServerProcess, life: int) -> None:
    for first in range(life * 100, life * 100 + 100, 10):
        publish(server, range(first, first + 10))


def resident_bytes(server: ServerProcess) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process holds")
def test_readers_that_take_nothing_cost_their_place_only_and_the_server_stops_with_them(
    folder: Path, in_front: str
) -> None:
    with serving("application:runtime", in_front, cwd=folder) as server:
        readers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(50)]
        for reader in readers:
            reader.sendall(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert reader.recv(64)
        publish(server, range(1_000), padding=1_000)
        before = resident_bytes(server)
        for first in range(1_000, 21_000, 1_000):
            publish(server, range(first, first + 1_000), padding=1_000)
        fast = Browser(f"{server.url}/events?start=beginning")
        assert eventually(lambda: len(fast.numbers) >= 21_000)
        assert fast.numbers == [*range(21_000)]
        grown = resident_bytes(server) - before
        assert grown < 200 * 1024 * 1024, f"{grown} bytes more, of {50 * 20_000 * 1_000} that wait"
        fast.leave()
        assert server.stop() == 0
        for reader in readers:
            reader.close()


def test_an_application_of_its_own_tells_of_the_events_of_nodes_that_come_and_go(folder: Path) -> None:
    with serving("application:runtime", cwd=folder) as server:
        (folder / "gateway.py").write_text(
            "from durably.ingress import EventServer\n"
            f"app = EventServer(nodes=['{server.url}', '{server.url}/', 'http://localhost:{server.port}'])\n"
        )
        gateway = UvicornProcess("gateway:app", cwd=folder, port=free_port())
        try:
            browser = Browser(f"{gateway.url}/events")
            assert browser.has_id.wait(PATIENCE_SECONDS)
            publish_hundred(server, 0)
            server.kill()
            with serving("application:runtime", cwd=folder, port=server.port) as again:
                publish_hundred(again, 1)
                assert eventually(lambda: len(browser.numbers) >= 200)
                assert browser.numbers == [*range(200)]
                refused = httpx.post(f"{gateway.url}/durably.events/publish", json=[], trust_env=False)
                assert refused.status_code == 404
                browser.leave()
        finally:
            gateway.end()
