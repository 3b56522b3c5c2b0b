"""Nothing is touched before a person has seen what it is, and said yes; `--yes` says it beforehand."""

from __future__ import annotations

import sys

import typer

from durably.cli.failures import CommandError
from durably.cli.operators.output import talk


class NotAskedError(CommandError):
    """There is no terminal to ask at."""

    status = 2


def agreed(question: str, *, yes: bool) -> None:
    """Ask on stderr.

    Raises:
        CommandError: the answer is no, or stdin is not a terminal.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotAskedError(f"{question} There is no terminal to ask at: say --yes.")
    if not typer.confirm(question, default=False, err=True):
        raise CommandError("Nothing was touched.")


def told_of_many(count: int, shown: int) -> None:
    """Say that a list goes on."""
    if count > shown:
        talk(f"... and {count - shown:,} more.")
