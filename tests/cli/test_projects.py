"""`durably new`, `dev`, `worker`, `main` and `migrate`, as the README of a new project has them."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from durably.cli.attached import GONE
from durably.cli.failures import CommandError
from durably.cli.new import make_project
from tests.processes import PATIENCE_SECONDS, READY, ServerProcess, durably, environment_with, eventually

pytestmark = pytest.mark.slow

READY_API = "API server started"


class Folder:
    """A new project on free ports."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ports = {"8080": free_port(), "3000": free_port()}
        self.environment = {"DURABLY_SERVER_PORT": str(self.ports["8080"]), "DURABLY_ADMIN_PORT": "0"}

    def command_lines(self) -> list[str]:
        readme = (self.path / "README.md").read_text()
        return [line.strip() for line in readme.splitlines() if line.startswith("    ")]

    def curl_lines(self) -> list[str]:
        return [line for line in self.command_lines() if line.startswith("curl")]

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.path / name).read_text()
        assert old in text
        (self.path / name).write_text(text.replace(old, new))

    def curl(self, line: str, **replaced: str) -> Any:
        """What a line of the README answers."""
        for old, new in {**{f":{usual}": f":{port}" for usual, port in self.ports.items()}, **replaced}.items():
            line = line.replace(old, new)
        done = subprocess.run(
            f"{line} --silent --show-error --fail-with-body --noproxy '*'", shell=True, capture_output=True,
            timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, (line, done)
        return orjson.loads(done.stdout)

    @contextmanager
    def running(self, *command: str, environment: Mapping[str, str] | None = None) -> Generator[ServerProcess]:
        """A command that serves, until it has been asked to stop and has."""
        program = [sys.executable, "-m", "durably.cli", *command]
        server = ServerProcess(program, cwd=self.path, environment={**self.environment, **(environment or {})})
        try:
            yield server
        finally:
            if server.process.poll() is None:
                server.stop()

    def pytest(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], cwd=self.path, capture_output=True,
            text=True, env=environment_with({}), timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip


def free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture
def plain(tmp_path: Path) -> Folder:
    made = durably("new", "plain", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return Folder(tmp_path / "plain")


@pytest.fixture
def models(tmp_path: Path) -> Folder:
    made = durably("new", "orders", "--models", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    folder = Folder(tmp_path / "orders")
    folder.change("project.py", "3000", str(folder.ports["3000"]))
    return folder


@pytest.fixture(autouse=True)
def has_curl() -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")


def test_the_commands_of_a_new_project_work_and_its_test_passes(plain: Folder) -> None:
    ran = plain.pytest()
    assert ran.returncode == 0, ran.stdout
    for command in ("dev", "serve"):
        assert f"durably {command}" in plain.command_lines()
        with plain.running(command):
            assert [plain.curl(line) for line in plain.curl_lines()] == [True, False, ["2B"]]
    assert {"app.db", "development.db"} <= {path.name for path in plain.path.iterdir()}


def test_the_commands_of_a_new_project_of_models_work_and_its_test_passes(models: Folder) -> None:
    ran = models.pytest()
    assert ran.returncode == 0, ran.stdout
    with models.running("dev") as server:
        assert eventually(lambda: READY_API in server.output)
        tour(models)
    assert [line for line in models.command_lines() if line.startswith("durably")] == [
        "durably dev", "durably migrate", "durably worker", "durably main",
    ]  # fmt: skip
    migrated = durably("migrate", cwd=models.path)
    assert "Made: model_order, with 0 objects" in migrated.stdout
    with models.running("worker"):
        main = subprocess.Popen(
            [sys.executable, "-m", "durably.cli", "main"], cwd=models.path, stdout=subprocess.PIPE, text=True,
            env=environment_with(models.environment),
        )  # fmt: skip
        assert main.stdout is not None
        assert READY_API in main.stdout.readline()
        tour(models)
        main.terminate()
        main.communicate(timeout=PATIENCE_SECONDS)
    assert "Unchanged: model_order" in durably("migrate", cwd=models.path).stdout


def tour(folder: Folder) -> None:
    """The four requests, and what they answer."""
    assert eventually(lambda: is_open(folder.ports["3000"]))
    create, show, pay, _ = folder.curl_lines()
    created = folder.curl(create)
    assert created == {"state": "created", "id": created["id"], "amount": 100}
    assert folder.curl(show) == [created]
    paid = folder.curl(pay, order_01gqjyp438r30j3g28jt78cx23=created["id"])
    assert paid == {**created, "state": "paid", "paymentReference": "abc123"}
    booked = {**paid, "state": "deliveryBooked", "trackingNumber": "123456789"}
    assert eventually(lambda: folder.curl(show) == [booked])


def is_open(port: int) -> bool:
    with closing(socket.socket()) as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def test_what_is_open_goes_on_after_a_change_and_what_failed_tries_again_with_the_new_code(plain: Folder) -> None:
    plain.change("app.py", "was_free, self.is_free", "ctx.no_such_thing\n        was_free, self.is_free")
    plain.change("app.py", "after(minutes=15)", "after(seconds=3)")
    with plain.running("dev") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        asked = client.post("/Cart/mary/add/send", content=b'"2B"').json()["invocationId"]
        assert eventually(lambda: "no_such_thing" in server.output)
        assert eventually(lambda: "paused" in server.output)  # It has had its one attempt.
        plain.change("app.py", "ctx.no_such_thing\n        ", "")
        assert eventually(lambda: server.output.count(READY) == 2)
        assert "Changed: app.py" in server.output
        attach = f"/restate/invocation/{asked}/attach"
        assert eventually(lambda: client.get(attach, timeout=PATIENCE_SECONDS).json() is True)
        plain.change("app.py", "return self.seats", "return [*self.seats, 'new']")
        assert eventually(lambda: server.output.count(READY) == 3)
        show = "/Cart/mary/show"
        assert client.post(show).json() in (["2B", "new"], ["new"])
        assert eventually(lambda: client.post(show).json() == ["new"])  # The timer of the first process.


def test_the_project_ends_with_a_dev_that_is_killed(plain: Folder) -> None:
    with plain.running("dev") as server:
        assert is_open(server.port)
        server.kill()  # Of dev alone. Then it waits for the end of what both print.
        assert not is_open(server.port)
    assert GONE in server.output
    assert "runtime stopped" in server.output, "it has drained"


def test_it_waits_where_nothing_is_yet_and_says_what_is_wrong(models: Folder, tmp_path: Path) -> None:
    project = models.path / "project.py"
    right = project.read_text()
    project.unlink()
    log = tmp_path / "log"

    def has_told(*texts: str) -> bool:
        waits = log.read_text().endswith("Waiting for a file to change. (Ctrl-C stops)\n")
        return waits and all(text in log.read_text() for text in texts)

    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "durably.cli"], cwd=models.path, stdout=output, stderr=output,
            env=environment_with(models.environment),
        )  # fmt: skip
    try:
        assert eventually(lambda: has_told("no project", "`durably new` makes one"))
        project.write_text(right + "\n)")
        assert eventually(lambda: has_told("SyntaxError"))
        project.write_text(right)
        assert eventually(lambda: READY in log.read_text())
        models.change("models/Order.rst", "amount: Int\n\n  state", "amount: Ant\n\n  state")
        assert eventually(lambda: has_told("Order.rst, line 7, column 17", "Did you mean Int?"))
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0


def test_migrate_adds_what_is_new_and_refuses_what_would_be_lost(models: Folder) -> None:
    with models.running("dev") as server:
        assert eventually(lambda: READY_API in server.output)
        assert eventually(lambda: is_open(models.ports["3000"]))
        models.curl(models.curl_lines()[0])
    development = {"DURABLY_ENV": "development"}
    models.change("models/Order.rst", 'prefix "order"', 'prefix "order"\n  index amount')
    assert durably("generate", cwd=models.path).returncode == 0
    migrated = durably("migrate", cwd=models.path, environment=development)
    assert re.search(r"Altered: model_order, index \w+ added", migrated.stdout), migrated
    (models.path / "models/Order.rst").write_text(
        (models.path / "models/Order.rst").read_text().replace("  index amount", "  field buyer: String")
    )
    assert durably("generate", cwd=models.path).returncode == 0
    refused = durably("migrate", cwd=models.path, environment=development)
    assert refused.returncode == 1
    assert "Nothing was changed" in refused.stderr
    assert "1 object of Order could not be read as Created" in refused.stderr


def test_without_what_reads_models_no_half_of_a_project_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_no_lark(name: str) -> object | None:
        return None if name == "lark" else find_spec(name)

    monkeypatch.setattr("durably.cli.new.find_spec", find_no_lark)
    with pytest.raises(CommandError, match=r"pip install 'durably\[models\]'\. Nothing was written\."):
        make_project(tmp_path / "orders", models=True)
    assert not any(tmp_path.iterdir())
    make_project(tmp_path / "plain", models=False)


def test_a_folder_with_something_in_it_is_left_alone(plain: Folder) -> None:
    again = durably("new", "plain", cwd=plain.path.parent)
    assert again.returncode == 1
    assert "is not empty, so nothing was written" in again.stderr
