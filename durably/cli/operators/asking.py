"""Nothing is touched before a person has seen what it is, and said yes; `--yes` says it beforehand."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from durably.cli.failures import CommandError, InterruptedCommandError
from durably.cli.operators.output import talk


class NotAskedError(CommandError):
    """There is no terminal to ask at."""

    status = 2


def agreed(question: str, *, yes: bool) -> None:
    """Ask on stderr.

    Raises:
        CommandError: the answer is no, or stdin is not a terminal.
        InterruptedCommandError: Ctrl-C came instead.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotAskedError(f"{question} There is no terminal to ask at: say --yes.")
    if not _answered(question):
        raise CommandError("Nothing was touched.")


def _answered(question: str) -> bool:
    """Wait for the answer; an end of the input is a no.

    The event loop would only note Ctrl-C, and act on it after the answer.
    """
    before = signal.signal(signal.SIGINT, _interrupt)
    try:
        return typer.confirm(question, default=False, err=True)
    except typer.Abort:
        typer.echo(err=True)
        return False
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    typer.echo(err=True)
    raise InterruptedCommandError("Nothing was touched.")


def told_of_many(count: int, shown: int) -> None:
    """Say that a list goes on."""
    if count > shown:
        talk(f"... and {count - shown:,} more.")
