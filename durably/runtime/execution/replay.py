"""`replay`: the comparison that makes replay a proof.

It feeds the first half of each recorded step (`at`, `deliveries`, `reads`) to the handler's code again and compares the
second half (`commands`, `changes`, `abandoned`, `outcome`) with what the code does now (rule S3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from msgspec import structs

from durably.actors.protocol.entries import in_words
from durably.actors.values.slices import Slices
from durably.errors import NonDeterminismError
from durably.runtime.execution.step import AttemptFailure, Delivery, Step


class Advance(Protocol):
    """`Execution.advance`."""

    def __call__(
        self, at: int, deliveries: Sequence[Delivery], attempt: int, reads: Mapping[str, bytes | None] | None, /
    ) -> Step | AttemptFailure: ...


def replay_in_slices(
    advance: Advance,
    steps: Sequence[Step],
    deliveries: Mapping[int, Delivery],
    where: Callable[[int], str],
    prepare: Callable[[Sequence[Delivery]], Slices[None]],
    at_once: int,
) -> Slices[None]:
    """Run a fresh execution along its journal, at most `at_once` steps in a slice.

    `prepare` is given the answers of each step before they are delivered.

    `where(n)` tells the source line that issued command number n in this replay.

    Raises:
        NonDeterminismError: the code asked for something else than the journal says.
    """
    first_command = 0
    for index, recorded in enumerate(steps):
        if index and index % at_once == 0:
            yield
        taken_in = [deliveries[command] for command in recorded.deliveries]
        yield from prepare(taken_in)
        _compare(advance, index, first_command, recorded, taken_in, where)
        first_command += len(recorded.commands)


def replay(
    advance: Advance, steps: Sequence[Step], deliveries: Mapping[int, Delivery], where: Callable[[int], str]
) -> None:
    """Run a fresh execution along its journal.

    `where(n)` tells the source line that issued command number n in this replay.

    Raises:
        NonDeterminismError: the code asked for something else than the journal says.
    """
    first_command = 0
    for index, recorded in enumerate(steps):
        taken_in = [deliveries[command] for command in recorded.deliveries]
        _compare(advance, index, first_command, recorded, taken_in, where)
        first_command += len(recorded.commands)


def _compare(
    advance: Advance,
    index: int,
    first_command: int,
    recorded: Step,
    taken_in: Sequence[Delivery],
    where: Callable[[int], str],
) -> None:
    attempted = advance(recorded.at, taken_in, recorded.attempt, recorded.reads)
    if isinstance(attempted, AttemptFailure) and isinstance(attempted.error, MemoryError):  # Rule E3
        raise attempted.error
    if recorded.patches is not None and not isinstance(attempted, AttemptFailure):
        # Rule W4: code that no longer asks, since no older journal is left, follows the journal too.
        attempted = structs.replace(attempted, patches=recorded.patches)
    if attempted != recorded:
        error = NonDeterminismError(explain(index, first_command, recorded, attempted, where))
        error.step, error.recorded, error.attempted = index, _lines(recorded), _attempted_lines(attempted)
        raise error


def explain(
    index: int, first_command: int, recorded: Step, attempted: Step | AttemptFailure, where: Callable[[int], str]
) -> str:
    """The text of a mismatch: what was recorded against what was attempted, side by side."""
    if isinstance(attempted, AttemptFailure):
        error = attempted.error
        if isinstance(error, NonDeterminismError):
            return str(error)
        rows = _side_by_side(_lines(recorded), _attempted_lines(attempted))
        line = ""
    else:
        rows = _side_by_side(_lines(recorded), _lines(attempted))
        line = _first_difference(first_command, recorded, attempted, where)
    return (
        f"Step {index} of the journal and the handler's code differ{line}.\n{rows}\n"
        "Likely causes: the code changed while this invocation was under way; it iterates over a set of strings; it "
        "reads a clock, a random number, the environment or global state without `ctx`. Bring the old code back or "
        "start it anew."
    )


def _attempted_lines(attempted: Step | AttemptFailure) -> list[str]:
    if isinstance(attempted, AttemptFailure):
        return [f"raised {type(attempted.error).__name__}: {attempted.error}"]
    return _lines(attempted)


def _first_difference(first_command: int, recorded: Step, attempted: Step, where: Callable[[int], str]) -> str:
    for offset, command in enumerate(attempted.commands):
        if offset >= len(recorded.commands) or recorded.commands[offset] != command:
            return f", first at {where(first_command + offset)}"
    return ""


def _lines(step: Step) -> list[str]:
    lines = [repr(command) for command in step.commands]
    lines += [
        f"{in_words(name)} = {'(cleared)' if value is None else value.decode(errors='replace')}"
        for name, value in (step.changes or {}).items()
    ]
    lines += [f"gave up command {number}" for number in step.abandoned]
    lines += [f"cancelled call {number}" for number in step.cancelled]
    lines += [f"read {name}" for name in step.reads or ()]
    lines.append(_end_of(step))
    return lines


def _end_of(step: Step) -> str:
    if step.continues_with is not None:
        return f"continues as new with: {step.continues_with.decode(errors='replace')}"
    return "goes on" if step.outcome is None else f"ends: {step.outcome.value.decode(errors='replace')}"


def _side_by_side(recorded: list[str], attempted: list[str]) -> str:
    width = max((len(line) for line in recorded), default=0)
    width = max(width, len("recorded"))
    rows = [f"    {'recorded':<{width}}   attempted"]
    for position in range(max(len(recorded), len(attempted))):
        left = recorded[position] if position < len(recorded) else "-"
        right = attempted[position] if position < len(attempted) else "-"
        rows.append(f"  {' ' if left == right else '>'} {left:<{width}}   {right}")
    return "\n".join(rows)
