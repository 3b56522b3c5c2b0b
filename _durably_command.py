"""The `durably` command. Ctrl-C and SIGTERM end it without a traceback from its first import on: status 130 or 143.

It stands outside the package: importing anything of a package imports all of `durably` first, which takes a while. The
package imports this first, so the same goes for `python -m durably`.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the command."""
    open_closed_streams()
    leave_quietly_on_signals()  # `durably.cli.main` sets Python's handler of Ctrl-C again.
    if sys.argv[1:] == ["--version"]:
        print_version()
        return
    from durably.cli.main import main

    main()


def print_version() -> None:
    """At once: nothing of the package is imported for it."""
    sys.stdout.write(f"durably {_installed_version() or _version_by_metadata()}\n")


def _installed_version() -> str | None:
    """By the name of the folder that pip has made. Importing `importlib.metadata` takes longer than all else."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:  # Not there, or an archive.
            continue
        for name in names:
            if name.startswith("durably-") and name.endswith(".dist-info"):
                return name.removeprefix("durably-").removesuffix(".dist-info")
    return None


def _version_by_metadata() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("durably")
    except PackageNotFoundError:
        return "(from a source tree, not installed)"


def open_closed_streams() -> None:
    """Let a standard stream that the starter has closed (`>&-` of a shell) lead nowhere, as `/dev/null` does.

    Python has None in its place, which nothing is written to, and the next file that is opened would get its number.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is not None:
            continue
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere == number:
            os.set_inheritable(number, True)  # As a standard stream is.
        setattr(sys, name, os.fdopen(nowhere, mode, encoding="utf-8"))


def leave_quietly_on_signals() -> None:
    """While only imports run, a traceback of them tells nothing. Nothing has begun that would have to be ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)


def _leave(number: int, _frame: object) -> None:
    os._exit(128 + number)  # As shells have it.


def _is_python_m() -> bool:
    """It is `python -m durably` that imports this: until it has found the package, the script's name is `-m`."""
    given = sys.orig_argv
    if sys.argv[:1] != ["-m"] or "-m" not in given[:-1]:
        return False
    return given[given.index("-m") + 1] in ("durably", "durably.cli", "durably.cli.attached")


if _is_python_m():
    open_closed_streams()
    leave_quietly_on_signals()
    if sys.orig_argv[-1] == "--version" and sys.orig_argv[-2] in ("durably", "durably.cli"):
        print_version()
        raise SystemExit
