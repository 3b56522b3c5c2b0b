"""A PostgreSQL server for tests: a process of its own on a free port of the loopback interface, in a scratch folder."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

psycopg = pytest.importorskip("psycopg", reason="psycopg is not installed: durably[postgres]")

PATIENCE_SECONDS: Final = 60
_schemas = count()


def find_binaries() -> Path | None:
    """The folder of `postgres` and `initdb`, wherever the machine has them."""
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    candidates += [Path(folder) for folder in sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)]
    return next((folder for folder in candidates if (folder / "initdb").exists()), None)


def _as_somebody_else() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = [name for name in ("postgres", "nobody") if any(one.pw_name == name for one in pwd.getpwall())]
    if not names:
        pytest.skip("PostgreSQL does not run as root, and there is no other user here")
    user = pwd.getpwnam(names[0])
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class PostgresServer:
    """One cluster. It can be ended as by `kill -9`, and started again on what is left."""

    def __init__(self, binaries: Path, folder: Path, **settings: str) -> None:
        self._binaries = binaries
        self._folder = folder
        self._settings = settings
        self._user = _as_somebody_else()
        if self._user:
            os.chown(folder, self._user["user"], self._user["group"])
        self.port = _free_port()
        self._process: subprocess.Popen[Any] | None = None

    def create(self) -> None:
        subprocess.run(
            [self._binaries / "initdb", "-D", self._folder / "data", "-U", "tester", "-A", "trust", "-E", "UTF8",
             "--locale=C", "--no-instructions"],
            **self._user, check=True, capture_output=True, cwd=self._folder, timeout=PATIENCE_SECONDS,
        )  # fmt: skip

    def start(self) -> None:
        options = {
            "port": str(self.port), "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "shared_buffers": "64MB", "max_connections": "200", **self._settings,
        }  # fmt: skip
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self._folder / "data", *arguments],
                **self._user, stdout=log, stderr=log, cwd=self._folder,
            )  # fmt: skip
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        for _ in range(PATIENCE_SECONDS * 20):
            assert self._process is not None
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._folder / "log").read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError((self._folder / "log").read_text())

    def stop(self, how: signal.Signals = signal.SIGQUIT) -> None:
        """SIGQUIT loses what an immediate shutdown loses: nothing that was acknowledged."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(PATIENCE_SECONDS)

    def restart(self) -> None:
        self.stop()
        self.start()

    def require_passwords(self) -> None:
        """From the next connection on."""
        (self._folder / "data" / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def url(self, schema: str | None = None) -> str:
        at = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        return at if schema is None else f"{at}?schema={schema}"

    def new_url(self) -> str:
        """A place for a store that does not exist yet."""
        return self.url(f"s{next(_schemas)}")

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running_postgres(**settings: str) -> Generator[PostgresServer]:
    """A server until the end of the block; the test is skipped where none can be had."""
    binaries = find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="durably-postgres-"))
    folder.chmod(0o755)
    server = PostgresServer(binaries, folder, **settings)
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
