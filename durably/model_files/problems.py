"""What is wrong in files of models: each problem with its place, the line, a caret below it, and what to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from durably.model_files.declarations import Name

SHOWN_PROBLEMS: Final = 20
_TAB: Final = "    "


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong."""

    path: str
    line: int
    """From 1, as is the column."""
    column: int
    length: int
    source: str
    """The line as it stands in the file."""
    message: str
    """What is wrong, and what to write."""

    def __str__(self) -> str:
        before = self.source[: self.column - 1].replace("\t", _TAB)
        carets = "^" * max(1, self.length)
        shown = self.source.replace("\t", _TAB).rstrip()
        return (
            f"{self.path}, line {self.line}, column {self.column}:\n"
            f"    {shown}\n    {' ' * len(before)}{carets}\n{self.message}"
        )


class ModelFileError(Exception):
    """Files of models are not right. Its text shows each place; `problems` has them as values."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        shown = [str(one) for one in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            shown.append(f"... and {len(problems) - SHOWN_PROBLEMS} more.")
        super().__init__("\n\n".join(shown))
        self.problems = tuple(problems)


class ProblemList:
    """Gathers the problems of one file."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._lines = text.split("\n")
        self.found: list[Problem] = []

    def add(self, name: Name, message: str) -> None:
        self.add_at(name.line, name.column, name.length, message)

    def add_at(self, line: int, column: int, length: int, message: str) -> None:
        source = self._lines[line - 1].rstrip("\r") if line <= len(self._lines) else ""
        self.found.append(
            Problem(path=self._path, line=line, column=column, length=length, source=source, message=message)
        )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Which of the known names may have been meant."""
    by_lower = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]}?" if close else ""


def in_words(names: Sequence[str], conjunction: str = "and") -> str:
    """`Created, Paid and DeliveryBooked`"""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {conjunction} {names[-1]}"
