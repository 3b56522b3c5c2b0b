"""docs/sagas.md tells the truth: its programs run and do what it says."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from durably import CancelledInvocationError, TerminalError
from durably.sagas import SagaStatus
from durably.testing import Harness
from tests.processes import ROOT

PAGE = (ROOT / "docs" / "sagas.md").read_text("utf-8")


@pytest.fixture
def names() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "sagas_page"}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)):
        exec(compile(program, f"sagas.md, program {number}", "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("how", ["confirmed", "aborted", "impossible"])
async def test_its_saga_completes_or_is_undone(how: str, names: dict[str, Any]) -> None:
    async with Harness(names["CreateOrder"], names["Orders"], names["Kitchen"]) as app:
        order_id = "impossible" if how == "impossible" else "o1"
        saga = app.workflow(names["CreateOrder"], order_id)
        assert (await names["order"](app, order_id)).status == "running"
        await app.settle()
        await app.crash()
        if how == "confirmed":
            assert (await saga.state()).step_name == "wait_for_confirmation"
            await app.resolve_awakeable(names["LOG"][1].removeprefix("asked for "), True)
            assert (await saga.run.attach()).ticket == "ticket of o1"
            return
        if how == "aborted":
            await saga.abort()
        with pytest.raises(CancelledInvocationError if how == "aborted" else TerminalError):
            await saga.run.attach()
        undone = ["cancelled the ticket of o1", "rejected o1"] if how == "aborted" else ["rejected impossible"]
        assert names["LOG"][-len(undone) :] == undone


async def test_its_inline_compensations_undo_what_was_done(names: dict[str, Any]) -> None:
    async with Harness(names["Trip"], names["Orders"], names["Kitchen"]) as app:
        assert await app.object(names["Trip"], "t").book("o2") == "ticket of o2"
        with pytest.raises(TerminalError, match="The kitchen is closed"):
            await app.object(names["Trip"], "t").book("impossible")
        undone = ["cancelled the ticket of impossible", "rejected impossible"]
        assert names["LOG"][-3:] == ["created impossible", *undone]


def test_it_tells_every_status() -> None:
    statuses = PAGE.partition("| status | |\n| --- | --- |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([a-z-]+)`", statuses, re.MULTILINE) == [*get_args(SagaStatus)]
