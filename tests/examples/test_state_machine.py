from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.processes import PATIENCE_SECONDS, ServerProcess, environment_with, serving

pytestmark = pytest.mark.slow

SET_UP = "curl localhost:8080/resource/my-machine/setUp -H 'content-type: application/json' -d ''"
AT_ONCE = """
(curl localhost:8080/resource/a/setUp    -H 'content-type: application/json' -d '' &)
(curl localhost:8080/resource/a/tearDown -H 'content-type: application/json' -d '' &)
(curl localhost:8080/resource/b/setUp    -H 'content-type: application/json' -d '' &)
(curl localhost:8080/resource/b/setUp    -H 'content-type: application/json' -d '' &)
(curl localhost:8080/resource/b/tearDown -H 'content-type: application/json' -d '' &)
echo "executing..."
"""


def typed(server: ServerProcess, lines: str) -> str:
    """What lines print that were typed at a shell, but for the port; each curl ends its answer with a line break."""
    lines = lines.replace("localhost:8080", f"localhost:{server.port}").replace("curl ", "curl -sS -w '\\n' ")
    return subprocess.run(
        ["sh", "-c", lines], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=True
    ).stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl, which is not installed")
def test_the_lines_of_the_example_are_carried_out_one_after_the_other_per_machine(tmp_path: Path) -> None:
    environment = {"STATE_MACHINE_SECONDS": "0.2"}
    with serving("examples.state_machine:runtime", cwd=tmp_path, environment=environment) as server:
        assert typed(server, SET_UP) == '"my-machine is now UP"\n'
        assert typed(server, SET_UP) == '"my-machine is already UP"\n'
        began = time.monotonic()
        printed = typed(server, AT_ONCE)
        assert time.monotonic() - began >= 0.2
    answers = re.findall(r'"(\w) is (now|already) (UP|DOWN)"', printed)
    assert len(answers) == 5
    # Which request comes first is the network's business; that the answers fit one order per machine is ours.
    for machine in ("a", "b"):
        changes = [f"now {position}" for name, word, position in answers if (name, word) == (machine, "now")]
        assert changes == [("now UP", "now DOWN")[number % 2] for number in range(len(changes))]
        assert changes


def test_a_machine_that_keeps_killing_itself_finishes_every_transition(tmp_path: Path) -> None:
    environment = {"STATE_MACHINE_SECONDS": "0.05", "STATE_MACHINE_CRASHING": "0.35"}
    with httpx.Client(timeout=PATIENCE_SECONDS, trust_env=False) as client:
        server = crashing(tmp_path, environment)
        try:
            answers: list[str] = []
            for number, transition in enumerate(["setUp", "setUp", "tearDown", "tearDown"] * 2):
                answers.append(insist(client, server, f"/resource/m/{transition}", key=str(number)))
        finally:
            server.stop()
    assert answers == ["m is now UP", "m is already UP", "m is now DOWN", "m is already DOWN"] * 2
    assert "It is dead. Starting it again." in server.output


def crashing(folder: Path, environment: dict[str, str]) -> ServerProcess:
    with_port = [sys.executable, "-m", "examples.state_machine", "crash", "--port", str(free_port())]
    return ServerProcess(with_port, cwd=folder, environment=environment)


def insist(client: httpx.Client, server: ServerProcess, path: str, *, key: str) -> str:
    """Repeat a request until it is answered; its key makes that safe."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            response = client.post(server.url + path, headers={"idempotency-key": key})
        except httpx.TransportError:
            continue
        if response.is_success:
            answer: str = response.json()
            return answer
    raise AssertionError(f"{path} was never answered:\n{server.output}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_without_a_word_the_module_says_what_to_do(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.state_machine"]
    done = subprocess.run(command, cwd=tmp_path, env=environment_with({}), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "crash" in done.stderr
