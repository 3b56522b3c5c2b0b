"""A large or odd body holds up nobody else: `durably serve` answers others while it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest

from tests.processes import PATIENCE_SECONDS, serving

pytestmark = pytest.mark.slow

APPLICATION = """
from typing import Any
from durably import Context, Runtime, Service, handler

class Reader(Service):
    @handler
    async def read(self, ctx: Context, what: Any) -> int:
        return len(what)

runtime = Runtime("sqlite:///large.db", [Reader])
"""
MEGABYTES = 4
JSON = {"content-type": "application/json"}
ANSWERED_MEANWHILE = 10

BODIES: dict[str, tuple[Callable[[], bytes], int]] = {
    "many small objects": (lambda: b"[" + b'{"a":1,"b":"two"},' * (MEGABYTES * 55_000) + b"1]", 200),
    "many small numbers": (lambda: b"[" + b"1," * (MEGABYTES * 500_000) + b"1]", 200),
    "deep brackets": (lambda: b"[" * 100_000 + b"]" * 100_000, 400),
}


@pytest.mark.parametrize("what", BODIES)
def test_the_server_answers_others_while_a_large_body_is_read(tmp_path: Path, what: str) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    make, status = BODIES[what]
    body = make()
    with serving("application:runtime", cwd=tmp_path) as server, httpx.Client(timeout=PATIENCE_SECONDS) as client:
        is_answered = Event()
        statuses: list[int] = []

        def send() -> None:
            try:
                answer = httpx.post(f"{server.url}/Reader/read", content=body, headers=JSON, timeout=PATIENCE_SECONDS)
                statuses.append(answer.status_code)
            finally:
                is_answered.set()

        sending = Thread(target=send)
        sending.start()
        healthy = 0
        while not is_answered.is_set():
            healthy += client.get(f"{server.url}/restate/health").status_code == 200
        sending.join()
    assert statuses == [status]
    assert healthy >= ANSWERED_MEANWHILE
