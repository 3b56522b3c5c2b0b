"""Run as a program: which functions of the runtime and of the stores no simulated run enters.

python -m tests.simulation.survey [--runs 20] [--lines] [--tests .coverage]

`unreached.toml` beside it says why of each: in simulation it cannot happen, or few runs come there, and which tests do
instead. A test with `--full` compares the two, so neither a verb that no workload uses nor a reason that is none any
more goes unseen.

Of a function that runs do enter, some lines are for what is rare. `--lines` lists them. `--tests` joins them with what
`coverage run -m pytest` has recorded, and lists those that neither a run nor a test reaches, and the functions that the
tests named with their reason do not enter. The configuration of that:

    [run]
    source = durably/runtime,durably/storage
    dynamic_context = test_function
"""

from __future__ import annotations

import ast
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
SURVEYED = ("durably/runtime", "durably/storage")
REASONS = Path(__file__).with_name("unreached.toml")
RUNS = 20
"""Of each workload."""


class Function(NamedTuple):
    """A function, and the lines of it that can be reached."""

    place: str
    """`durably/runtime/a.py: Class.method`."""
    lines: frozenset[int]
    """Those of its body, without functions within it."""


class Reason(NamedTuple):
    """Why no run enters some functions."""

    why: str
    tests: Sequence[str]
    """Files or folders of tests that do; none: nothing can."""
    places: Sequence[str]
    """Files, classes (`a.py: Class`) or functions."""
    is_rare: bool = False
    """Some runs may come there all the same."""

    def covers(self, place: str) -> bool:
        return any(is_within(place, whole) for whole in self.places)


def is_within(place: str, whole: str) -> bool:
    """A function belongs to a file, a class or a function around it, or is the one that is named."""
    return place == whole or place.startswith((f"{whole}: ", f"{whole}."))


# ---------------------------------------------------------------------- what is there


def functions_in(path: Path, statements: Iterable[int]) -> Iterator[Function]:
    """The functions of a module that have lines of their own. A line belongs to the innermost function around it."""
    spans = sorted(_spans(ast.parse(path.read_text("utf-8")), ""), key=lambda span: span[1] - span[0])
    left = set(statements)
    for start, end, name in spans:
        lines = frozenset(line for line in left if start <= line <= end)
        left -= lines
        if lines:
            yield Function(f"{path.relative_to(ROOT)}: {name}", lines)


