"""Three servers on one store in PostgreSQL: whatever ends the owner, nothing is lost, doubled or stale.

Writers add to one counter with idempotency keys, readers ask for it, at any of the three servers, while owners are
killed, stopped for longer than their lease, cut off, and the database restarts. The ledger of side effects is a file.
How long each kind of failover took until the next acknowledgement is printed (`-s`), not asserted.
"""

from __future__ import annotations

import itertools
import random
import signal
import sys
import time
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread

import httpx
import pytest

from tests.levels import level
from tests.postgres import PostgresServer
from tests.processes import PATIENCE_SECONDS, ServerProcess, eventually, serving

pytestmark = pytest.mark.slow

LEASE_SECONDS = 1.0
CLIENT_TIMEOUT_SECONDS = 0.7
ROUNDS = 100 if level().is_search else 20 if level().with_slow else 4
KINDS = ("kill", "stop", "cut", "restart")

APPLICATION = """
import os
from pathlib import Path

from durably import ObjectContext, Runtime, SharedContext, VirtualObject, handler, shared, state
from durably.storage.postgres import PostgresStore

def note(key: str) -> None:
    with Path("ledger").open("a") as ledger:
        ledger.write(key + "\\n")

class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, key: str) -> int:
        await ctx.run("note", note, key)
        self.count += 1
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count

runtime = Runtime(PostgresStore(os.environ["STORE"], lease_seconds=float(os.environ["LEASE"])), [Counter])
"""


@dataclass
class Observed:
    """What clients saw: (began, ended, value) of each answer."""

    writes: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])
    reads: list[tuple[float, float, int]] = field(default_factory=list[tuple[float, float, int]])
    keys: list[str] = field(default_factory=list[str])
    lock: Lock = field(default_factory=Lock)

    def write_after(self, moment: float) -> float | None:
        """When the first write ended that began after a moment."""
        with self.lock:
            return min((ended for began, ended, _ in self.writes if began > moment), default=None)

    def stale_reads(self) -> list[tuple[float, float, int]]:
        return [read for read in self.reads if read[2] < self._acknowledged_before(read[0])]

    def disordered_writes(self) -> list[tuple[float, float, int]]:
        return [write for write in self.writes if write[2] <= self._acknowledged_before(write[0])]

    def _acknowledged_before(self, moment: float) -> int:
        return max((value for _, ended, value in self.writes if ended < moment), default=0)


class Cluster:
    """Three servers, each of which is started again when it has been killed."""

    def __init__(self, folder: Path, database: PostgresServer, stack: ExitStack) -> None:
        self._folder = folder
        self._database = database
        self.url = database.new_url()
        self._schema = self.url.partition("schema=")[2]
        self.servers = [self._start(stack) for _ in range(3)]
        self._stack = stack

    def _start(self, stack: ExitStack) -> ServerProcess:
        command = [sys.executable, "-m", "durably.cli", "serve", "application:runtime", "--standby", "--port", "0",
                   "--admin-port", "0"]  # fmt: skip
        environment = {"STORE": self.url, "LEASE": str(LEASE_SECONDS)}
        server = ServerProcess(command, cwd=self._folder, environment=environment)
        stack.callback(server.end)
        assert eventually(lambda: "Standing by" in server.output or "owns the store" in server.output), server.output
        return server

    @property
    def holder(self) -> ServerProcess:
        """The server that owns the store by now, or did last."""
        assert eventually(lambda: bool(self._holders()))
        return self._holders()[0]

    def outputs(self) -> str:
        """What the servers have said, and the exit status of those that have ended."""
        return "\n\n".join(f"{one.url}, {one.process.poll()}:\n{one.output}" for one in self.servers)

    def _holders(self) -> list[ServerProcess]:
        rows = self._database.execute(f"select process_id from {self._schema}.owner")
        return [one for one in self.servers if rows and one.process.pid == rows[0][0]]

    def disturb(self, kind: str) -> Generator[None]:
        """Do it; what follows the yield undoes it."""
        owner = self.holder
        match kind:
            case "kill":
                owner.kill()
                yield
                self.servers[self.servers.index(owner)] = self._start(self._stack)
            case "stop":
                owner.process.send_signal(signal.SIGSTOP)
                assert eventually(lambda: self.holder is not owner)
                yield
                owner.process.send_signal(signal.SIGCONT)
            case "cut":
                self._database.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'durably'"
                )
                yield
            case _:
                self._database.restart()
                yield


