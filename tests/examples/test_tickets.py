from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.processes import PATIENCE_SECONDS, ServerProcess, eventually, serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl, which is not installed"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """The tour, served as its reader serves it."""
    with serving("examples.tickets:runtime", cwd=tmp_path) as server:
        yield server


def typed(server: ServerProcess, line: str) -> str:
    """What a line prints that was typed at a shell, but for the port."""
    line = line.replace("localhost:8080", f"localhost:{server.port}").replace("curl ", "curl --silent --show-error ")
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


ADD_2B = """curl localhost:8080/CartObject/Mary/addTicket -H 'content-type: application/json' -d '"seat2B"'"""
SEND_2B = """curl localhost:8080/CartObject/Mary/addTicket/send -H 'content-type: application/json' -d '"seat2B"'"""
EXPIRE_2B = """curl localhost:8080/CartObject/Mary/expireTicket -H 'content-type: application/json' -d '"seat2B"'"""
CHECKOUT = "curl -X POST localhost:8080/CartObject/Mary/checkout"
PEEK = "curl localhost:8080/TicketObject/seat2B/peek"


def test_the_lines_of_the_tour_print_what_the_tour_says(server: ServerProcess) -> None:
    assert typed(server, CHECKOUT) == "false"
    assert [typed(server, ADD_2B) for _ in range(2)] == ["true", "false"]
    assert typed(server, EXPIRE_2B) == ""
    assert typed(server, ADD_2B) == "true"
    for seat in ("seat2A", "seat2C"):
        assert typed(server, ADD_2B.replace("seat2B", seat)) == "true"
    assert typed(server, CHECKOUT) == "true"
    assert typed(server, CHECKOUT) == "false"
    assert typed(server, PEEK) == '"Sold"'
    assert typed(server, ADD_2B) == "false"


def test_a_message_prints_its_id_and_is_delivered(server: ServerProcess) -> None:
    sent = orjson.loads(typed(server, SEND_2B))
    assert sent == {"invocationId": sent["invocationId"], "status": "Accepted"}
    assert sent["invocationId"].startswith("inv_")
    assert typed(server, CHECKOUT) == "true"


def test_a_reserved_seat_comes_back(tmp_path: Path) -> None:
    environment = {"TICKETS_RESERVATION_SECONDS": "0.5"}
    with serving("examples.tickets:runtime", cwd=tmp_path, environment=environment) as server:
        assert typed(server, ADD_2B) == "true"
        assert eventually(lambda: typed(server, PEEK) == '"Available"')
        assert typed(server, CHECKOUT) == "false"


@pytest.mark.parametrize(
    "content_type", ["", "-H 'content-type:'", "-H 'content-type: application/json; charset=utf-8'"]
)
def test_a_body_without_a_content_type_is_taken_for_json(server: ServerProcess, content_type: str) -> None:
    line = f"curl localhost:8080/CartObject/Mary/addTicket {content_type} -d '\"seat2B\"'"
    assert typed(server, line) == "true"


@pytest.mark.parametrize("how", ["-d ''", "-X POST", "", "-H 'content-type: application/json' -d ''"])
def test_a_handler_without_arguments_takes_any_way_of_sending_nothing(server: ServerProcess, how: str) -> None:
    assert typed(server, f"curl localhost:8080/TicketObject/seat2B/reserve {how}") == "true"


def test_the_service_can_be_called_by_itself(server: ServerProcess) -> None:
    purchase = '{"user_id": "Mary", "tickets": ["seat2B"]}'
    assert typed(server, f"curl localhost:8080/CheckoutService/handle -d '{purchase}'") == "true"
    refused = orjson.loads(typed(server, "curl localhost:8080/CheckoutService/handle -d '{}'"))
    assert (refused["code"], refused["source"]) == (400, "ingress")
