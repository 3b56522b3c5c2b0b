"""Pictures of state machines: of a class of transitions, or of a model in a `.rst` file, as Mermaid or SVG."""

from durably.graphs.mermaid import to_mermaid as to_mermaid
from durably.graphs.reading import graph_of_machine as graph_of_machine
from durably.graphs.state_graph import Arrow as Arrow
from durably.graphs.state_graph import StateGraph as StateGraph
from durably.graphs.svg import to_svg as to_svg

__all__ = ["Arrow", "StateGraph", "graph_of_machine", "to_mermaid", "to_svg"]
