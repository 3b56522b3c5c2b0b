"""README tells the truth: its program runs and prints what it says, its commands are those that are tested."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from durably.testing import Harness
from tests.processes import ROOT, environment_with

README = (ROOT / "README.md").read_text("utf-8")


def test_the_program_in_the_readme_runs_and_remembers(tmp_path: Path) -> None:
    program = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    (tmp_path / "program.py").write_text(program)
    command = [sys.executable, "-W", "error", "program.py"]
    for expected in (["True", "False"], ["False", "False"]):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment_with({}), capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == expected


async def test_the_test_in_the_readme_passes() -> None:
    program, *_, test = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(program.replace("asyncio.run(main())", "") + test, names)
    await names["test_a_seat_comes_back_after_fifteen_minutes"]()


async def test_the_approval_in_the_readme_waits_for_a_person() -> None:
    (program,) = [one for one in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "class Expense" in one]
    letters: list[str] = []

    def send_letter(to: str, amount: int, id: str) -> None:
        letters.append(id)

    names: dict[str, Any] = {"__name__": "readme", "send_letter": send_letter}
    exec(compile(f"from durably import *\n{program}", "readme", "exec", dont_inherit=True), names)
    async with Harness(names["Expense"], nothing_resident=True) as app:
        for number, is_by_id in (("1", True), ("2", False)):
            expense = app.object(names["Expense"], number)
            submitted = await expense.submit.send(5)
            await app.advance(days=3)
            await app.crash()
            await (app.resolve_awakeable(letters[-1], True) if is_by_id else expense.decide(False))
            assert await submitted.result() == ("approved" if is_by_id else "refused")


def test_the_recipe_for_fastapi_reserves_a_seat() -> None:
    program, *_ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (recipe,) = re.findall(r"```python\n(from typing.*?durably.fastapi.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {"__name__": "readme"}
    exec(program.replace("asyncio.run(main())", ""), names)
    names["runtime"] = Harness(names["Seat"], names["Cart"])
    exec(recipe, names)
    with TestClient(names["app"]) as client:
        assert [client.post("/seats/2B").json() for _ in range(2)] == [True, False]


def test_continuous_integration_runs_the_readmes_test_command() -> None:
    (command,) = re.findall(r"^ +python3 -m venv .* && \.venv/bin/(python -m pytest.*)$", README, re.MULTILINE)
    assert (ROOT / ".ci" / "run").read_text("utf-8").rstrip().endswith(f"step {command} --full")


def test_every_link_leads_somewhere() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), (page.name, target)
