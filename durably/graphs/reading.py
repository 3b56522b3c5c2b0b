"""The graph of a class of transitions."""

from __future__ import annotations

from collections.abc import Iterator

from durably.actors.machines.abstract import transitions_of
from durably.actors.machines.info import info_of
from durably.actors.machines.model import states_of
from durably.graphs.state_graph import StateGraph, arrows_of


def graph_of_machine(machine: type) -> StateGraph:
    """The states and transitions of a class such as `Orders(Machine[Order])`, by their names in Python."""
    model = info_of(machine).model
    return StateGraph(
        name=model.__name__,
        states=[state.__name__ for state in states_of(model)],
        arrows=arrows_of(_ways(machine)),
    )


def _ways(machine: type) -> Iterator[tuple[str | None, str, str]]:
    for one in transitions_of(machine):
        for target in one.targets:
            if one.sources:
                yield from ((source.__name__, target.__name__, one.attribute) for source in one.sources)
            else:
                yield None, target.__name__, one.attribute
