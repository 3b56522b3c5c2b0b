"""`Report`: what an examination found, each thing with a code, a sentence, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from durably.inspection import data_of


class Severity(StrEnum):
    """How bad a finding is."""

    PROBLEM = "problem"
    """It must not be: something is stuck, or the store contradicts itself."""
    NOTE = "note"
    """It is as it should be, and waits for somebody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found."""

    code: str
    """Names the kind; the list is in docs/operations.md."""
    severity: Severity
    subject: str
    """What it is about: an invocation, an object, a table."""
    sentence: str
    advice: str
    id: str | None = None
    """The id of the invocation, if it is about one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was found, and how much was looked at."""

    store: str
    findings: tuple[Finding, ...]
    left_out: int
    """How many further findings of kinds that were found often there are at least."""
    invocations: int
    objects: int

    @property
    def problems(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.severity is Severity.PROBLEM)

    @property
    def is_sound(self) -> bool:
        return not self.problems

    def data(self) -> dict[str, Any]:
        """As plain values for JSON."""
        told = data_of(self)
        assert isinstance(told, dict)
        return {**told, "sound": self.is_sound}


MOST_OF_A_KIND: Final = 20
"""How many findings of one kind are told; of the others, that there are more."""


class Findings:
    """Collects findings, and keeps a bounded number of each kind."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Finding]] = {}
        self.left_out = 0

    def add(self, finding: Finding) -> None:
        kept = self._kept.setdefault(finding.code, [])
        if len(kept) < MOST_OF_A_KIND:
            kept.append(finding)
        else:
            self.left_out += 1

    def add_all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self.add(finding)

    @property
    def has_problem(self) -> bool:
        return any(one.severity is Severity.PROBLEM for kept in self._kept.values() for one in kept)

    def told(self) -> tuple[Finding, ...]:
        """Problems first, in the order in which their kinds were found."""
        found = [one for kept in self._kept.values() for one in kept]
        return tuple(sorted(found, key=lambda one: one.severity is Severity.NOTE))


RESTORE: Final = (
    "Stop the runtime, keep a copy of the files, and restore a backup from before. If no other program and no failing "
    "disk has done this, please report it with this line."
)
REPORT: Final = (
    "Cancel or kill it (durably invocations cancel ID, or kill) to free what waits for it, and report this line."
)


def problem(code: str, subject: str, sentence: str, advice: str = RESTORE, *, id: str | None = None) -> Finding:
    return Finding(
        code=code, severity=Severity.PROBLEM, subject=subject, sentence=sentence, advice=advice, id=id
    )  # fmt: skip


def note(code: str, subject: str, sentence: str, advice: str, *, id: str | None = None) -> Finding:
    return Finding(code=code, severity=Severity.NOTE, subject=subject, sentence=sentence, advice=advice, id=id)
