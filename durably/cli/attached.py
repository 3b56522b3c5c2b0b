"""`Attachment`: `durably` commands in processes that end with the one that started them, also where that is killed.

The starter holds one end of a pipe, and a thread of the started process waits at the other. When the starter has gone,
whatever has ended it, the operating system closes its end. Then the started process ends as at SIGTERM: it drains.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import IO, Final

from durably.cli.main import main

GONE: Final = "The command that started this process has gone, so it stops, too."
HAS_PIPES: Final = sys.platform != "win32"
"""Whether a pipe can be handed to a process. Where not, it goes on when its starter is killed."""


class Attachment:
    """What processes are tied to: this object, or at the latest this process."""

    def __init__(self) -> None:
        self._watched, self._held = os.pipe()

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
        output: IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Run the `durably` command with these arguments, in this folder, with all that it prints going to `output`."""
        program = ["durably.cli.attached", str(self._watched)] if HAS_PIPES else ["durably.cli"]
        return subprocess.Popen(
            [sys.executable, "-m", *program, *arguments], cwd=folder, env=environment, stdout=output, stderr=output,
            pass_fds=[self._watched] if HAS_PIPES else [],
        )  # fmt: skip

    def close(self) -> None:
        """Let go of the pipe; what still runs ends."""
        os.close(self._held)
        os.close(self._watched)


def _end_with_the_starter(watched: int) -> None:
    with suppress(OSError):
        os.read(watched, 1)  # Nothing is ever written: it returns when the other end is closed.
        os.write(sys.stderr.fileno(), f"{GONE}\n".encode())
    os.kill(os.getpid(), signal.SIGTERM)


def _run() -> None:
    watched = int(sys.argv.pop(1))
    os.set_inheritable(watched, False)  # Not for the processes of the program.
    Thread(target=_end_with_the_starter, args=[watched], name="durably-attached", daemon=True).start()
    main()


if __name__ == "__main__":
    _run()
