"""The `durably` command. Ctrl-C ends it without a traceback from its first import on.

It stands outside the package: importing anything of a package imports all of `durably` first, which takes a while.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # `durably.cli.main` sets Python's handler again.
    from durably.cli.main import main

    main()
