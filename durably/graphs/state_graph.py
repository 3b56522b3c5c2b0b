"""`StateGraph`: the states of a model and what leads from one to another, as a value that can be drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """The transitions that lead from one state to another."""

    source: str | None
    """None: they make an object."""
    target: str
    names: Sequence[str]

    @property
    def label(self) -> str:
        return ", ".join(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class StateGraph:
    """A state machine."""

    name: str
    """Of the model."""
    states: Sequence[str]
    arrows: Sequence[Arrow]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])
    """How many objects are in each state, where that is known."""

    def caption(self, state: str) -> str:
        """A state, with its count."""
        return f"{state} ({self.counts[state]:,})" if state in self.counts else state


def arrows_of(ways: Iterable[tuple[str | None, str, str]]) -> list[Arrow]:
    """Arrows of (source, target, name of the transition), one for each pair of states, in order of appearance."""
    names: dict[tuple[str | None, str], list[str]] = {}
    for source, target, name in ways:
        names.setdefault((source, target), []).append(name)
    return [Arrow(source=source, target=target, names=tuple(some)) for (source, target), some in names.items()]
