"""What every test leaves behind: nothing. Logging is configured process-wide, and `capture_logs` leaves it so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()
