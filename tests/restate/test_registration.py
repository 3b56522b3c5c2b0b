"""A registration shows what it changes before it is done; what is wrong with a deployment is told in a sentence."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import h2.connection
import h2.events
import httpx
import pytest

from durably import Invocation
from durably.cli import serve_restate
from durably.cli.failures import CommandError
from durably.cli.loading import load_deployment
from durably.cli.serve_restate import ServingOnRestate, on_restate_as_told, serve_on_restate
from durably.configuration import load_configuration
from durably.restate import Client
from durably.restate.registration import Change, Handler, RegistrationError, Service, changes_between
from durably.restate.registration import Cluster as Admin
from tests.processes import PATIENCE_SECONDS, ServerProcess, durably, environment_with, eventually, free_port
from tests.restate.cluster import Cluster, Deployed
from tests.restate.programs import ACTORS, Desk, app


class _Other(BaseHTTPRequestHandler):
    """Another program that speaks HTTP."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def other_program() -> Generator[str, None, None]:
    """Where it listens."""
    with HTTPServer(("127.0.0.1", 0), _Other) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


CART = Service("Cart", "VirtualObject", [Handler("add", "Exclusive"), Handler("look", "Shared")])


def _told(found: Service, known: Service | None) -> list[str]:
    return [str(one) for one in changes_between([found], {} if known is None else {known.name: known})]


def test_a_new_service_is_added_with_its_handlers() -> None:
    assert _told(CART, None) == ["+ Cart (virtual object): add, look"]


def test_what_is_the_same_changes_nothing() -> None:
    assert _told(CART, Service("Cart", "VirtualObject", CART.handlers, deployment_id="dp_1", revision=3)) == []


def test_handlers_are_added_changed_and_removed() -> None:
    before = Service(
        "Cart", "VirtualObject",
        [Handler("add", "Shared"), Handler("look", "Shared", input_description="none"), Handler("drop", "Exclusive")],
    )  # fmt: skip
    found = Service(
        "Cart", "VirtualObject",
        [Handler("add", "Exclusive"), Handler("look", "Shared", public=False), Handler("new", "Exclusive")],
    )  # fmt: skip
    assert _told(found, before) == [
        "~ Cart/add is exclusive, and was shared",
        "~ Cart/look: private, takes nothing",
        "+ Cart/new",
        "- Cart/drop",
    ]


def test_a_service_of_another_kind_is_told() -> None:
    found = Service("Cart", "Service", CART.handlers, public=False)
    assert _told(found, CART) == [
        "~ Cart is a service, and was a virtual object",
        "~ Cart becomes private",
    ]
    assert str(Change("-", "Cart")) == "- Cart"


def test_what_is_no_deployment_is_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop_of_numbers.py").write_text("number = 3\n\n\ndef nothing() -> list[int]:\n    return []\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(CommandError, match="shop_of_numbers:number is of type int, and no deployment of Restate"):
        load_deployment("shop_of_numbers:number")
    with pytest.raises(CommandError, match="shop_of_numbers:nothing is of type list, and no deployment of Restate"):
        load_deployment("shop_of_numbers:nothing")


def test_a_deployment_is_also_a_class_several_or_what_makes_them() -> None:
    assert list(load_deployment("tests.restate.programs:Seat").actors) == ["Seat"]
    assert list(load_deployment("tests.restate.programs:ACTORS").actors) == [one.__name__ for one in ACTORS]
    assert load_deployment("tests.restate.programs:app") is app
    with pytest.raises(CommandError, match="Orders is a model"):
        load_deployment("examples.orders.app:Orders")


def test_a_cluster_that_does_not_answer_is_told_in_a_sentence() -> None:
    admin = f"http://127.0.0.1:{free_port()}"
    cluster = Admin(admin)
    with pytest.raises(RegistrationError, match=f"No admin API of Restate answers at {admin}"):
        cluster.plan("http://127.0.0.1:9080")
    cluster.close()


@pytest.mark.parametrize(
    "url", ["http://ann:hush@127.0.0.1:9", "http://ann:hush@[::1", "ann:hush@h", "ftp://ann:hush@h"]
)
def test_a_password_of_a_cluster_is_told_nowhere(url: str) -> None:
    with pytest.raises(RegistrationError) as refused:
        Admin(url).plan("http://127.0.0.1:9080")
    assert "hush" not in str(refused.value)


def test_what_is_no_admin_api_is_told_in_a_sentence() -> None:
    with other_program() as url:
        cluster = Admin(url)
        with pytest.raises(RegistrationError, match="answers with 200 and what no admin API of Restate says"):
            cluster.plan("http://127.0.0.1:9080")
        cluster.close()


