"""A graph as a Mermaid state diagram, which GitHub, GitLab and many editors draw."""

from __future__ import annotations

from collections.abc import Iterator

from durably.graphs.state_graph import StateGraph

INDENT = "    "


def to_mermaid(graph: StateGraph) -> str:
    """The text of the diagram."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: StateGraph) -> Iterator[str]:
    yield from ("---", f"title: {graph.name}", "---", "stateDiagram-v2")
    for state in graph.states:
        caption = graph.caption(state)
        yield f"{INDENT}{state}" if caption == state else f'{INDENT}state "{caption}" as {state}'
    for arrow in graph.arrows:
        yield f"{INDENT}{arrow.source or '[*]'} --> {arrow.target}: {arrow.label}"
    left = {arrow.source for arrow in graph.arrows}
    for state in graph.states:
        if graph.arrows and state not in left:
            yield f"{INDENT}{state} --> [*]"