def _spans(tree: ast.AST, within: str) -> Iterator[tuple[int, int, str]]:
    """From the first to the last line of each body, without its docstring."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            qualified = f"{within}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield node.body[0].lineno, node.end_lineno or node.lineno, qualified
            yield from _spans(node, f"{qualified}.")
        else:
            yield from _spans(node, within)


# ---------------------------------------------------------------------- what runs reach


class Reached(NamedTuple):
    """What some code has reached."""

    functions: Sequence[Function]
    lines: Mapping[str, frozenset[int]]
    """By file."""

    def unentered(self) -> list[Function]:
        """The functions whose first line was not reached."""
        return [one for one in self.functions if min(one.lines) not in self.lines[_file_of(one.place)]]

    def corners(self) -> Mapping[str, frozenset[int]]:
        """The other lines that were not reached, by function."""
        left = {one.place: one.lines - self.lines[_file_of(one.place)] for one in self.functions}
        unentered = {one.place for one in self.unentered()}
        return {place: lines for place, lines in left.items() if lines and place not in unentered}


def _file_of(place: str) -> str:
    return place.partition(":")[0]


def survey(runs: int) -> Reached:
    """What simulated runs reach, of every workload, each in a process of its own: what runs at imports counts."""
    with TemporaryDirectory() as folder:
        with ProcessPoolExecutor(mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
            names = processes.submit(_workloads).result()
            list(processes.map(partial(_run, folder=folder, runs=runs), names))
        measured = _coverage(folder, "all")
        measured.combine([folder])
        functions: list[Function] = []
        lines: dict[str, frozenset[int]] = {}
        for room in SURVEYED:
            for path in sorted((ROOT / room).rglob("*.py")):
                _, statements, _, missing, _ = measured.analysis2(str(path))
                functions += functions_in(path, statements)
                lines[str(path.relative_to(ROOT))] = frozenset(statements) - frozenset(missing)
    return Reached(functions, lines)


def _workloads() -> list[str]:
    from workloads import WORKLOADS

    return [*WORKLOADS]


def _run(name: str, *, folder: str, runs: int) -> None:
    measured = _coverage(folder, f"all.{name}")
    measured.start()
    from workloads import WORKLOADS

    for seed in range(runs):
        WORKLOADS[name].run(seed)
    measured.stop()
    measured.save()


def _coverage(folder: str, name: str) -> Any:
    coverage: Any = import_module("coverage")
    source = [str(ROOT / room) for room in SURVEYED]
    return coverage.Coverage(data_file=f"{folder}/{name}", source=source, config_file=False)


# ---------------------------------------------------------------------- what is said of it


def reasons() -> Sequence[Reason]:
    """What `unreached.toml` says."""
    return [Reason(**reason) for reason in tomllib.loads(REASONS.read_text("utf-8"))["reason"]]


def differences(known: Sequence[Reason], functions: Iterable[str], unentered: Sequence[str]) -> list[str]:
    """Where the survey and the reasons do not agree, a line each."""
    there = [*functions]
    new = [
        f"{place} is entered by no run, and no reason is given."
        for place in unentered
        if not any(reason.covers(place) for reason in known)
    ]
    gone = [
        f"{place} is {'entered' if _exists(place, there) else 'no more'}: remove its reason."
        for reason in known
        for place in reason.places
        if not _exists(place, there if reason.is_rare else unentered)
    ]
    return new + gone


def _exists(place: str, functions: Iterable[str]) -> bool:
    return any(is_within(one, place) for one in functions)


def blind_spots(known: Sequence[Reason], reached: Reached, data_file: str) -> list[str]:
    """What neither runs nor tests reach, and what the tests named with a reason do not enter."""
    coverage: Any = import_module("coverage")
    data = coverage.CoverageData(data_file)
    data.read()
    by_line = {file: data.contexts_by_lineno(str(ROOT / file)) for file in reached.lines}
    told: list[str] = []
    for one in reached.functions:
        file = _file_of(one.place)
        contexts, left = by_line[file], one.lines - reached.lines[file]
        if any(reason.covers(one.place) and not reason.tests for reason in known):
            continue
        blind = sorted(line for line in left if not any(contexts.get(line, ())))
        if blind:
            told.append(f"{one.place} has lines that neither a run nor a test reaches: {', '.join(map(str, blind))}")
        elif left == one.lines:
            entered_by = {_file_of_test(context) for line in left for context in contexts[line]}
            named = [test for reason in known if reason.covers(one.place) for test in reason.tests]
            if not any(entered.startswith(test.removesuffix(".py")) for entered in entered_by for test in named):
                told.append(f"{one.place} is entered by no test of {', '.join(named)}, but by {sorted(entered_by)}")
    return told


def _file_of_test(context: str) -> str:
    """`tests.runtime.test_logs.test_it` is in `tests/runtime/test_logs`."""
    parts = context.split(".")
    last = next((number for number, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    return "/".join(parts[: last + 1])


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("--runs", type=int, default=RUNS, help="of each workload")
    parser.add_argument("--lines", action="store_true", help="also list what no run reaches in the others")
    parser.add_argument("--tests", metavar="FILE", help="what coverage has recorded of a test run with contexts")
    asked = parser.parse_args()
    reached, known = survey(asked.runs), reasons()
    unentered = [one.place for one in reached.unentered()]
    if asked.lines:
        for place, lines in reached.corners().items():
            print(f"{place}  {', '.join(map(str, sorted(lines)))}")
    told = differences(known, (one.place for one in reached.functions), unentered)
    if asked.tests is not None:
        told += blind_spots(known, reached, asked.tests)
    print(
        "\n".join(told) or f"Of {len(reached.functions)} functions, no run enters {len(unentered)}, each for a reason."
    )
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
