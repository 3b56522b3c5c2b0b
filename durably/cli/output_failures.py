"""`output_failures_told`: stdout that takes nothing more, because its disk is full or its reader has gone."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Final

STATUS: Final = 1
_OF_OUTPUT: Final = frozenset({errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EDQUOT, errno.EFBIG})


@contextmanager
def output_failures_told() -> Generator[None]:
    """Print all that is left to print, and end the process with a sentence, or silently for a reader that has gone.

    Raises:
        SystemExit: the output failed.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _OF_OUTPUT:
            raise
        _write_no_more()
        if error.errno == errno.EPIPE:
            raise SystemExit(STATUS) from None
        with suppress(OSError):
            print(f"What was to be printed could not be written: {error.strerror}. Free some space.", file=sys.stderr)
        raise SystemExit(STATUS) from None


def _write_no_more() -> None:
    """What is still buffered would fail once more when Python ends, after any handler."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
