"""Code and docs/semantics.md speak of the same rules: a reader who follows a citation finds the rule, and back."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT

DECLARED = re.compile(r"^- \*\*([A-Z]\d+)\*\* ", re.MULTILINE)
LIST = re.compile(r"\b[Rr]ules? `?([A-Z]\d+(?:(?:,? and |,? or |, | to )[A-Z]\d+)*)")
WRAPPED = re.compile(r"\s*\n\s*(?:#+ ?)?\s*")
"""A citation may go on in the next line, of a comment too."""


def declared() -> list[str]:
    return DECLARED.findall((ROOT / "docs" / "semantics.md").read_text("utf-8"))


def cited(text: str) -> Iterator[str]:
    """`Rule L3`, `rules L1, L2 and S4`, `rules X1 to X3`."""
    for citation in LIST.findall(WRAPPED.sub(" ", text)):
        for part in re.split(r",? and |,? or |, ", citation):
            first, *last = part.split(" to ")
            yield from _range(first, *last) if last else (first,)


def _range(first: str, last: str) -> Iterator[str]:
    letter = first[0]
    assert last[0] == letter, f"{first} to {last} is no range"
    return (f"{letter}{number}" for number in range(int(first[1:]), int(last[1:]) + 1))


def citations(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for path in paths:
        for rule in cited(path.read_text("utf-8")):
            yield rule, path.relative_to(ROOT).as_posix()


def sources(*folders: str) -> list[Path]:
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if path != Path(__file__)]


def pages() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_every_rule_that_is_cited_exists() -> None:
    rules = {*declared()}
    everywhere = [
        *sources("durably", "tests", "workloads", "examples", "benchmarks"),
        ROOT / "_durably_command.py",
        ROOT / "_durably_pytest.py",
        *pages(),
    ]
    dangling = {f"{path} cites rule {rule}" for rule, path in citations(everywhere) if rule not in rules}
    assert dangling == set(), "Add the rule to docs/semantics.md, or name the rule that is meant."


def test_every_rule_is_cited_by_the_code_that_keeps_it() -> None:
    in_code = {rule for rule, _ in citations(sources("durably"))}
    assert {*declared()} - in_code == set(), "Write `# Rule X1` beside the code that keeps it."


def test_every_rule_is_stated_once() -> None:
    assert [rule for rule, count in Counter(declared()).items() if count > 1] == []
    assert len(declared()) > 40


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("# Rule L3", ["L3"]),
        ("it waits (rule C6).", ["C6"]),
        ("(rules L1, L2). What leaves", ["L1", "L2"]),
        ("Rules E3 and\n    # E6: the host's", ["E3", "E6"]),
        ("rules X1, X2, and X4 or A1", ["X1", "X2", "X4", "A1"]),
        ("(rules X1 to X3, D1)", ["X1", "X2", "X3", "D1"]),
        ("a rule\n# D2 that", ["D2"]),
        ("Rule T1 and a Ticket 2B; ruler S4; V8", ["T1"]),
    ],
)
def test_a_citation_is_found_however_it_is_written(text: str, rules: list[str]) -> None:
    assert [*cited(text)] == rules
