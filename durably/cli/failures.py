"""`CommandError`: what the command tells a person in a sentence, before it exits with status 1."""

from __future__ import annotations

from typing import Final

EXTRAS_MISSING: Final = "The durably command needs {missing}, of two extras: pip install 'durably[cli,http]'"


class CommandError(Exception):
    """Something that the person at the terminal can mend; the message says what and how."""

    status = 1
    """What the process ends with."""


class InterruptedCommandError(CommandError):
    """Ctrl-C, before anything had begun."""

    status = 130  # As shells have it: 128 and the number of SIGINT.
