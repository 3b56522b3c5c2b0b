"""What tests of the command share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture
def process_as_it_was() -> Iterator[None]:
    """The command sets up logging, signals and variables for its process, which is that of the tests here."""
    root, variables = logging.getLogger(), dict(os.environ)
    handlers, level = root.handlers[:], root.level
    on_signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, on_signal in on_signals.items():
        signal.signal(number, on_signal)
    os.environ.clear()
    os.environ.update(variables)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)
