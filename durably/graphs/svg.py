"""A graph as an SVG picture, in plain shapes that every browser and editor draws."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from durably.graphs.layout import MARGIN, START, START_RADIUS, Box, DrawnArrow, Point, lay_out
from durably.graphs.state_graph import StateGraph

_STYLE = (
    "text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2937}"
    ".label{font-size:12px}"
    "path{fill:none;stroke:#6b7280;stroke-width:1.5}"
    "#head{fill:#6b7280;stroke:none}"
    ".state{fill:#eff6ff;stroke:#2563eb;stroke-width:1.5}"
    ".under{fill:#ffffff}"
)


def to_svg(graph: StateGraph) -> str:
    """The picture."""
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: StateGraph) -> Iterator[str]:
    layout = lay_out(graph)
    width = max(layout.width, 2 * MARGIN + 9 * len(graph.name))
    size = f'width="{width:.0f}" height="{layout.height:.0f}"'
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="{layout.left:.0f} 0 {width:.0f} {layout.height:.0f}" '
        f'role="img" aria-label="{escape(graph.name)}">'
    )
    yield f"<style>{_STYLE}</style>"
    yield (
        '<defs><marker id="arrow" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
        'orient="auto-start-reverse"><path id="head" d="M0,0 L10,5 L0,10 z"/></marker></defs>'
    )
    yield f'<rect class="under" x="{layout.left:.0f}" {size}/>'
    yield f'<text x="{layout.left + MARGIN:.0f}" y="{MARGIN + 4:.0f}" font-weight="bold">{escape(graph.name)}</text>'
    for arrow in layout.arrows:
        yield _path(arrow)
    for name, box in layout.boxes.items():
        if name == START:
            yield f'<circle cx="{box.middle.x:.1f}" cy="{box.middle.y:.1f}" r="{START_RADIUS:.0f}" fill="#1f2937"/>'
        else:
            yield _rectangle(box, "state", 8)
            yield _text(box.middle, graph.caption(name), "")
    for arrow in layout.arrows:  # Last, so that no line crosses a label.
        yield _rectangle(arrow.label, "under", 4)
        yield _text(arrow.label.middle, arrow.arrow.label, ' class="label"')
    yield "</svg>"


def _path(arrow: DrawnArrow) -> str:
    parts = [f"M{_pair(arrow.curves[0].begin)}"]
    parts += [f"C{_pair(one.toward)} {_pair(one.from_)} {_pair(one.end)}" for one in arrow.curves]
    return f'<path d="{" ".join(parts)}" marker-end="url(#arrow)"/>'


def _rectangle(box: Box, kind: str, radius: int) -> str:
    left, top = box.middle.x - box.width / 2, box.middle.y - box.height / 2
    size = f'width="{box.width:.1f}" height="{box.height:.1f}" rx="{radius}"'
    return f'<rect class="{kind}" x="{left:.1f}" y="{top:.1f}" {size}/>'


def _text(middle: Point, text: str, attributes: str) -> str:
    place = f'x="{middle.x:.1f}" y="{middle.y:.1f}" text-anchor="middle" dominant-baseline="central"'
    return f"<text {place}{attributes}>{escape(text)}</text>"


def _pair(point: Point) -> str:
    return f"{point.x:.1f},{point.y:.1f}"
