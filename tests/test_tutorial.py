"""The tutorial on testing tells the truth: its code runs as it stands, and finds the bug that it plants."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from durably import Service
from durably.testing import Harness
from durably.testing.replaying import export_journals
from examples.providers import Ledger, MailProvider, PaymentProvider
from examples.tickets import Cart, Checkout, Ticket
from tests.processes import ROOT, environment_with

PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")


async def leave_something_under_way(folder: Path) -> None:
    """What `durably export-journals` finds in a store where a seat is reserved."""
    ledger = Ledger(None)
    dependencies = {PaymentProvider: PaymentProvider(ledger, failing=0), MailProvider: MailProvider(ledger)}
    actors: tuple[type[Cart] | type[Ticket] | type[Service], ...] = (Ticket, Cart, Checkout)
    async with Harness(*actors, dependencies=dependencies) as app:
        await app.object(Cart, "ann").add_ticket("2B")
        assert await export_journals(app._store, folder)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.slow
def test_the_tutorial_runs_and_finds_its_bug(tmp_path: Path) -> None:
    # `durably export-test` writes such a block for an app of the reader's; tests/cli/test_journals.py runs one.
    blocks = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "from app import" not in block]
    (tmp_path / "test_page.py").write_text("\n".join(blocks))
    asyncio.run(leave_something_under_way(tmp_path / "journals"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "test_page.py"],
        cwd=tmp_path,
        env=environment_with({"PYTHONPATH": str(ROOT)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.findall(r"^FAILED test_page.py::(\S+)", done.stdout, re.MULTILINE) == [
        "test_no_seat_is_shared",
        "TestShopping::runTest",
    ], done.stdout
    repeat = "Repeat it with: simulate(rush, Ticket, HastyCart, seed=0)"
    for told in (
        "The condition no_seat_is_shared does not hold after a commit",
        repeat,
        "state = ShoppingMachine()",
    ):
        assert told in done.stdout
        assert told in re.sub(r"\n +", " ", PAGE)
    assert re.search(r"durably: [\d,]+ simulated runs, [\d,]+ crashes, [\d.,]+ \w+ of virtual time", done.stdout)
