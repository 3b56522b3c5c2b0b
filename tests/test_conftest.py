"""The suite finds the same in every run."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

seen: list[int] = []


@given(st.integers())
def note(number: int) -> None:
    seen.append(number)


def test_properties_try_the_same_examples_each_time() -> None:
    if settings.get_current_profile_name() == "search":
        pytest.skip("a search was asked for")
    tried: list[list[int]] = []
    for _ in range(2):
        note()
        tried.append(seen[:])
        seen.clear()
    assert tried[0] == tried[1]