def test_the_command_needs_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(name: str) -> str | None:
        return None if name == "hypercorn" else name

    monkeypatch.setattr(serve_restate, "find_spec", found)
    what = ServingOnRestate(
        target="x:y", host="127.0.0.1", port=0, register=None, advertised=None, drain_seconds=0, yes=True
    )
    with pytest.raises(CommandError, match=r"durably serve-restate needs hypercorn: pip install 'durably\[restate\]'"):
        serve_on_restate(what)


def told_by(folder: Path, text: str, **options: Any) -> ServingOnRestate:
    (folder / "durably.toml").write_text(text, "utf-8")
    environ = {"DURABLY_CONFIG": str(folder / "durably.toml")}
    given: dict[str, Any] = {
        "host": None,
        "port": None,
        "register": None,
        "advertised": None,
        "drain_seconds": 30.0,
        "yes": False,
    }
    return on_restate_as_told(load_configuration(environ=environ), options.pop("target", None), **(given | options))


def test_the_file_says_what_is_served_where_and_whether_it_is_registered(tmp_path: Path) -> None:
    plain = told_by(tmp_path, "", target="shop:app")
    assert (plain.host, plain.port, plain.register, plain.yes) == ("127.0.0.1", 9080, None, False)
    with pytest.raises(CommandError, match=r"Nothing says what to serve.*\[server\] with target"):
        told_by(tmp_path, "[admin]\nport = 9070\n")
    server = "[server]\ntarget = 'shop:app'\nhost = '0.0.0.0'\nport = 9090\n"
    found = told_by(tmp_path, server + "[admin]\ndeploy_on_startup = true\n")
    assert (found.target, found.host, found.port) == ("shop:app", "0.0.0.0", 9090)
    assert (found.register, found.yes) == ("http://127.0.0.1:9070", True)
    url = "[admin]\nurl = 'http://restate:9070'\ndeploy_on_startup = true\n"
    assert told_by(tmp_path, server + url).register == "http://restate:9070"
    assert told_by(tmp_path, server + url.replace("true", "false")).register is None
    options = {"port": 9080, "host": "127.0.0.1", "target": "shop:other"}
    asked = told_by(tmp_path, server + url, register="http://other:9070", **options)
    assert (asked.register, asked.yes) == ("http://other:9070", False), "who names a cluster is asked as ever"
    assert (asked.target, asked.host, asked.port) == ("shop:other", "127.0.0.1", 9080)


@pytest.mark.slow
def test_a_deployment_is_registered_at_its_start_where_the_file_says_so(cluster: Cluster, tmp_path: Path) -> None:
    _write_shop(tmp_path, "add")
    (tmp_path / "durably.toml").write_text(
        f"[server]\ntarget = 'shop:actors'\nport = {free_port()}\n"
        f"[admin]\nurl = '{cluster.admin_url}'\ndeploy_on_startup = true\n"
    )
    command = [sys.executable, "-m", "durably.cli", "serve-restate"]
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=tmp_path, env=environment_with({}), stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert eventually(lambda: "Registered as" in log.read_text() or process.poll() is not None), log.read_text()
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert f"+ {tmp_path.name} (virtual object): add" in log.read_text()
    assert '"add"' in cluster.ask("GET", f"/services/{tmp_path.name}").decode()


def _write_shop(folder: Path, *handlers: str) -> None:
    methods = "".join(
        f"    @handler\n    async def {name}(self, ctx: ObjectContext) -> str:\n        return {name!r}\n"
        for name in handlers
    )
    (folder / "shop.py").write_text(
        "from durably import ObjectContext, VirtualObject, handler\n\n\n"
        f"class Shop(VirtualObject, name='{folder.name}'):\n{methods}\n\nactors = [Shop]\n"
    )


