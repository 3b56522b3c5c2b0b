"""Run as a program: which functions of the runtime and of the stores have lines that no simulated run reaches.

python -m tests.simulation.survey [--runs 60]

`unreached.toml` beside it says why of each: in simulation it cannot happen, or a test elsewhere makes it happen. A test
with `--full` compares the two, so neither a new blind spot nor a reason that is none any more goes unseen.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SURVEYED = ("durably/runtime", "durably/storage")
REASONS = Path(__file__).with_name("unreached.toml")
RUNS = 60
"""Of each workload."""


def unreached(runs: int) -> Mapping[str, list[int]]:
    """The lines that no run reaches, by function: `durably/runtime/a.py: Class.method`.

    Raises:
        RuntimeError: durably was imported before, so what runs at its import is not seen.
    """
    if "durably" in sys.modules:
        raise RuntimeError("The survey has to begin before durably is imported: run it in a process of its own.")
    coverage: Any = import_module("coverage")
    measured = coverage.Coverage(data_file=None, source=[str(ROOT / room) for room in SURVEYED], config_file=False)
    measured.start()
    _campaign(runs)
    measured.stop()
    found: dict[str, list[int]] = {}
    for room in SURVEYED:
        for path in sorted((ROOT / room).rglob("*.py")):
            _, _, _, missing, _ = measured.analysis2(str(path))
            for line in missing:
                name = _function_of(path, line)
                found.setdefault(f"{path.relative_to(ROOT)}: {name}", []).append(line)
    return found


def _campaign(runs: int) -> None:
    from workloads import WORKLOADS

    for workload in WORKLOADS.values():
        for seed in range(runs):
            workload.run(seed)


def _function_of(path: Path, line: int) -> str:
    """The innermost function or class around a line."""
    name = "the module"
    for start, end, qualified in _functions(ast.parse(path.read_text("utf-8")), ""):
        if start <= line <= end:
            name = qualified
    return name


def _functions(tree: ast.AST, within: str) -> Iterator[tuple[int, int, str]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            qualified = f"{within}{node.name}"
            if not isinstance(node, ast.ClassDef):
                yield node.lineno, node.end_lineno or node.lineno, qualified
            yield from _functions(node, f"{qualified}.")
        else:
            yield from _functions(node, within)


def reasons() -> Mapping[str, str]:
    """Why no run gets there: by function, or by file for all of it."""
    return {place: reason for reason, places in tomllib.loads(REASONS.read_text("utf-8")).items() for place in places}


def differences(found: Mapping[str, list[int]]) -> list[str]:
    """Where the survey and the reasons do not agree, a line each."""
    known = reasons()
    files = {place.partition(":")[0] for place in found}
    new = [
        f"{place} has lines that no run reaches, and no reason is given: {', '.join(map(str, lines))}"
        for place, lines in found.items()
        if place not in known and place.partition(":")[0] not in known
    ]
    gone = [
        f"{place} is reached by now, or is no more: remove it"
        for place in known
        if place not in found and place not in files
    ]
    return new + gone


def main() -> int:
    parser = ArgumentParser()
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--all", action="store_true", help="also tell what a reason is given for")
    asked = parser.parse_args()
    found = unreached(asked.runs)
    if asked.all:
        for place, lines in found.items():
            print(f"{place}  {', '.join(map(str, lines))}")
    told = differences(found)
    print("\n".join(told) or f"Of {len(found)} functions with lines that no run reaches, each has a reason.")
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
