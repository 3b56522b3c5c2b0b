"""What a soak shows while it runs: one line that changes, on a terminal with rich; otherwise a line now and then."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.util import find_spec
from time import perf_counter

from durably.testing.soak.soaking import Total

Show = Callable[[Total], None]

LINE_EVERY_SECONDS = 10


@contextmanager
def shown(*, quiet: bool, on_terminal: bool) -> Generator[Show, None, None]:
    """A function that shows how far it is."""
    if quiet:
        yield _nothing
    elif on_terminal and find_spec("rich") is not None:
        from rich.console import Console

        with Console().status("starting") as status:
            yield lambda total: status.update(str(total.report))
    else:
        yield _Lines()


class _Lines:
    """A line every ten seconds."""

    def __init__(self) -> None:
        self._last = perf_counter()

    def __call__(self, total: Total) -> None:
        now = perf_counter()
        if now - self._last >= LINE_EVERY_SECONDS:
            self._last = now
            print(f"... {total.report}", flush=True)


def _nothing(total: Total) -> None:
    """Only the summary is wanted."""