@pytest.mark.slow
def test_a_registration_shows_what_it_changes_and_asks(cluster: Cluster, tmp_path: Path) -> None:
    _write_shop(tmp_path, "add", "drop")
    port = free_port()
    first = Deployed(cluster, "shop:actors", cwd=tmp_path, port=port)
    assert f"+ {tmp_path.name} (virtual object): add, drop" in first.output
    first.end()

    _write_shop(tmp_path, "add", "new")
    unasked = durably(
        "serve-restate", "shop:actors", "--port", str(port), "--register", cluster.admin_url, cwd=tmp_path
    )
    assert unasked.returncode == 2
    assert "There is no terminal to ask at: say --yes." in unasked.stderr
    assert f"+ {tmp_path.name}/new" in unasked.stderr
    assert f"- {tmp_path.name}/drop" in unasked.stderr
    assert "Another deployment is registered at" in unasked.stderr
    registered = cluster.ask("GET", f"/services/{tmp_path.name}").decode()
    assert '"drop"' in registered

    second = Deployed(cluster, "shop:actors", cwd=tmp_path, port=port)
    second.end()
    registered = cluster.ask("GET", f"/services/{tmp_path.name}").decode()
    assert '"new"' in registered
    assert '"drop"' not in registered

    third = Deployed(cluster, "shop:actors", cwd=tmp_path, port=port)
    assert "nothing changes" in third.output
    third.end()


@pytest.mark.slow
async def test_a_deployment_with_keys_is_called_by_the_cluster_that_has_them(cluster: Cluster, tmp_path: Path) -> None:
    def serve(key: str) -> None:
        (tmp_path / "signed.py").write_text(
            "import durably.restate\nfrom durably import Context, Service, handler\n\n\n"
            "class Signed(Service):\n    @handler\n    async def go(self, ctx: Context) -> str:\n"
            f"        return 'came'\n\n\napp = durably.restate.app(Signed, identity_keys=[{key!r}])\n"
        )

    serve(cluster.identity_key)
    deployed = Deployed(cluster, "signed:app", cwd=tmp_path)
    try:
        async with Client(cluster.url) as client:
            assert await client.call("Signed", "go", returns=str) == "came"
        async with httpx.AsyncClient(trust_env=False) as unsigned:
            for path in ("/discover", "/invoke/Signed/go"):
                assert (await unsigned.post(deployed.url + path)).status_code == 401
    finally:
        deployed.end()
    serve("publickeyv1_w7YHemBctH5Ck2nQRQ47iBBqhNHy4FV7t2Usbye2A6f")
    told = durably("serve-restate", "signed:app", "--port", "0", "--register", cluster.admin_url, "--yes", cwd=tmp_path)
    assert told.returncode == 1
    assert "Restate does not take the deployment:" in told.stderr


