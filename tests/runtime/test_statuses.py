"""Every move between statuses is in the table, and only a `Transition` makes one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import durably
from durably.ids import InvocationStatus
from durably.runtime.invocations.statuses import LEGAL_MOVES
from tests.processes import ROOT

RUNTIME = Path(durably.__file__).parent / "runtime"


def test_the_table_of_the_architecture_is_that_of_the_code() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = dict(re.findall(r"^\| ([a-z-]+) \| ([a-z ,;()-]+) \|$", page.split("| from | to |")[1], re.MULTILINE))
    for status, after in LEGAL_MOVES.items():
        told = {word for word in InvocationStatus if re.search(rf"\b{word}\b", rows[status])}
        assert told == after, status


def test_what_has_ended_moves_nowhere_and_nothing_goes_back_to_what_has_not_started() -> None:
    assert set(LEGAL_MOVES) == set(InvocationStatus)
    assert LEGAL_MOVES[InvocationStatus.COMPLETED] == frozenset()
    for status, after in LEGAL_MOVES.items():
        assert InvocationStatus.SCHEDULED not in after
        assert InvocationStatus.PENDING not in after or status is InvocationStatus.SCHEDULED


def test_only_a_transition_writes_what_follows_from_the_log() -> None:
    """Rule L4 depends on it: a change that is not noted would leave memory before it is durable."""
    written = {
        (file.relative_to(RUNTIME).as_posix(), target.attr)
        for file in RUNTIME.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign)
        for target in ast.walk(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        if isinstance(target, ast.Attribute) and target.attr in {"status", "changed_at"}
    }
    assert written - {("invocations/activation.py", "changed_at")} == {  # Where it begins, at 0.
        ("commit/transition.py", "status"),
        ("commit/transition.py", "changed_at"),
    }


def test_only_the_commit_knows_the_open_batch() -> None:
    knowing = {
        file.relative_to(RUNTIME).parts[0]
        for file in RUNTIME.rglob("*.py")
        if "commit.open_batch" in file.read_text()
    }  # fmt: skip
    assert knowing == {"commit"}
