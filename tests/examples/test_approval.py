"""The example of a human approval."""

from __future__ import annotations

import pytest

from durably import TerminalError
from durably.ingress import Ingress
from durably.testing import Harness
from examples import approval
from examples.approval import Expense
from tests.ingress.test_app import client_of
from tests.semantics.test_awakeables import WAYS

LETTERS: list[str] = []


@pytest.fixture(autouse=True)
def _letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def send_letter(to: str, text: str) -> None:
        LETTERS.append(f"{to}: {text}")

    LETTERS.clear()
    monkeypatch.setattr(approval, "send_letter", send_letter)


@pytest.mark.parametrize("way", [*WAYS])
async def test_somebody_is_asked_and_reminded_and_decides(way: str) -> None:
    async with Harness(Expense, **WAYS[way]) as app:
        expense = app.object(Expense, "7")
        submitted = await expense.submit.send(250, "boss")
        await app.advance(days=2.5)
        assert [letter.partition(" ")[2][:14] for letter in LETTERS] == ["is 250 all rig", *["250 still wait"] * 2]
        await app.crash()
        await expense.decide(yes=True)
        assert await submitted.result() == "approved"
        assert await expense.outcome() == "approved"


async def test_the_line_in_the_letter_decides() -> None:
    async with Harness(Expense) as app, client_of(Ingress(app)) as client:
        submitted = await app.object(Expense, "7").submit.send(250, "boss")
        await app.settle()
        (path,) = [word for word in LETTERS[0].split() if word.startswith("localhost:8080/restate/")]
        response = await client.post(path.removeprefix("localhost:8080"), content=b"false")
        assert response.status_code == 202
        assert await submitted.result() == "refused"


async def test_nobody_decides_what_nobody_has_asked() -> None:
    async with Harness(Expense) as app:
        with pytest.raises(TerminalError, match="nobody has asked"):
            await app.object(Expense, "8").decide(yes=True)