@pytest.mark.slow
async def test_after_a_stop_the_next_deployment_goes_on_with_what_was_under_way(
    cluster: Cluster, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger"
    environment, port = {"LEDGER": str(ledger)}, free_port()
    deployed = Deployed(cluster, "tests.restate.programs:app", environment=environment, port=port)
    try:
        async with Client(cluster.url, admin_url=cluster.admin_url) as client:
            sent = await client.service(Desk).hold.send()
            assert eventually(lambda: ledger.exists() and "held" in ledger.read_text())
            deployed.process.send_signal(signal.SIGTERM)
            assert deployed.process.wait(PATIENCE_SECONDS) == 0, deployed.output
            again = Deployed(
                cluster, "tests.restate.programs:app", environment=environment, port=port, registers=False
            )  # fmt: skip
            try:
                assert await sent.result() == "held"
            finally:
                again.end()
            assert "let go" in ledger.read_text()
    finally:
        deployed.end()


@pytest.mark.slow
async def test_attempts_come_to_a_rest_while_others_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    """What Restate begins meanwhile comes on the same connections, which must not end for it."""
    ledger = tmp_path / "ledger"
    environment, port = {"LEDGER": str(ledger)}, free_port()
    deployed = Deployed(cluster, "tests.restate.programs:app", environment=environment, port=port)
    try:
        async with Client(cluster.url, admin_url=cluster.admin_url) as client:
            held = [await client.service(Desk).hold.send() for _ in range(8)]
            assert eventually(lambda: ledger.exists() and ledger.read_text().count("held") == len(held))
            deployed.process.send_signal(signal.SIGTERM)
            told: list[Invocation[dict[str, str]]] = []
            while deployed.process.poll() is None:
                told.append(await client.service(Desk).tell.send())
            assert deployed.process.wait(PATIENCE_SECONDS) == 0, deployed.output
            lines = ledger.read_text().splitlines()
            assert (lines.count("held"), lines.count("let go")) == (len(held), len(held))
            again = Deployed(
                cluster, "tests.restate.programs:app", environment=environment, port=port, registers=False
            )  # fmt: skip
            try:
                assert [await one.result() for one in held] == ["held"] * len(held)
                assert len([await one.result() for one in told]) > 0
            finally:
                again.end()
            assert ledger.read_text().count("held") == len(held), "what came to a rest is not run again"
        assert "Traceback" not in deployed.output
    finally:
        deployed.end()


@pytest.mark.slow
async def test_a_connection_bears_any_number_of_requests(tmp_path: Path) -> None:
    """That is more than hypercorn has one bear. At its limit all that is under way breaks off."""
    (tmp_path / "shop.py").write_text(
        "from durably import Context, Service, handler\n\n\nclass Shop(Service):\n    @handler\n"
        "    async def go(self, ctx: Context) -> None:\n        pass\n\n\nactors = [Shop]\n"
    )
    command = [sys.executable, "-m", "durably.cli", "serve-restate", "shop:actors", "--port", "0"]
    server = ServerProcess(command, cwd=tmp_path, environment={})
    try:
        answered, ended = await asyncio.wait_for(_many_requests(server.port, 1_500), PATIENCE_SECONDS)
        assert (answered, ended) == (1_500, False)
    finally:
        server.end()


async def _many_requests(port: int, count: int) -> tuple[int, bool]:
    """How many were answered on one connection, and whether the server has ended it."""
    connection = h2.connection.H2Connection()
    connection.initiate_connection()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    asked = answered = 0
    try:
        while answered < count:
            while asked < min(count, answered + 50):
                headers = [(":method", "GET"), (":path", "/health"), (":scheme", "http"), (":authority", "x")]
                connection.send_headers(connection.get_next_available_stream_id(), headers, end_stream=True)
                asked += 1
            writer.write(connection.data_to_send())
            data = await reader.read(65_536)
            for event in connection.receive_data(data):
                answered += isinstance(event, h2.events.StreamEnded)
                if isinstance(event, h2.events.ConnectionTerminated):
                    return answered, True
            if not data:
                return answered, True
        return answered, False
    finally:
        writer.close()


@pytest.mark.slow
async def test_what_does_not_come_to_a_rest_in_time_ends_with_the_process(cluster: Cluster, tmp_path: Path) -> None:
    """An action in a thread cannot be cancelled. Its invocation goes on with the next deployment."""
    ledger = tmp_path / "ledger"
    environment, port = {"LEDGER": str(ledger)}, free_port()
    deployed = Deployed(cluster, "tests.restate.programs:app", "--drain", "0.1", environment=environment, port=port)
    try:
        async with Client(cluster.url, admin_url=cluster.admin_url) as client:
            sent = await client.service(Desk).hold_a_thread.send()
            assert eventually(lambda: ledger.exists() and "held" in ledger.read_text())
            deployed.process.send_signal(signal.SIGTERM)
            assert deployed.process.wait(PATIENCE_SECONDS) == 0, deployed.output
            assert "Traceback" not in deployed.output
            again = Deployed(
                cluster, "tests.restate.programs:app", environment=environment | {"SOON": "1"}, port=port,
                registers=False,
            )  # fmt: skip
            try:
                assert await sent.result() == "held"
            finally:
                again.end()
    finally:
        deployed.end()


@pytest.mark.slow
async def test_changed_code_under_an_open_journal_is_told_beside_restates_own_error(
    cluster: Cluster, tmp_path: Path
) -> None:
    def write(first: str) -> None:
        (tmp_path / "later.py").write_text(
            "import asyncio\n"
            "from durably import Context, Service, handler\n\n\n"
            "def nothing() -> None:\n    pass\n\n\n"
            f"class Later(Service, name='Later{tmp_path.name}'):\n"
            "    @handler\n    async def go(self, ctx: Context) -> None:\n"
            f"        await ctx.run({first!r}, nothing)\n        await ctx.sleep(1)\n        await ctx.sleep(60)\n\n\n"
            "actors = [Later]\n"
        )

    write("before")
    port = free_port()
    first = Deployed(cluster, "later:actors", cwd=tmp_path, port=port)
    async with Client(cluster.url) as client:
        sent = await client.send(f"Later{tmp_path.name}", "go")
    statement = f"select entry_type from sys_journal where id = '{sent.id}' and entry_type like '%Sleep%'"
    assert eventually(lambda: len(cluster.query(statement)) > 0)
    first.kill()
    write("after")
    second = Deployed(cluster, "later:actors", cwd=tmp_path, port=port, registers=False)
    try:
        assert eventually(lambda: "Restate's journal of" in second.output)
        assert f"the code of Later{tmp_path.name}/go differ. In this step the code asked for: Run at" in second.output
        events = f"select event_json from sys_journal_events where id = '{sent.id}'"
        assert eventually(lambda: any("RT0016" in one["event_json"] for one in cluster.query(events)))
        cluster.ask("PATCH", f"/invocations/{sent.id}/kill")
    finally:
        second.end()
