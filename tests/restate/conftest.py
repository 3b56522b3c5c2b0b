"""One server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.restate.cluster import Cluster, installed

# There is no restate-sdk for Windows.
collect_ignore_glob = [] if find_spec("restate") else ["test_*.py"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node that runs."""
    one = Cluster(installed(tmp_path_factory.mktemp("npm")), tmp_path_factory.mktemp("restate"))
    try:
        one.start()
        yield one
    finally:
        one.end()
