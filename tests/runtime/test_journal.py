"""Steps as bytes, and the text that says how a replay differs from its journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from durably import NonDeterminismError
from durably.actors.protocol.commands import Command, Run, Send, Sleep
from durably.runtime.execution.replay import explain, replay
from durably.runtime.execution.step import (
    AttemptFailure,
    Delivery,
    Outcome,
    Step,
    decode_step,
    encode_step,
)

MESSAGE = Send("Counter", "a", "add", b'{"by":1}', {}, None, None, None)


def where(number: int) -> str:
    return f"cart.py:{number}"


def played(*steps: Step | AttemptFailure) -> Callable[..., Step | AttemptFailure]:
    """An `advance` that gives these steps, whatever it is given."""
    left = list(steps)

    def advance(
        at: int, deliveries: Sequence[Delivery], attempt: int, reads: Mapping[str, bytes | None] | None, /
    ) -> Step | AttemptFailure:
        return left.pop(0)

    return advance


@pytest.mark.parametrize(
    "step",
    [
        Step(1),
        Step(2, deliveries=(0, 3), commands=(MESSAGE, Sleep(5), Run("charge"))),
        Step(3, changes={"a": b"1", "b": None}, abandoned=(1,), reads={"c": b'"x"', "d": None}),
        Step(4, outcome=Outcome(True, b"{}"), attempt=7),
    ],
)
def test_a_step_survives_its_encoding(step: Step) -> None:
    assert decode_step(encode_step(step)) == step


def test_a_replay_that_does_the_same_says_nothing() -> None:
    steps = [Step(1, commands=(Sleep(5),)), Step(5, deliveries=(0,), outcome=Outcome(False, b"1"))]
    replay(played(*steps), steps, {0: Delivery(0, False, b"null")}, where)


def test_a_replay_is_given_what_was_taken_in() -> None:
    given: list[tuple[int, list[int], int]] = []
    steps = [Step(1, commands=(Sleep(5), Sleep(6)), attempt=3), Step(6, deliveries=(1, 0))]

    def advance(
        at: int, deliveries: Sequence[Delivery], attempt: int, reads: Mapping[str, bytes | None] | None, /
    ) -> Step:
        given.append((at, [delivery.command for delivery in deliveries], attempt))
        return steps[len(given) - 1]

    answers = {number: Delivery(number, False, b"null") for number in (0, 1)}
    replay(advance, steps, answers, where)
    assert given == [(1, [], 3), (6, [1, 0], 1)]


def test_the_text_shows_both_sides_and_marks_what_differs() -> None:
    recorded = Step(1, commands=(MESSAGE, Run("charge")))
    attempted = Step(1, commands=(MESSAGE, Run("refund"), Sleep(5)))
    lines = explain(4, 10, recorded, attempted, where).splitlines()
    assert lines[0] == "Step 4 of the journal and the handler's code differ, first at cart.py:11."
    assert lines[1].split() == ["recorded", "attempted"]
    marked = [line for line in lines if line.startswith("  >")]
    assert "charge" in marked[0]
    assert "refund" in marked[0]
    assert len(marked) == 3
    assert any("Counter" in line and not line.startswith("  >") for line in lines)


@pytest.mark.parametrize(
    ("recorded", "attempted", "words"),
    [
        (Step(1, changes={"count": b"1"}), Step(1, changes={"count": b"2"}), ["count = 1", "count = 2"]),
        (Step(1, changes={"count": b"1"}), Step(1, changes={"count": None}), ["count = 1", "count = (cleared)"]),
        (Step(1, abandoned=(3,)), Step(1), ["gave up command 3", "goes on"]),
        (Step(1), Step(1, outcome=Outcome(False, b'"done"')), ["goes on", 'ends: "done"']),
        (Step(1, reads={"a": b"1"}), Step(1, reads={"b": b"1"}), ["read a", "read b"]),
        (
            Step(1, commands=(Sleep(5),)),
            AttemptFailure(ValueError("a bug")),
            ["Sleep(due=5)", "raised ValueError: a bug"],
        ),
    ],
)
def test_every_kind_of_difference_is_told(recorded: Step, attempted: Step | AttemptFailure, words: list[str]) -> None:
    text = explain(0, 0, recorded, attempted, where)
    for word in words:
        assert word in text
    with pytest.raises(NonDeterminismError, match="Likely causes"):
        replay(played(attempted), [recorded], {}, where)


def test_the_difference_is_found_in_the_step_in_which_it_is() -> None:
    commands: list[tuple[Command, ...]] = [(Sleep(1), Sleep(2)), (Sleep(3),), (Sleep(4),)]
    steps = [Step(number, commands=issued) for number, issued in enumerate(commands)]
    changed = Step(2, commands=(Sleep(9),))
    with pytest.raises(NonDeterminismError, match=r"Step 2 .*cart\.py:3"):
        replay(played(*steps[:2], changed), steps, {}, where)
