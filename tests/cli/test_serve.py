from __future__ import annotations

import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from durably.cli.servers.server import ServerName
from tests.processes import PATIENCE_SECONDS, ROOT, ServerProcess, durably, environment_with, eventually, serving

pytestmark = pytest.mark.slow

APPLICATION = '''
import asyncio
import os
from pathlib import Path

from durably import Context, ObjectContext, Runtime, Service, SharedContext, VirtualObject, handler, shared, state

class Counter(VirtualObject):
    count: int = state(default=0)

    @handler
    async def add(self, ctx: ObjectContext, by: int = 1) -> int:
        self.count += by
        return self.count

    @shared
    async def peek(self, ctx: SharedContext) -> int:
        return self.count

    @handler(private=True)
    async def reset(self, ctx: ObjectContext) -> None:
        del self.count

async def wait_for(name: str) -> str:
    """Says that it has begun, then waits until a file is there."""
    Path("begun").touch()
    while not Path(name).exists():
        await asyncio.sleep(0.01)
    return name

class Waiter(Service):
    @handler
    async def wait(self, ctx: Context, name: str) -> str:
        ctx.log.info("waiting", name=name)
        return await ctx.run("wait", wait_for, name)

runtime = Runtime("sqlite:///app.db", [Counter, Waiter])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A current folder with an application."""
    (tmp_path / "application.py").write_text(APPLICATION)
    return tmp_path


@pytest.fixture(params=list(ServerName))
def in_front(request: pytest.FixtureRequest) -> str:
    """The option for each HTTP server."""
    name: ServerName = request.param
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return f"--server={name}"


@pytest.fixture
def server(folder: Path, in_front: str) -> Iterator[ServerProcess]:
    """`durably serve`, ready."""
    with serving("application:runtime", in_front, cwd=folder) as server:
        yield server


def call(server: ServerProcess, path: str, body: bytes = b"") -> httpx.Response:
    return httpx.post(f"{server.url}/{path}", content=body, timeout=PATIENCE_SECONDS, trust_env=False)


def test_it_prints_what_it_serves_and_serves_it(server: ServerProcess) -> None:
    assert "Counter (virtual object)" in server.output
    assert re.search(r"add\(by: int( = 1)?\) -> int +alone on its key", server.output)
    assert re.search(r"peek\(\) -> int +beside others", server.output)
    assert re.search(r"reset\(\) -> None +alone on its key, private", server.output)
    assert "Waiter (service)" in server.output
    assert re.search(r"Store: .*app\.db", server.output)
    assert [call(server, "Counter/a/add", b"2").content for _ in range(2)] == [b"2", b"4"]
    assert call(server, "Counter/a/reset").status_code == 400
    assert httpx.get(f"{server.url}/restate/health", trust_env=False).json() == {"services": ["Counter", "Waiter"]}


def test_what_was_answered_is_there_after_a_kill(folder: Path, server: ServerProcess) -> None:
    call(server, "Counter/a/add", b"2")
    server.kill()
    with serving("application:runtime", cwd=folder, port=server.port) as again:
        assert call(again, "Counter/a/peek").content == b"2"


def test_on_a_signal_waiting_callers_get_their_answers_and_new_ones_a_503(folder: Path, server: ServerProcess) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, server, "Waiter/wait", b'"go"')
        assert eventually((folder / "begun").exists)
        server.process.terminate()
        while call(server, "Counter/a/add").status_code == 200:
            pass
        for _ in range(100):  # For as long as it drains, and on new connections too.
            refused = call(server, "Counter/a/add")
            assert (refused.status_code, refused.json()["source"]) == (503, "ingress")
            assert "can be safely retried" in refused.json()["message"]
        (folder / "go").touch()
        answered = waiting.result()
    assert (answered.status_code, answered.content) == (200, b'"go"')
    assert server.process.wait(PATIENCE_SECONDS) == 0


def test_a_second_signal_is_answered_and_ends_at_once_what_the_first_waits_for(
    folder: Path, server: ServerProcess
) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(call, server, "Waiter/wait", b'"go"')
        assert eventually((folder / "begun").exists)
        server.process.send_signal(signal.SIGINT)
        assert eventually(lambda: "waits for 1 action 'wait' (Waiter/wait); Ctrl-C again stops now" in server.output)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(PATIENCE_SECONDS) == -signal.SIGINT
        assert isinstance(waiting.exception(), httpx.TransportError)
    assert eventually(lambda: "Stopped now." in server.output)
    assert "Traceback" not in server.output
    assert "Task was destroyed" not in server.output


EMBEDDED = """
import asyncio
from application import Waiter, runtime

async def main():
    async with runtime:
        await runtime.service(Waiter).wait("go")

"""
(README_CATCHES_CTRL_C,) = re.findall(r"```python\n(try:.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_an_embedded_runtime_answers_a_second_signal_too(folder: Path) -> None:
    command = [sys.executable, "-c", EMBEDDED + README_CATCHES_CTRL_C]
    with subprocess.Popen(
        command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment_with({})
    ) as program:  # fmt: skip
        assert program.stderr is not None
        assert eventually((folder / "begun").exists)
        program.send_signal(signal.SIGINT)
        assert "waits for 1 action 'wait' (Waiter/wait); Ctrl-C again stops now" in program.stderr.readline()
        program.send_signal(signal.SIGINT)
        said = program.stderr.read()
    assert program.returncode == 128 + signal.SIGINT
    assert "stops now" in said.splitlines()[0]
    assert "Traceback" not in said
    assert "Task was destroyed" not in said


def test_another_store_can_be_given(folder: Path) -> None:
    with serving("application:runtime", "--store", "sqlite:///other.db", cwd=folder) as server:
        assert call(server, "Counter/a/add").content == b"1"
        assert server.stop() == 0
    assert (folder / "other.db").exists()
    assert not (folder / "app.db").exists()


def test_logs_can_be_json(folder: Path) -> None:
    (folder / "go").touch()
    with serving("application:runtime", "--json-logs", cwd=folder) as server:
        call(server, "Waiter/wait", b'"go"')
        assert server.stop() == 0
    logged = [orjson.loads(line) for line in server.lines if line.startswith("{")]
    assert any(line["event"] == "waiting" and line["name"] == "go" for line in logged)


def test_a_port_in_use_is_a_sentence(folder: Path, in_front: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = durably("serve", "application:runtime", "--port", str(port), in_front, cwd=folder)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Port {port} on 127.0.0.1 is in use")
    assert "Traceback" not in ended.stderr


def test_a_port_served_by_another_server_is_a_sentence_and_the_store_is_not_touched(
    folder: Path, server: ServerProcess, in_front: str
) -> None:
    other = f"sqlite:///{folder / 'other.db'}"
    ended = durably(
        "serve", "application:runtime", "--port", str(server.port), "--store", other, in_front, cwd=folder
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"Port {server.port} on 127.0.0.1 is in use")
    assert not (folder / "other.db").exists()


def test_half_a_request_does_not_keep_it_from_ending_well(server: ServerProcess) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as slow:
        slow.sendall(b"POST /Counter/a/add HTTP/1.1\r\nhost: here\r\n")
        assert call(server, "Counter/a/add").content == b"1"
        assert server.stop() == 0
    assert "Traceback" not in server.output


def test_a_store_in_use_is_a_sentence_that_names_the_holder(folder: Path, server: ServerProcess) -> None:
    ended = durably("serve", "application:runtime", "--port", "0", cwd=folder)
    assert ended.returncode == 1
    assert str(server.process.pid) in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_server_whose_store_is_gone_ends_with_a_sentence(folder: Path, server: ServerProcess) -> None:
    """One that stays would answer 503 for ever, and nothing would start it again."""
    call(server, "Counter/a/add", b"2")
    for file in folder.glob("app.db*"):
        file.rename(file.with_name(f"moved-{file.name}"))
    assert eventually(lambda: server.process.poll() is not None)
    assert server.process.wait() == 1
    server.end()
    assert re.search(r"app\.db.* is lost", server.lines[-1])
    assert "Traceback" not in server.output


@pytest.mark.parametrize("store", ["mongodb://somewhere", "sqlite:///no/such/folder/app.db", "nonsense", ""])
def test_a_store_that_cannot_be_had_is_a_sentence(folder: Path, store: str) -> None:
    ended = durably("serve", "application:runtime", "--port", "0", "--store", store, cwd=folder)
    assert ended.returncode == 1
    assert ended.stderr.strip()
    assert "Traceback" not in ended.stderr


def test_a_server_that_waits_for_its_store_says_so_and_can_be_stopped(folder: Path) -> None:
    command = [sys.executable, "-m", "durably.cli", "serve", "application:runtime", "--port", "0", "--admin-port", "0"]
    with closing(sqlite3.connect(folder / "other.db", isolation_level=None)) as other:
        other.execute("begin exclusive")
        with subprocess.Popen(
            [*command, "--store", "sqlite:///other.db"], cwd=folder, env=environment_with({}), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as waiting:  # fmt: skip
            assert waiting.stdout is not None
            assert "another program keeps it locked" in waiting.stdout.readline()
            waiting.send_signal(signal.SIGINT)
            assert "Stopped before the store could be opened." in waiting.stdout.read()
            assert waiting.wait(PATIENCE_SECONDS) == 0


def test_an_address_that_is_none_is_a_sentence(folder: Path) -> None:
    ended = durably("serve", "application:runtime", "--port", "0", "--host", "no.such.host.invalid", cwd=folder)
    assert ended.returncode == 1
    assert "no.such.host.invalid" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_operators_have_a_port_of_their_own(folder: Path, server: ServerProcess) -> None:
    told = re.search(r"For operators: (http://127\.0\.0\.1:\d+)", server.output)
    assert told is not None
    admin = told[1]
    assert httpx.get(f"{admin}/health", trust_env=False).status_code == 200
    assert httpx.get(f"{admin}/version", trust_env=False).json()["ingress_endpoint"] == server.url
    with ThreadPoolExecutor(1) as pool:
        sent = call(server, "Waiter/wait/send", b'"never"').json()["invocationId"]
        waiting = pool.submit(call, server, "Waiter/wait", b'"never"')
        assert eventually((folder / "begun").exists)
        assert httpx.patch(f"{admin}/invocations/{sent}/cancel", trust_env=False).status_code == 202
        batch = f"{admin}/internal/invocations_batch_operations/kill"
        assert eventually(
            lambda: len(httpx.post(batch, json={"target": "Waiter"}, trust_env=False).json()["succeeded"]) == 1
        )
        assert waiting.result().status_code == 409
    assert server.stop() == 0


def test_an_admin_port_in_use_is_a_sentence(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = durably("serve", "application:runtime", "--port", "0", "--admin-port", str(port), cwd=folder)
    assert ended.returncode == 1
    assert f"Port {port} on 127.0.0.1 is in use" in ended.stderr
    assert "--admin-port" in ended.stderr


def test_a_start_says_how_much_goes_on_and_what_waits_for_a_person(folder: Path) -> None:
    with serving("application:runtime", cwd=folder) as server:
        ids: list[str] = []
        for name in ("never", "paused"):
            sent = httpx.post(f"{server.url}/Waiter/wait/send", json=name)
            ids.append(sent.json()["invocationId"])
        assert eventually(lambda: (folder / "begun").exists())
        httpx.patch(f"{server.admin_url}/invocations/{ids[1]}/pause").raise_for_status()
        server.kill()
    with serving("application:runtime", cwd=folder) as server:
        told = "1 invocation goes on, 1 invocation waits for a person: durably invocations list --status paused."
        assert eventually(lambda: told in server.output)
        (folder / "never").touch()


def certificate(folder: Path) -> None:
    """A certificate for this machine, by itself, in `own.pem`, with its key in `own.key`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    began = datetime(2020, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(began)
        .not_valid_after(began + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "own.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "own.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_both_ports_speak_https_and_take_only_their_tokens(folder: Path) -> None:
    certificate(folder)
    (folder / "durably.toml").write_text(
        "[server]\ntls_certificate = 'own.pem'\ntls_key = 'own.key'\nport = 0\ntarget = 'application:runtime'\n"
        "[ingress]\ntoken_file = 'callers.txt'\n[admin]\nport = 0\nhost = '0.0.0.0'\n",
        "utf-8",
    )
    (folder / "callers.txt").write_text("for-callers\n", "utf-8")
    command = [sys.executable, "-m", "durably.cli", "serve"]
    secrets = {"DURABLY_ADMIN_TOKEN": "for-operators", "SSL_CERT_FILE": str(folder / "own.pem")}
    server = ServerProcess(command, cwd=folder, environment=secrets, scheme="https")
    try:
        trusted = ssl.create_default_context(cafile=folder / "own.pem")
        admin = server.admin_url.replace("0.0.0.0", "127.0.0.1")
        for url, own, other in (
            (f"https://127.0.0.1:{server.port}/Counter/a/add", "for-callers", "for-operators"),
            (f"{admin}/invocations/inv_1x/cancel", "for-operators", "for-callers"),
        ):
            method = "POST" if url.endswith("add") else "PATCH"
            for token, status in ((other, 401), (own, 200 if method == "POST" else 404)):
                headers = {"authorization": f"Bearer {token}"}
                answer = httpx.request(method, url, headers=headers, verify=trusted)
                assert answer.status_code == status
        told = durably("state", "get", "Counter", "a", "--json", "--admin", admin, cwd=folder, environment=secrets)
        assert (told.returncode, orjson.loads(told.stdout)) == (0, {"count": 1})
        server.stop()
        for secret in ("for-callers", "for-operators"):
            assert secret not in server.output
            assert all(secret.encode() not in file.read_bytes() for file in folder.glob("app.db*"))
    finally:
        server.end()


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("tls_certificate = 'own.pem'", "needs both"),
        ("tls_certificate = 'own.pem'\ntls_key = 'nowhere.key'", "There is no file nowhere.key"),
        ("tls_certificate = 'own.pem'\ntls_key = 'own.pem'", "cannot be used"),
        ("tls_certificate = 'own.pem'\ntls_key = 'own.key'\nhttp_server = 'granian'", "by uvicorn only"),
    ],
)
def test_a_certificate_that_does_not_work_is_a_sentence(folder: Path, section: str, said: str) -> None:
    certificate(folder)
    (folder / "durably.toml").write_text(f"[server]\n{section}", "utf-8")
    told = durably("serve", "application:runtime", cwd=folder)
    assert (told.returncode, told.stdout) == (1, "")
    assert said in told.stderr
    assert "Traceback" not in told.stderr
