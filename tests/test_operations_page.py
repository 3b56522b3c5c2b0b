"""docs/operations.md names tests that are there, and every kind of finding that the doctor has."""

from __future__ import annotations

import re
from typing import Any, Final

from typer.main import get_command

from durably.cli.commands import application
from durably.cli.operators.invocations import FIELDS as INVOCATION_FIELDS
from durably.cli.operators.invocations import JOURNAL_FIELDS
from tests.doctor.test_doctor import DAMAGES
from tests.processes import ROOT

MODELS: Final = ("new", "dev", "worker", "main", "migrate", "generate", "graph")
ELSEWHERE: Final = frozenset({"check", "demo", "encrypt", "decrypt", "kv", *MODELS})
"""Commands that other pages are about, and one that is another name."""

PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8")


def test_each_test_that_is_named_exists() -> None:
    named = re.findall(r"`(test_\w+)`", PAGE)
    assert len(named) >= 13
    code = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert [name for name in named if f"def {name}(" not in code] == []


def test_each_finding_is_explained() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "durably" / "doctor").glob("*.py"))
    codes = {*re.findall(r'(?:problem|note)\(\s*"([a-z-]+)"', sources), *re.findall(r'\(record, "([a-z-]+)"', sources)}
    codes |= {*re.findall(r'\("(no-[a-z-]+-timer)"', sources)}
    assert codes > DAMAGES.keys() - {"layout"}
    assert [code for code in sorted(codes) if f"`{code}`" not in PAGE] == []


def test_each_command_of_operators_is_on_the_page_with_its_fields() -> None:
    for fields in (INVOCATION_FIELDS, JOURNAL_FIELDS):
        assert ", ".join(f"`{field}`" for field in fields) in PAGE
    command: Any = get_command(application)
    named = re.findall(r"`durably ([a-z-]+)(?: ([a-z|\\-]+))?", PAGE)
    told = {group for group, _ in named} | {f"{group} {one}" for group, ones in named for one in ones.split("\\|")}
    missing = [
        name
        for group, one in command.commands.items()
        for name in (f"{group} {verb}" for verb in getattr(one, "commands", {"": None}))
        if name.strip() not in told and group not in ELSEWHERE
    ]
    assert missing == []
