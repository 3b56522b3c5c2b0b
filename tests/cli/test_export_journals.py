from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from durably import Context, Service, SqliteStore, handler
from durably.cli.export_journals import export
from durably.cli.failures import CommandError
from durably.cli.operators.output import Format
from durably.testing import Harness
from durably.testing.replaying import ReplayError, read_journals, replay_journals
from examples.providers import MailProvider, PaymentProvider
from examples.tickets import Cart, Checkout, Purchase, Ticket
from tests.cli.output_schemas import assert_fits
from tests.processes import durably

pytestmark = pytest.mark.slow

URL = "sqlite:///app.db"


class Payments:
    """Pays at once."""

    async def charge(self, key: str, amount: int) -> bool:
        return True


class Mail:
    """Is slow."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.may_go_on = asyncio.Event()

    async def send(self, to: str, text: str) -> None:
        self.begun.set()
        await self.may_go_on.wait()


@asynccontextmanager
async def mary_pays(path: Path) -> AsyncGenerator[None]:
    """The ticket tour, live, while Mary's payment is made and her mail is on its way."""
    mail = Mail()
    dependencies: dict[Any, Any] = {PaymentProvider: Payments(), MailProvider: mail}
    async with Harness(Ticket, Cart, Checkout, dependencies=dependencies, store=SqliteStore(path)) as app:
        assert await app.object(Cart, "Mary").add_ticket("2B")
        paying = asyncio.ensure_future(app.object(Cart, "Mary").checkout())
        await mail.begun.wait()
        yield
        mail.may_go_on.set()
        assert await paying


async def export_beside(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in a process of its own, while this one goes on."""
    command = ("export-journals", "--store", URL, "--output", "journals", *arguments)
    return await asyncio.to_thread(durably, *command, cwd=folder)


async def test_what_is_under_way_in_a_live_store_is_exported_and_replays(tmp_path: Path) -> None:
    async with mary_pays(tmp_path / "app.db"):
        done = await export_beside(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Exported 3 journals of 3 steps to journals.\n"
    journals = read_journals(tmp_path / "journals")
    assert [f"{journal.target}, {journal.status}" for journal in journals] == [
        "CartObject/Mary/checkout, suspended",
        "CartObject/Mary/expireTicket, scheduled",
        "CheckoutService/handle, running",
    ]
    assert replay_journals(tmp_path / "journals", Ticket, Cart, Checkout).steps == 3


class ImpatientCheckout(Service, name="CheckoutService"):
    def __init__(self, payments: PaymentProvider, mail: MailProvider) -> None:
        self.payments = payments
        self.mail = mail

    @handler
    async def handle(self, ctx: Context, purchase: Purchase) -> bool:
        await ctx.run("mail", self.mail.send, purchase.user_id, "We are about to charge you.")
        return await ctx.run("charge", self.payments.charge, str(ctx.uuid()), 40)


async def test_changed_code_fails_in_the_test_instead_of_in_production(tmp_path: Path) -> None:
    async with mary_pays(tmp_path / "app.db"):
        await export_beside(tmp_path)
    with pytest.raises(ReplayError, match=r"> Run\(name='charge'\) +Run\(name='mail'\)") as raised:
        replay_journals(tmp_path / "journals", Ticket, Cart, ImpatientCheckout)
    (failure,) = raised.value.failures
    assert failure.journal.service == "CheckoutService"
    lines, first = inspect.getsourcelines(ImpatientCheckout)
    line = first + next(place for place, line in enumerate(lines) if 'ctx.run("mail"' in line)
    assert f"test_export_journals.py:{line}" in failure.reason


async def test_options_choose_and_count_for_programs(tmp_path: Path) -> None:
    async with mary_pays(tmp_path / "app.db"):
        chosen = await export_beside(tmp_path, "--target", "CartObject/Mary", "--limit", "1", "--json")
        ended = await export_beside(tmp_path, "--target", "CartObject/Mary/addTicket")
        none = await export_beside(tmp_path, "--target", "CartObject/Joe")
    assert_fits("export-journals", json.loads(chosen.stdout))
    assert json.loads(chosen.stdout) == {"journals": 1, "steps": 0, "folder": "journals"}
    assert [journal.target for journal in read_journals(tmp_path / "journals")] == ["CartObject/Mary/expireTicket"]
    assert none.returncode == 1
    assert none.stderr.endswith(
        "CartObject/Joe names nothing in the store sqlite app.db: there is no invocation of it, and no state. Targets "
        "are Service, Service/handler, Object/key and Object/key/handler, with the names that the store knows.\n"
    )
    assert ended.stdout == ""


async def test_after_the_owner_has_gone_the_store_is_read_too(tmp_path: Path) -> None:
    async with mary_pays(tmp_path / "app.db"):
        pass
    done = await export_beside(tmp_path)
    assert done.stdout == "Exported 1 journal of 0 steps to journals.\n"


def test_help_says_what_has_a_journal(tmp_path: Path) -> None:
    said = " ".join(durably("export-journals", "--help", cwd=tmp_path).stdout.split())
    assert "With --ended, those of what has ended, for people to look at." in said
    assert "treat them as you treat the store" in said


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memory:", "memory: is no file"),
        ("app.db", "names no store"),
        ("sqlite:///{}/missing.db", "is not there. Check the path."),
    ],
)
def test_a_store_that_cannot_be_read_is_a_sentence(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        export(url.format(tmp_path), tmp_path / "journals", target=None, limit=None, format=Format.TABLE)
    assert list(tmp_path.iterdir()) == []


async def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    async with mary_pays(tmp_path / "app.db"):
        (tmp_path / "file").touch()
        command = ("export-journals", "--store", URL, "--output", "file/journals")
        done = await asyncio.to_thread(durably, *command, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == "The journals cannot be written to file/journals: Not a directory.\n"


def test_the_command_needs_none_of_what_only_tests_need() -> None:
    program = "import sys, durably.cli.commands; print({'pytest', 'hypothesis', '_pytest'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "set()\n"
