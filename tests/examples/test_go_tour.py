from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from durably import RetryPolicy, TerminalError
from durably.testing import Harness
from examples.go_tour import RESERVATION, Checkout, TicketService, UserSession
from examples.providers import Ledger, MailProvider, PaymentProvider
from tests.processes import PATIENCE_SECONDS, ServerProcess, serving

# As they stand in the README of the Go SDK, with what it says that they print.
ADD_TICKET_1 = r"""
curl -v localhost:8080/UserSession/azmy/AddTicket \
    -H 'content-type: application/json' \
    -d '"ticket-1"'
"""
ADD_TICKET_2 = r"""
curl -v localhost:8080/UserSession/azmy/AddTicket \
    -H 'content-type: application/json' \
    -d '"ticket-2"'
"""
CHECK_OUT = "curl localhost:8080/UserSession/azmy/Checkout"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl, which is not installed")
def test_the_lines_of_the_go_sdk_print_what_its_readme_says(tmp_path: Path) -> None:
    with serving("examples.go_tour:runtime", cwd=tmp_path) as server:
        assert typed(server, CHECK_OUT, tmp_path) == "false"
        assert typed(server, ADD_TICKET_1, tmp_path) == "true"
        assert typed(server, ADD_TICKET_2, tmp_path) == "true"
        assert [typed(server, line, tmp_path) for line in (ADD_TICKET_1, ADD_TICKET_2)] == ["false", "false"]
        assert typed(server, CHECK_OUT, tmp_path) == "true"
        assert typed(server, CHECK_OUT, tmp_path) == "false"
        assert typed(server, ADD_TICKET_1, tmp_path) == "false"


def typed(server: ServerProcess, line: str, home: Path) -> str:
    """What a line prints that was typed at a shell, as it stands: curl's own settings lead it to the server's port."""
    (home / ".curlrc").write_text(f'silent\nshow-error\nconnect-to = "localhost:8080:127.0.0.1:{server.port}"\n')
    environment = {**os.environ, "CURL_HOME": str(home), "no_proxy": "localhost"}
    done = subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class UnreachablePayments(PaymentProvider):
    """Never answers."""

    async def charge(self, key: str, amount: int) -> bool:
        raise ConnectionError("not now")


class RefusingPayments(PaymentProvider):
    """Says no."""

    async def charge(self, key: str, amount: int) -> bool:
        return False


def harness(payments: type[PaymentProvider] = PaymentProvider, ledger: Ledger | None = None) -> Harness:
    ledger = Ledger() if ledger is None else ledger
    dependencies: dict[Any, Any] = {PaymentProvider: payments(ledger), MailProvider: MailProvider(ledger)}
    actors = (TicketService, Checkout, UserSession)
    return Harness(*actors, dependencies=dependencies, retry=RetryPolicy(), nothing_resident=True)


async def test_a_reservation_lasts_a_quarter_of_an_hour_also_over_a_crash() -> None:
    async with harness() as app:
        azmy, till = (app.object(UserSession, name) for name in ("azmy", "till"))
        assert await azmy.add_ticket("ticket-1")
        await app.advance(RESERVATION / 2)
        await app.crash()
        assert not await till.add_ticket("ticket-1")
        await app.advance(RESERVATION / 2)
        assert await till.add_ticket("ticket-1")
        assert not await azmy.checkout()


async def test_tickets_are_paid_once_and_sold_for_good() -> None:
    ledger = Ledger()
    async with harness(ledger=ledger) as app:
        azmy = app.object(UserSession, "azmy")
        assert [await azmy.add_ticket(ticket) for ticket in ("ticket-1", "ticket-2", "ticket-1")] == [True, True, False]
        assert await azmy.checkout()
        await app.advance(RESERVATION)
        assert not await app.object(UserSession, "till").add_ticket("ticket-2")
    assert [payment["amount"] for payment in ledger.of("payment")] == [60]
    assert [mail["to"] for mail in ledger.of("mail")] == ["azmy"]


async def test_a_payment_that_takes_longer_than_a_minute_is_given_up_and_the_tickets_stay() -> None:
    async with harness(UnreachablePayments) as app:
        azmy = app.object(UserSession, "azmy")
        assert await azmy.add_ticket("ticket-1")
        checking_out = await azmy.checkout.send()
        await app.advance(minutes=1)
        assert not await checking_out.result()
        assert app.snapshots[UserSession, "azmy"].tickets == ["ticket-1"]


async def test_a_payment_that_is_refused_is_the_callers_error() -> None:
    async with harness(RefusingPayments) as app:
        azmy = app.object(UserSession, "azmy")
        assert await azmy.add_ticket("ticket-1")
        with pytest.raises(TerminalError, match="does not cover it") as refused:
            await azmy.checkout()
        assert refused.value.code == 402
