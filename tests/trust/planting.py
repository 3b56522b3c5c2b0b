"""Planting: one bug at a time in an app that is correct otherwise, and how such an app is looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from durably.actors.actor import Actor
from durably.testing import Faults
from durably.testing.simulation.campaign import Program


class _Planted:
    bug = ""


def plant(bug: str) -> None:
    """From now on this bug is there; `""` is none."""
    _Planted.bug = bug


def planted(bug: str) -> bool:
    """Whether this bug is there."""
    return _Planted.bug == bug


@dataclass(frozen=True, kw_only=True)
class App:
    """An app with the test of its user, and the bugs that can be planted in it, each with its kind."""

    name: str
    actors: tuple[type[Actor], ...]
    program: Program
    bugs: Mapping[str, str]
    dependencies: Callable[[], Mapping[Any, Any]] | None = None
    faults: Faults = field(default_factory=Faults.any)
