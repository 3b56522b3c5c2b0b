"""The public API is what `durably/__init__.py` lists, and nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any, get_overloads

import pytest

import durably
import durably.testing


def test_everything_listed_is_there_and_listed_once() -> None:
    assert len(set(durably.__all__)) == len(durably.__all__)
    assert all(hasattr(durably, name) for name in durably.__all__)


def test_everything_imported_is_listed_under_its_own_name() -> None:
    tree = ast.parse(Path(durably.__file__).read_text())
    names = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.asname for alias in names] == [alias.name for alias in names]
    assert sorted(alias.name for alias in names) == sorted(durably.__all__)


def test_everything_listed_says_what_it_is() -> None:
    undocumented = [name for name in durably.__all__ if not (getattr(durably, name).__doc__ or "").strip()]
    assert undocumented == []


def test_the_overview_of_the_kit_for_tests_names_everything_in_it() -> None:
    tree = ast.parse(Path(durably.testing.__file__).read_text())
    names = [alias.asname for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    overview = durably.testing.__doc__ or ""
    assert [name for name in names if name is not None and f"`{name}`" not in overview] == []


@pytest.mark.parametrize("decorator", [durably.handler, durably.shared])
def test_the_help_of_a_decorator_names_its_options(decorator: Callable[..., Any]) -> None:
    keyword_only = [overload for overload in get_overloads(decorator) if not _takes_a_function(overload)]
    (options,) = [set(signature(overload).parameters) for overload in keyword_only]
    documented = set(re.findall(r"`(\w+)[:`]", decorator.__doc__ or ""))
    assert options - documented == set()


def _takes_a_function(overload: Callable[..., Any]) -> bool:
    return "fn" in signature(overload).parameters
