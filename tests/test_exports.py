"""The public API is what `durably/__init__.py` lists, and nothing else."""

from __future__ import annotations

import ast
from pathlib import Path

import durably


def test_everything_listed_is_there_and_listed_once() -> None:
    assert sorted(set(durably.__all__)) == durably.__all__
    assert all(hasattr(durably, name) for name in durably.__all__)


def test_everything_imported_is_listed_under_its_own_name() -> None:
    tree = ast.parse(Path(durably.__file__).read_text())
    names = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert [alias.asname for alias in names] == [alias.name for alias in names]
    assert sorted(alias.name for alias in names) == durably.__all__


def test_everything_listed_says_what_it_is() -> None:
    undocumented = [name for name in durably.__all__ if not (getattr(durably, name).__doc__ or "").strip()]
    assert undocumented == []
