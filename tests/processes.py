"""Servers in processes of their own, on free ports of the loopback interface, ended by the test that began them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PATIENCE_SECONDS: Final = 120
OPERATORS: Final = "For operators: "
READY: Final = "Listening on http://127.0.0.1:"


def environment_with(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, with the tree on the path and no colours."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | dict(extra)


def durably(
    *arguments: str, cwd: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "durably.cli", *arguments],
        cwd=cwd, env=environment_with(environment or {}), capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        check=False,
    )  # fmt: skip


def eventually(is_so: Callable[[], bool]) -> bool:
    """Whether something becomes true in reasonable time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (reached := is_so()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return reached


class ServerProcess:
    """A process that serves, from the moment that it says so."""

    def __init__(self, command: list[str], *, cwd: Path, environment: Mapping[str, str], scheme: str = "http") -> None:
        self._ready = READY.replace("http", scheme)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment_with(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.port = self._read_port()
        self._reader = Thread(target=self._read_on, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """Where operators ask."""
        line = next(line for line in self.lines if line.startswith(OPERATORS))
        return line.removeprefix(OPERATORS).strip()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self._wait()

    def stop(self) -> int:
        """As an operator does; the exit status."""
        self.process.terminate()
        try:
            return self._wait()
        except subprocess.TimeoutExpired:
            self.end()
            raise AssertionError(f"The server did not stop:\n{self.output}") from None

    def _wait(self) -> int:
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status

    def end(self) -> None:
        """Whatever state it is in."""
        if self.process.poll() is None:
            self.process.kill()
        self._wait()

    def _read_port(self) -> int:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(self._ready):
                return int(line.removeprefix(self._ready).split()[0])
        self.process.wait()
        self.process.stdout.close()
        raise AssertionError(f"The server did not start:\n{self.output}")

    def _read_on(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class UvicornProcess(ServerProcess):
    """An application of a user's on uvicorn. It is ready when somebody listens, since it says nothing on its own."""

    def __init__(self, target: str, *, cwd: Path, port: int) -> None:
        self._own_port = port
        options = ["--port", str(port), "--timeout-graceful-shutdown", "1"]
        super().__init__([sys.executable, "-m", "uvicorn", target, *options], cwd=cwd, environment={})

    def _read_port(self) -> int:
        assert eventually(lambda: self.process.poll() is not None or self._listens())
        return self._own_port

    def _listens(self) -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", self._own_port)) == 0


@contextmanager
def serving(
    target: str, *options: str, cwd: Path, port: int = 0, environment: Mapping[str, str] | None = None
) -> Generator[ServerProcess]:
    """`durably serve`, from its readiness to its end."""
    command = [sys.executable, "-m", "durably.cli", "serve", target, "--port", str(port), "--admin-port", "0", *options]
    server = ServerProcess(command, cwd=cwd, environment=environment or {})
    try:
        yield server
    finally:
        server.end()
