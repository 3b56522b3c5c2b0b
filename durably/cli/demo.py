"""`durably demo`: the ticket tour as a show. A real server is killed in the middle of a checkout and started again.

Nothing here is simulated but the payment provider, and what that one did stands in a ledger outside the process. Each
step says what it found; if anything is not as durably promises, the command says so and exits with status 1.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx
import orjson
from rich.console import Console

from durably.cli.attached import Attachment
from durably.cli.examples import serve_command, server_path
from durably.cli.failures import CommandError

TARGET: Final = "examples.tickets:runtime"
KEPT_FOLDER: Final = "durably-demo"
RESERVATION_SECONDS: Final = 6
PAYMENT_SECONDS: Final = 1.5
START_SECONDS: Final = 15
"""How long the server may take to start before the demo gives up."""
WAIT_SECONDS: Final = 15
POLL_SECONDS: Final = 0.05
IDEMPOTENCY_KEY: Final = "mary-pays"


def demo(*, keep: bool) -> None:
    """Show it.

    Raises:
        CommandError: something is not as promised, or the server does not start.

    """
    console = Console(highlight=False, soft_wrap=True)
    with _folder(keep=keep) as folder:
        Show(console, folder).run()
        if keep:
            console.print(f"The database and the ledger are in {folder}.")


@contextmanager
def _folder(*, keep: bool) -> Generator[Path]:
    if not keep:
        with tempfile.TemporaryDirectory(prefix="durably-demo-") as folder:
            yield Path(folder)
        return
    kept = Path.cwd() / KEPT_FOLDER
    if kept.exists():
        raise CommandError(f"{kept} is there already, from an earlier demo. Remove it, or run the demo elsewhere.")
    kept.mkdir()
    yield kept


class Server:
    """The ticket app in a process of its own, on one port and one database."""

    def __init__(self, folder: Path, ledger: Path) -> None:
        self.port = _free_port()
        self._folder = folder
        self._environment = os.environ | {
            "PYTHONPATH": server_path(),
            "TICKETS_LEDGER": str(ledger),
            "TICKETS_PAYMENT_SECONDS": str(PAYMENT_SECONDS),
            "TICKETS_PAYMENT_FAILING": "0",
            "TICKETS_RESERVATION_SECONDS": str(RESERVATION_SECONDS),
        }
        self._attachment = Attachment()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start the process and wait until it answers; its process id."""
        with (self._folder / "server.log").open("ab") as log:
            process = self._process = self._attachment.start(
                ["serve", TARGET, "--port", str(self.port), "--admin-port", "0", "--log-level", "warning"],
                folder=self._folder, environment=self._environment, output=log,
            )  # fmt: skip
        _wait_until(lambda: self._answers(process), START_SECONDS, "the server to start")
        return process.pid

    def kill(self) -> None:
        """End the process as `kill -9` does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process, if it still runs, in an orderly way."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def _answers(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise CommandError(
                f"The server ended at once. It said: {(self._folder / 'server.log').read_text('utf-8', 'replace')}"
            )
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/restate/health", trust_env=False).is_success
        except httpx.TransportError:
            return False


class Show:
    """The steps, in order."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._ledger = folder / "ledger.jsonl"
        self._server = Server(folder, self._ledger)
        self._steps = 0

    def run(self) -> None:
        """All of it, with the server stopped at the end in any case."""
        began = time.monotonic()
        base_url = f"http://127.0.0.1:{self._server.port}"
        try:
            with httpx.Client(base_url=base_url, timeout=WAIT_SECONDS, trust_env=False) as client:
                self._client = client
                self._perform()
        finally:
            self._server.stop()
        self._console.print(f"\n[bold green]All of it held.[/] ({time.monotonic() - began:.1f} s)")

    def _perform(self) -> None:
        self._step("A server starts on an empty SQLite file")
        self._tell(f"$ {serve_command(TARGET, '--port', str(self._server.port))}")
        self._tell(f"process {self._server.start()} listens")

        self._step("Mary and Joe go shopping")
        self.expect("Mary reserves seat 2B", self._call("CartObject/Mary/addTicket", "seat2B"), True)
        self.expect("Joe wants the same seat", self._call("CartObject/Joe/addTicket", "seat2B"), False)
        self.expect("Joe reserves seat 3C instead", self._call("CartObject/Joe/addTicket", "seat3C"), True)

        self._step("Mary pays, and the process is killed while the payment provider is answering")
        self._lose_the_checkout()

        self._step("The server starts again on the same file")
        self._tell(f"process {self._server.start()} listens")
        paid = self._call("CartObject/Mary/checkout", key=IDEMPOTENCY_KEY)
        self.expect("Mary's browser repeats its request, with the same idempotency key", paid, True)
        self.expect("seat 2B is", self._call("TicketObject/seat2B/peek"), "Sold")
        self.expect("requests that the provider got", len(self._entries("request")), 2)
        self.expect("payments that it made", len(self._entries("payment")), 1)
        self.expect("mails to Mary", len(self._entries("mail")), 1)

        self._step(f"Joe never pays: his seat comes back {RESERVATION_SECONDS} s after he took it, crash or no crash")
        _wait_until(lambda: self._call("TicketObject/seat3C/peek") == "Available", WAIT_SECONDS, "seat 3C to come back")
        self.expect("Anna reserves seat 3C", self._call("CartObject/Anna/addTicket", "seat3C"), True)

    def _lose_the_checkout(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            checkout = pool.submit(self._call, "CartObject/Mary/checkout", key=IDEMPOTENCY_KEY)
            _wait_until(lambda: bool(self._entries("payment")), WAIT_SECONDS, "the payment")
            self._tell("the provider has taken the money; the server does not know it yet")
            self._server.kill()
            self._tell("kill -9")
        self.expect("Mary's browser", _what_came_of(checkout), "the connection broke")

    def _call(self, path: str, argument: object = None, *, key: str | None = None) -> object:
        headers = {"content-type": "application/json"} | ({"idempotency-key": key} if key else {})
        body = b"" if argument is None else orjson.dumps(argument)
        response = self._client.post(f"/{path}", content=body, headers=headers)
        if response.is_error:
            raise CommandError(f"{path} answered {response.status_code}: {response.text}")
        return orjson.loads(response.content)

    def _entries(self, kind: str) -> list[Mapping[str, object]]:
        if not self._ledger.exists():
            return []
        entries: list[Mapping[str, object]] = [orjson.loads(line) for line in self._ledger.read_bytes().splitlines()]
        return [entry for entry in entries if entry["kind"] == kind]

    def _step(self, text: str) -> None:
        self._steps += 1
        self._console.print(f"\n[bold]{self._steps}. {text}[/]")

    def _tell(self, text: str) -> None:
        self._console.print(f"   {text}", style="dim", markup=False)

    def expect(self, what: str, found: object, expected: object) -> None:
        shown = orjson.dumps(found).decode() if isinstance(found, bool) else str(found)
        if found != expected:
            raise CommandError(f"{what}: {shown}, but it should be {expected}.")
        self._console.print(f"   [green]✓[/] {what}: [bold]{shown}[/]")


def _what_came_of(checkout: Future[object]) -> str:
    error = checkout.exception()
    if isinstance(error, httpx.TransportError):
        return "the connection broke"
    return f"got {checkout.result()}"


def _wait_until(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise CommandError(f"Waited {seconds:g} s for {what}, in vain.")
        time.sleep(POLL_SECONDS)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
