"""Where the states and arrows of a graph are drawn: states in columns, each behind those that lead to it.

An arrow that passes over columns goes through a free place in each, so it crosses no state. One that leads back, or to
a state of the same column, runs below.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from durably.graphs.state_graph import Arrow, StateGraph

START = "[*]"
"""What initial transitions lead from; no name of a state."""

CHARACTER = 8.0
"""The width of a character, in pixels, as everything here."""
BOX_HEIGHT = 40.0
ROW = 84.0
"""From the middle of a state to that of the state below."""
SHORTEST_GAP = 60.0
LABEL_HEIGHT = 20.0
LANE = 34.0
"""Between arrows that lead back."""
LOOP = 26.0
"""Between the ends of an arrow from a state to itself."""
ASIDE = 80.0
"""How far an arrow that leads back keeps from the boxes of its column."""
MARGIN = 24.0
TITLE_HEIGHT = 30.0
START_RADIUS = 8.0


@dataclass(frozen=True, slots=True)
class Point:
    """A place in the picture."""

    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, by its middle."""

    middle: Point
    width: float
    height: float

    def overlaps(self, other: Box) -> bool:
        return (
            abs(self.middle.x - other.middle.x) < (self.width + other.width) / 2
            and abs(self.middle.y - other.middle.y) < (self.height + other.height) / 2
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """A cubic Bezier curve."""

    begin: Point
    toward: Point
    from_: Point
    end: Point

    def at(self, part: float) -> Point:
        """The place after a part of the way, between 0 and 1."""
        rest = 1 - part
        weights = (rest**3, 3 * rest**2 * part, 3 * rest * part**2, part**3)
        points = (self.begin, self.toward, self.from_, self.end)
        return Point(
            sum(weight * point.x for weight, point in zip(weights, points, strict=True)),
            sum(weight * point.y for weight, point in zip(weights, points, strict=True)),
        )


@dataclass(frozen=True, slots=True)
class DrawnArrow:
    """An arrow with its way and the place of its label."""

    arrow: Arrow
    curves: Sequence[Curve]
    label: Box


@dataclass(frozen=True, slots=True)
class Layout:
    """A graph in its places."""

    left: float
    """Where the picture begins; it begins at the top with 0."""
    width: float
    height: float
    boxes: dict[str, Box]
    """Of the states, and of the start if there is one."""
    arrows: Sequence[DrawnArrow]


def lay_out(graph: StateGraph) -> Layout:
    """Find the places."""
    columns = _columns(graph)
    rank = {name: at for at, column in enumerate(columns) for name in column}
    forward = [one for one in graph.arrows if rank[one.target] > rank[one.source or START]]
    back = [one for one in graph.arrows if one not in forward]
    rows, passages = _rows(columns, forward, rank)
    boxes, middles = _boxes(graph, columns, rows, forward, rank)
    lowest = max((box.middle.y + box.height / 2 for box in boxes.values()), default=TITLE_HEIGHT + MARGIN)
    placed: list[Box] = list(boxes.values())
    drawn: list[DrawnArrow] = []
    for one in forward:
        stops = [Point(middles[at], _y(row)) for at, row in passages[one]]
        drawn.append(_labelled(one, _through(boxes[one.source or START], stops, boxes[one.target]), placed))
    lane = 0
    for one in sorted(back, key=lambda one: abs(rank[one.source or START] - rank[one.target])):
        source, target = boxes[one.source or START], boxes[one.target]
        if source is target:
            curve = _around(source)
        else:
            lane += 1
            curve = _below(source, target, lowest + LANE * lane, boxes.values())
        drawn.append(_labelled(one, [curve], placed))
    everything = [*placed, *(Box(curve.at(0.5), 4, 4) for one in drawn for curve in one.curves)]
    left = min([0.0, *(box.middle.x - box.width / 2 - MARGIN for box in everything)])
    right = max([box.middle.x + box.width / 2 for box in everything], default=0.0) + MARGIN
    lower = max([box.middle.y + box.height / 2 for box in everything], default=TITLE_HEIGHT) + MARGIN
    return Layout(left=left, width=right - left, height=lower, boxes=boxes, arrows=drawn)


def _columns(graph: StateGraph) -> list[list[str]]:
    """States by the longest way to them, arrows that close a circle aside."""
    leads_to: dict[str, list[str]] = {START: [], **{state: [] for state in graph.states}}
    for one in graph.arrows:
        leads_to[one.source or START].append(one.target)
    order: list[str] = []
    open_: set[str] = set()
    closing: set[tuple[str, str]] = set()

    def visit(name: str) -> None:
        open_.add(name)
        for target in leads_to[name]:
            if target in open_:
                closing.add((name, target))
            elif target not in order:
                visit(target)
        open_.discard(name)
        order.append(name)

    for name in leads_to:
        if name not in order:
            visit(name)
    rank = dict.fromkeys(order, 0 if not leads_to[START] else 1) | {START: 0}
    for name in reversed(order):
        for target in leads_to[name]:
            if (name, target) not in closing:
                rank[target] = max(rank[target], rank[name] + 1)
    columns: list[list[str]] = [[] for _ in range(max(rank.values()) + 1)]
    for name in leads_to:
        if name != START or leads_to[START]:
            columns[rank[name]].append(name)
    return columns


def _rows(
    columns: Sequence[Sequence[str]], forward: Sequence[Arrow], rank: dict[str, int]
) -> tuple[dict[str, float], dict[Arrow, list[tuple[int, float]]]]:
    """The row of each state, and for each arrow the columns that it passes, with the rows in which it does."""
    keys: list[list[str | tuple[int, int]]] = [[*column] for column in columns]
    neighbours: dict[str | tuple[int, int], list[str | tuple[int, int]]] = {}
    for number, one in enumerate(forward):
        way: list[str | tuple[int, int]] = [one.source or START]
        for at in range(rank[one.source or START] + 1, rank[one.target]):
            keys[at].append((number, at))
            way.append((number, at))
        way.append(one.target)
        for before, behind in pairwise(way):
            neighbours.setdefault(behind, []).append(before)
            neighbours.setdefault(before, []).append(behind)
    place: dict[str | tuple[int, int], float] = {}
    for _ in range(4):  # Each round moves what is in a column nearer to what it is connected with.
        for column in keys:
            place |= {one: float(at) for at, one in enumerate(column) if one not in place}
            wanted = {
                one: _mean([place.get(near, place[one]) for near in neighbours.get(one, [one])]) for one in column
            }
            column.sort(key=wanted.__getitem__)
            tallest = max(len(one) for one in keys)
            first = (tallest - len(column)) / 2
            place |= {one: first + at for at, one in enumerate(column)}
    passages = {
        one: [(at, place[number, at]) for at in range(rank[one.source or START] + 1, rank[one.target])]
        for number, one in enumerate(forward)
    }
    return {name: place[name] for column in columns for name in column}, passages


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _boxes(
    graph: StateGraph,
    columns: Sequence[Sequence[str]],
    rows: dict[str, float],
    forward: Iterable[Arrow],
    rank: dict[str, int],
) -> tuple[dict[str, Box], list[float]]:
    """The boxes of the states, and the middle of each column."""
    gaps = [SHORTEST_GAP] * len(columns)
    for one in forward:
        at = rank[one.target] - 1
        gaps[at] = max(gaps[at], _text_width(one.label) + SHORTEST_GAP)
    widths = {state: _text_width(graph.caption(state)) + 24 for state in graph.states} | {START: 2 * START_RADIUS}
    boxes: dict[str, Box] = {}
    middles: list[float] = []
    left = MARGIN
    for at, column in enumerate(columns):
        width = max((widths[name] for name in column), default=0.0)
        middles.append(left + width / 2)
        for name in column:
            height = 2 * START_RADIUS if name == START else BOX_HEIGHT
            boxes[name] = Box(Point(middles[-1], _y(rows[name])), widths[name], height)
        left += width + gaps[at]
    return boxes, middles


def _y(row: float) -> float:
    return TITLE_HEIGHT + MARGIN + BOX_HEIGHT / 2 + ROW * row


def _text_width(text: str) -> float:
    return CHARACTER * len(text)


def _through(source: Box, stops: Sequence[Point], target: Box) -> list[Curve]:
    """A way from the right of a box to the left of another, level at each stop."""
    points = [
        Point(source.middle.x + source.width / 2, source.middle.y),
        *stops,
        Point(target.middle.x - target.width / 2, target.middle.y),
    ]
    curves: list[Curve] = []
    for begin, end in pairwise(points):
        half = (end.x - begin.x) / 2
        curves.append(Curve(begin, Point(begin.x + half, begin.y), Point(end.x - half, end.y), end))
    return curves


def _around(box: Box) -> Curve:
    """A loop at the foot of a box."""
    foot = box.middle.y + box.height / 2
    begin, end = Point(box.middle.x + LOOP / 2, foot), Point(box.middle.x - LOOP / 2, foot)
    return Curve(begin, Point(begin.x + LOOP / 2, foot + 2.2 * LOOP), Point(end.x - LOOP / 2, foot + 2.2 * LOOP), end)


def _below(source: Box, target: Box, lowest: float, boxes: Iterable[Box]) -> Curve:
    """A way back, below everything: from foot to foot, or beside what stands below one of the two."""
    others = list(boxes)
    # A curve goes three quarters of the way to its handles.
    deep = lowest + (lowest - max(source.middle.y, target.middle.y)) / 3
    begin = Point(source.middle.x + source.width / 8, source.middle.y + source.height / 2)
    toward = Point(begin.x, deep)
    if _stands_on(source, others):
        begin = Point(source.middle.x + source.width / 2, source.middle.y)
        toward = Point(begin.x + ASIDE, deep)
    end = Point(target.middle.x - target.width / 8, target.middle.y + target.height / 2)
    from_ = Point(end.x, deep)
    if _stands_on(target, others):
        end = Point(target.middle.x - target.width / 2, target.middle.y)
        from_ = Point(end.x - ASIDE, deep)
    return Curve(begin, toward, from_, end)


def _stands_on(box: Box, others: Iterable[Box]) -> bool:
    """There is another box in its column, further down."""
    return any(one.middle.x == box.middle.x and one.middle.y > box.middle.y for one in others)


def _labelled(arrow: Arrow, curves: Sequence[Curve], placed: list[Box]) -> DrawnArrow:
    """The arrow, with its label where that covers no other thing if there is such a place on its way."""
    width = _text_width(arrow.label) + 8
    candidates = [
        Box(curve.at(part), width, LABEL_HEIGHT)
        for part in (0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8)
        for curve in reversed(curves)
    ]
    free = (one for one in candidates if not any(one.overlaps(other) for other in placed))
    label = next(free, candidates[0])
    placed.append(label)
    return DrawnArrow(arrow, curves, label)
