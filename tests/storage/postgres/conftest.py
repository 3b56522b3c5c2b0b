from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.postgres import PostgresServer, running_postgres


@pytest.fixture(scope="session")
def server() -> Iterator[PostgresServer]:
    """One server for all tests here; each store has a schema of its own."""
    with running_postgres() as server:
        yield server