@contextmanager
def clients(cluster: Cluster, observed: Observed) -> Generator[None]:
    stop = Event()
    numbers = itertools.count()

    def answer_of(client: httpx.Client, path: str, **options: object) -> int | None:
        server = random.choice(cluster.servers)
        with suppress(httpx.HTTPError):
            response = client.post(f"{server.url}/Counter/one/{path}", **options)  # type: ignore[arg-type]
            if response.status_code == 200:
                value: int = response.json()
                return value
        return None

    def write() -> None:
        with httpx.Client(timeout=CLIENT_TIMEOUT_SECONDS) as client:
            while not stop.is_set():
                key = f"key {next(numbers)}"
                observed.keys.append(key)
                began = time.monotonic()
                deadline = began + PATIENCE_SECONDS
                while time.monotonic() < deadline:  # Also behind the end: no key stays without an answer.
                    value = answer_of(client, "add", json=key, headers={"idempotency-key": key})
                    if value is not None:
                        with observed.lock:
                            observed.writes.append((began, time.monotonic(), value))
                        break
                    time.sleep(0.005)

    def read() -> None:
        with httpx.Client(timeout=CLIENT_TIMEOUT_SECONDS) as client:
            while not stop.is_set():
                began = time.monotonic()
                value = answer_of(client, "peek")
                if value is not None:
                    observed.reads.append((began, time.monotonic(), value))
                time.sleep(0.005)

    threads = [Thread(target=one) for one in (write, write, write, read, read)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def seconds_until_an_acknowledgement(cluster: Cluster, observed: Observed, kind: str) -> float:
    began = time.monotonic()
    with contextmanager(cluster.disturb)(kind):
        assert eventually(lambda: observed.write_after(began) is not None), cluster.outputs()
    ended = observed.write_after(began)
    assert ended is not None
    seen = len(observed.writes)
    assert eventually(lambda: len(observed.writes) > seen + 10)
    return ended - began


def test_nothing_is_lost_doubled_or_stale_over_many_failovers(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    observed = Observed()
    took: defaultdict[str, list[float]] = defaultdict(list)
    with ExitStack() as stack:
        cluster = Cluster(tmp_path, server, stack)
        with clients(cluster, observed):
            assert eventually(lambda: bool(observed.writes))
            for number in range(ROUNDS):
                kind = KINDS[number % len(KINDS)]
                took[kind].append(seconds_until_an_acknowledgement(cluster, observed, kind))
    for kind, seconds in took.items():
        print(f"{kind}: next acknowledgement after {sorted(round(one, 2) for one in seconds)} s")
    print(f"{len(observed.writes)} writes, {len(observed.reads)} reads")
    values = sorted(value for _, _, value in observed.writes)
    assert values == [*range(1, len(observed.keys) + 1)]  # None lost, none doubled.
    assert observed.stale_reads() == []
    assert observed.disordered_writes() == []
    ledger = Tally((tmp_path / "ledger").read_text().splitlines())
    assert set(ledger) == set(observed.keys)
    assert sum(ledger.values()) - len(ledger) <= 3 * ROUNDS  # Rule A2: what was under way at a failover, again.


def test_an_owner_that_was_stopped_answers_no_question_from_memory(server: PostgresServer, tmp_path: Path) -> None:
    """Rule X9. The question waits in its socket, and nothing else tells it that it has a successor."""
    (tmp_path / "application.py").write_text(APPLICATION)
    with ExitStack() as stack, httpx.Client(timeout=PATIENCE_SECONDS) as client:
        cluster = Cluster(tmp_path, server, stack)

        def add(key: str) -> int:
            def is_answered() -> bool:
                url = f"{cluster.holder.url}/Counter/one/add"
                answers.append(client.post(url, json=key, headers={"idempotency-key": key}))
                return answers[-1].status_code == 200

            answers: list[httpx.Response] = []
            assert eventually(is_answered)
            value: int = answers[-1].json()
            return value

        assert add("before") == 1
        first = cluster.holder
        assert client.post(f"{first.url}/Counter/one/peek").json() == 1
        disturbance = cluster.disturb("stop")
        next(disturbance)
        assert add("after") == 2
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(httpx.post, f"{first.url}/Counter/one/peek", timeout=PATIENCE_SECONDS)
            time.sleep(0.3)
            assert next(disturbance, None) is None
            answer = asked.result()
        assert (answer.status_code, answer.text[:1]) == (503, "{")
        assert eventually(lambda: "This server stands by" in client.post(f"{first.url}/Counter/one/peek").text)


def test_an_owner_that_is_told_to_stop_hands_over_with_all_that_it_has_accepted(
    server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    with ExitStack() as stack, httpx.Client(timeout=PATIENCE_SECONDS) as client:
        cluster = Cluster(tmp_path, server, stack)

        def count() -> int | None:
            answer = client.post(f"{cluster.holder.url}/Counter/one/peek")
            return int(answer.json()) if answer.status_code == 200 else None

        first = cluster.holder
        others = [one for one in cluster.servers if one is not first]
        refused = client.post(f"{others[0].url}/Counter/one/peek")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["metadata"] == {"holder": first.url}
        for number in range(20):
            sent = client.post(f"{first.url}/Counter/one/add/send", json=f"{number}")
            assert sent.status_code == 202
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(PATIENCE_SECONDS) == 0
        assert eventually(lambda: cluster.holder is not first)
        assert eventually(lambda: count() == 20)
        assert "owns the store" in cluster.holder.output


def test_a_server_without_standby_that_was_superseded_ends_with_a_sentence(
    server: PostgresServer, tmp_path: Path
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    url = server.new_url()
    environment = {"STORE": url, "LEASE": str(LEASE_SECONDS)}
    with serving("application:runtime", cwd=tmp_path, environment=environment) as first:
        assert httpx.post(f"{first.url}/Counter/one/add", json="a").json() == 1
        schema = url.partition("schema=")[2]
        server.execute(f"update {schema}.owner set epoch = epoch + 1, host = 'elsewhere', process_id = 7")
        assert eventually(lambda: first.process.poll() is not None)
        assert first.process.wait() == 1
    assert "has been taken over by " in first.lines[-1]
    assert "Traceback" not in first.output
