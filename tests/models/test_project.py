"""A `Project`, the client that a test gets from it, and the patience of a runtime in development."""

from __future__ import annotations

from typing import Any

import pytest

from durably import Caller, Context, PausedInvocationError, RetryPolicy, Runtime, Service, handler
from durably.cli.projects import url_of
from durably.configuration import load_configuration
from durably.errors import DefinitionError
from durably.models import Project
from durably.testing.models import client
from examples.orders.app import Carrier, DeliveryBooked, Orders


class FakeCarrier(Carrier):
    async def book(self, order_id: str) -> str:
        return f"fake {order_id}"


async def main(client: Caller) -> None:
    """What a program would begin."""


async def test_the_client_of_a_project_returns_when_consumers_have_run_and_takes_fakes() -> None:
    project = Project([Orders], main=main, dependencies={Carrier: Carrier()})
    for given, number in ({}, "123456789"), ({Carrier: FakeCarrier()}, "fake "):
        async with client(project, dependencies=given) as app:
            orders = app.machine(Orders)
            order, _ = await orders.create(amount=100)
            await orders.pay(order, payment_reference="abc123")
            booked = await orders.find_one_or_raise(DeliveryBooked, id=order.id)
            assert booked.tracking_number.startswith(number)


async def without_a_client() -> None:
    """Cannot be given one."""


async def with_two(client: Caller, other: Caller) -> None:
    """Would need two."""


@pytest.mark.parametrize(
    "wrong",
    [{"main": print}, {"main": without_a_client}, {"main": with_two}, {"actors": Orders}, {"actors": ["Orders"]}],
)
def test_what_is_no_main_and_what_are_no_classes_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match=r"takes (a list of classes|`async def main\(client: Caller\) -> None`)"):
        Project(wrong.pop("actors", [Orders]), **wrong)


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"DURABLY_SERVER_HOST": "0.0.0.0", "DURABLY_SERVER_PORT": "1"}, "http://127.0.0.1:1"),
        ({"DURABLY_SERVER_HOST": "::"}, "http://[::1]:8080"),
        ({"DURABLY_SERVER_HOST": "app", "DURABLY_SERVER_TLS_CERTIFICATE": "a.pem"}, "https://app:8080"),
        ({"DURABLY_SERVER_PORT": "1", "DURABLY_INGRESS_URL": "https://orders.example"}, "https://orders.example"),
    ],
)
def test_main_finds_the_worker_where_the_configuration_has_it(environ: dict[str, str], url: str) -> None:
    assert url_of(load_configuration(environ=environ)) == url


class Fails(Service):
    """Counts its attempts, where the attempts of a handler leave no trace."""

    attempts = 0

    @handler
    async def fail(self, ctx: Context) -> None:
        Fails.attempts += 1
        raise ValueError("a slip")


@pytest.mark.parametrize(("retry", "attempts"), [(None, 1), (RetryPolicy(initial=0, max_attempts=3), 3)])
async def test_in_development_what_fails_pauses_at_once_unless_the_program_says_otherwise(
    retry: RetryPolicy | None, attempts: int
) -> None:
    Fails.attempts = 0
    runtime = Runtime("memory:", [Fails], retry=retry)
    runtime.use_development()
    async with runtime:
        with pytest.raises(PausedInvocationError, match="a slip"):
            await runtime.service(Fails).fail()
        with pytest.raises(RuntimeError, match="how patient it is"):
            runtime.use_development()
    assert Fails.attempts == attempts
