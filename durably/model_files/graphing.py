"""The graph of a model in a file."""

from __future__ import annotations

from collections.abc import Iterator

from durably.graphs.state_graph import StateGraph, arrows_of
from durably.model_files.declarations import ModelDeclaration


def graph_of_model(model: ModelDeclaration) -> StateGraph:
    """Its states and transitions, by their names in the file."""
    return StateGraph(
        name=model.name.text, states=[one.name.text for one in model.states], arrows=arrows_of(_ways(model))
    )


def _ways(model: ModelDeclaration) -> Iterator[tuple[str | None, str, str]]:
    every = [one.name for one in model.states]
    for one in model.transitions:
        sources = None if one.sources is None else one.sources or every
        for target in one.targets or every:
            for source in [None] if sources is None else sources:
                yield None if source is None else source.text, target.text, one.name.text
