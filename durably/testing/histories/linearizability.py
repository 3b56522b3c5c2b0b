"""`check_linearizable`: whether what the callers of one object saw can be explained by a plain Python model of it.

A history is linearizable if all its calls can be put into one order in which each takes effect at one moment between
its beginning and its end, and in which the model returns what the callers saw. Objects are independent of each other,
so each is checked for itself. A verdict is exact; where the search is too long it says so and never passes.

The search is that of Wing and Gong ("Testing and verifying concurrent objects", 1993) with Lowe's memory of
configurations ("Testing for linearizability", 2017), over a linked list of the calls that are left, as in Porcupine
(github.com/anishathalye/porcupine). Four rules keep calls at the same time affordable, and above all open ones, whose
end no caller heard of. None of them loses an explanation:

- Of calls that ask and were answered the same, the one that has to be first goes first. If a later one went first,
  the two could change places.
- Who got to the same state with the same answered calls, but with more of the open ones, is not followed: every way
  on from there is a way on for the one that still has them to spend.
- An open call is put right before one that needs it: if the two could change places, or the first be left out, then
  that order is tried instead.
- Orders with few open calls in a row are tried before those with many.

Tested against every permutation in tests/testing/test_linearizability.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from durably.testing.histories.calls import HistoryCall as HistoryCall
from durably.testing.histories.calls import answer_text, cut, draw
from durably.testing.histories.model_states import Answer, ModelStates, Operation, fingerprint

LIMIT_STEPS = 300_000
"""How many steps are tried before the search gives up: some seconds, and some hundred megabytes at most."""

_OPEN_IN_A_ROW = (1, 2, 4, sys.maxsize)
"""How many open calls in a row are tried, and then how many. The last one is all."""

_MORE_ANSWERS = 3
_SHOWN_BEFORE = 8
_SHOWN_RUNNING = 6
_NEVER = float("inf")


class NotLinearizableError(AssertionError):
    """No order of the calls explains what their callers saw.

    `name` is the object; `culprit` is the call at whose end the history became impossible; `explained` is an order of
    the calls up to then that the model agrees with.
    """

    def __init__(self, message: str, *, name: str, culprit: HistoryCall, explained: Sequence[HistoryCall]) -> None:
        super().__init__(message)
        self.name = name
        self.culprit = culprit
        self.explained = tuple(explained)


class LinearizabilityUnknownError(Exception):
    """The search gave up before it knew whether the history can be explained: neither a pass nor a failure."""


def check_linearizable(
    calls: Sequence[HistoryCall],
    model: Callable[[], Any],
    *,
    name: str = "",
    limit: int = LIMIT_STEPS,
) -> None:
    """Pass if the calls of one object can be explained by a model.

        class SeatModel:
            def __init__(self) -> None:
                self.holder: str | None = None

            def reserve(self, who: str) -> bool:
                if self.holder is None:
                    self.holder = who
                return self.holder == who

        check_linearizable(calls, SeatModel, name="Seat/2B")

    `model` makes a plain object in its first state. Its methods have the handlers' names, take what they take, and
    return what they return or raise the `TerminalError` they raise; they are deterministic, and all their state is in
    the object's attributes. Results are compared with `==`, errors by the name of their class and their message.
    `durably.testing.histories.model_states` says which states count as the same; a model that is slow to copy may have
    a `__deepcopy__`. `calls` may be in any order. `name` is for the account; `limit` is how many steps may be
    tried (a step puts one call next into an order).

    Raises:
        NotLinearizableError: there is no explanation. The account shows where it becomes impossible.
        LinearizabilityUnknownError: the limit was reached first.
        DefinitionError: the model has no method for a handler, or an `async` one.
    """
    __tracebackhide__ = True  # pytest shows the test's own line and the account.
    history = _History(calls, model)
    try:
        stuck = _search(history.entries, history.states, limit)
    except _LimitReached:
        raise LinearizabilityUnknownError(_unknown_text(name, calls, limit)) from None
    if not stuck.succeeded:
        raise _refusal(history, stuck, name, limit)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A call as the search sees it. One that is open (not required) never has to be placed."""

    call: int
    began: int
    ended: float
    operation: int
    likeness: Hashable
    """Entries with the same one ask the same and accept the same answers."""
    expected: Answer | None
    """The answer that was seen; None accepts any answer but those in `refused`."""
    refused: tuple[Answer, ...] = ()

    @property
    def required(self) -> bool:
        return self.ended != _NEVER

    def accepts(self, answer: Answer) -> bool:
        if self.expected is not None:
            return answer.is_like(self.expected)
        return not any(answer.is_like(refused) for refused in self.refused)


class _History:
    """The calls of one object as entries, with what they ask of the model."""

    __slots__ = ("calls", "entries", "states")

    def __init__(self, calls: Sequence[HistoryCall], model: Callable[[], Any]) -> None:
        self.calls = calls
        numbers: dict[Hashable, int] = {}
        operations: list[Operation] = []
        self.entries: list[_Entry] = []
        for place, call in enumerate(calls):
            key = fingerprint((call.handler, call.args, dict(call.kwargs)))
            number = numbers.setdefault(key, len(operations))
            if number == len(operations):
                operations.append(Operation(call.handler, call.args, call.kwargs))
            seen = None if call.ended is None else Answer(call.result, call.error)
            likeness = (number, None if seen is None else (seen.error is None, seen.fingerprint()))
            ended = _NEVER if call.ended is None else call.ended
            self.entries.append(_Entry(place, call.began, ended, number, likeness, seen))
        self.states = ModelStates(model, operations)

    def up_to(self, culprit: _Entry, refused: Sequence[Answer]) -> list[_Entry]:
        """What had begun when the culprit ended, which may answer all but the refused; who ended later is open."""
        entries: list[_Entry] = []
        for entry in self.entries:
            if entry.call == culprit.call:
                likeness = (entry.likeness, "culprit")
                entries.append(replace(entry, likeness=likeness, expected=None, refused=tuple(refused)))
            elif entry.ended < culprit.ended:
                entries.append(entry)
            elif entry.began <= culprit.ended:
                entries.append(replace(entry, ended=_NEVER))
        return entries


@dataclass(frozen=True, slots=True)
class _Step:
    """An entry put next into the order: what the model answered, and the state it was in then."""

    entry: _Entry
    position: int
    answer: Answer
    state: int
    run: _Run | None
    """None unless the entry is open."""


@dataclass(frozen=True, slots=True)
class _Choice:
    """What may come next in the order; `first_to_end` is the call that ended first of those that are left."""

    first_to_end: _Entry
    steps: Iterator[_Step]


class _LimitReached(Exception):
    """The search ends here, without a verdict. Never leaves this module."""


@dataclass(frozen=True, slots=True)
class _Run:
    """The open calls that an order ends with: the last one, the state before it, how many in a row."""

    last: _Entry
    before: int
    length: int


def _search(entries: Sequence[_Entry], states: ModelStates, limit: int) -> _Search:
    """A search that either succeeded, or has tried everything.

    Raises:
        _LimitReached: after as many steps as the limit.
    """
    for in_a_row in _OPEN_IN_A_ROW:
        search = _Search(entries, states, in_a_row, limit)
        search.run()
        limit = search.steps_left
        if search.succeeded or not search.cut_short:
            return search
    raise AssertionError("the last search is never cut short")


class _Search:
    """One depth-first search for an order of all required entries."""

    def __init__(self, entries: Sequence[_Entry], states: ModelStates, in_a_row: int, limit: int) -> None:
        self._required = sorted((entry for entry in entries if entry.required), key=_by_beginning)
        self._open = sorted((entry for entry in entries if not entry.required), key=_by_beginning)
        self._states = states
        self._in_a_row = in_a_row
        self.steps_left = limit
        # The required entries that are left are a linked list by their beginning; its head is after the last one.
        size = len(self._required) + 1
        self._after = [(position + 1) % size for position in range(size)]
        self._before = [(position - 1) % size for position in range(size)]
        self._done = 0
        self._spent = 0
        self._visited: dict[Hashable, list[int]] = {}
        self.succeeded = not self._required
        self.cut_short = False
        """Whether an order was not tried because it has too many open calls in a row."""
        self.order: list[_Step] = []
        self.stuck_at: _Entry | None = None
        """Of all orders that were tried, none could place every call that ended up to the end of this one."""
        self.stuck_after: list[_Step] = []
        """An order with every call that ended before `stuck_at` did."""

    def run(self) -> None:
        """Try everything until there is an order of all required entries; it is then in `order`.

        Raises:
            _LimitReached: after as many steps as the limit.
        """
        if self.succeeded:
            return
        choices = [self._choice(0, None)]
        while choices:
            step = next(choices[-1].steps, None)
            if step is None:
                self._note_where_it_is_stuck(choices.pop().first_to_end)
                if self.order:
                    self._take_back()
                continue
            self._place(step)
            if self._is_complete():
                self.succeeded = True
                return
            if self._is_new(step):
                choices.append(self._choice(step.state, step.run))
            else:
                self._take_back()

    def _choice(self, state: int, run: _Run | None) -> _Choice:
        left: list[tuple[float, int]] = []
        first_end = _NEVER
        position = self._after[-1]
        # Who began after another ended comes after it, and so does everyone who began later still.
        while position < len(self._required) and self._required[position].began <= first_end:
            ended = self._required[position].ended
            first_end = min(first_end, ended)
            left.append((ended, position))
            position = self._after[position]
        left.sort()
        return _Choice(self._required[left[0][1]], self._steps(state, run, left))

    def _steps(self, state: int, run: _Run | None, left: Sequence[tuple[float, int]]) -> Iterator[_Step]:
        tried: set[Hashable] = set()
        for position, entry in self._candidates(left):
            if entry.likeness in tried:
                continue
            tried.add(entry.likeness)
            if self.steps_left <= 0:
                raise _LimitReached
            self.steps_left -= 1
            answer, then = self._states.answer(state, entry.operation)
            if not entry.accepts(answer) or (run is not None and self._is_needless(run, entry, then)):
                continue
            if entry.required:
                yield _Step(entry, position, answer, then, None)
            elif then != state:
                length = 1 if run is None else run.length + 1
                if length <= self._in_a_row:
                    yield _Step(entry, position, answer, then, _Run(entry, state, length))
                else:
                    self.cut_short = True

    def _is_needless(self, run: _Run, entry: _Entry, then: int) -> bool:
        """Whether the last open call could as well be put after this entry, or be left out."""
        answer, without = self._states.answer(run.before, entry.operation)
        if not entry.accepts(answer):
            return False
        if without == then:
            return True
        # Two open calls could change places for ever: of their two orders, one is enough.
        if not entry.required and entry.operation >= run.last.operation:
            return False
        answer, afterwards = self._states.answer(without, run.last.operation)
        return run.last.accepts(answer) and afterwards == then

    def _candidates(self, left: Sequence[tuple[float, int]]) -> Iterator[tuple[int, _Entry]]:
        for _, position in left:
            yield position, self._required[position]
        first_end = left[0][0]
        for position, entry in enumerate(self._open):
            if entry.began > first_end:
                break
            if not self._spent >> position & 1:
                yield position, entry

    def _place(self, step: _Step) -> None:
        self.order.append(step)
        if step.entry.required:
            self._done |= 1 << step.position
            before, after = self._before[step.position], self._after[step.position]
            self._after[before], self._before[after] = after, before
        else:
            self._spent |= 1 << step.position

    def _take_back(self) -> None:
        step = self.order.pop()
        if step.entry.required:
            self._done ^= 1 << step.position
            # The entry still knows its neighbours, and they are neighbours now: last out, first in.
            self._after[self._before[step.position]] = self._before[self._after[step.position]] = step.position
        else:
            self._spent ^= 1 << step.position

    def _is_complete(self) -> bool:
        return self._after[-1] == len(self._required)

    def _is_new(self, step: _Step) -> bool:
        """Whether the search was never here before with as many open calls to spend, or more."""
        # All before the first that is left are done: the number of them says it shorter than their bits.
        first_left = self._after[-1]
        run = step.run and (step.run.last.likeness, step.run.before, step.run.length)
        visited = self._visited.setdefault((first_left, self._done >> first_left, step.state, run), [])
        if any(spent & self._spent == spent for spent in visited):
            return False
        visited.append(self._spent)
        return True

    def _note_where_it_is_stuck(self, first_to_end: _Entry) -> None:
        if self.stuck_at is None or first_to_end.ended > self.stuck_at.ended:
            self.stuck_at = first_to_end
            self.stuck_after = self.order.copy()


def _by_beginning(entry: _Entry) -> tuple[int, float]:
    return entry.began, entry.ended


def _possible_answers(history: _History, search: _Search, limit: int) -> tuple[list[Answer], bool]:
    """What the model could have answered where the search is stuck, and whether this is all of it."""
    culprit = search.stuck_at
    assert culprit is not None
    state = search.stuck_after[-1].state if search.stuck_after else 0
    answers = [history.states.answer(state, culprit.operation)[0]]
    while len(answers) <= _MORE_ANSWERS:
        try:
            another = _search(history.up_to(culprit, answers), history.states, limit)
        except _LimitReached:
            return answers, False
        if not another.succeeded:
            return answers, True
        answers += [step.answer for step in another.order if step.entry.call == culprit.call]
    return answers, False


def _refusal(history: _History, search: _Search, name: str, limit: int) -> NotLinearizableError:
    entry = search.stuck_at
    assert entry is not None
    culprit = history.calls[entry.call]
    answers, complete = _possible_answers(history, search, limit)
    earlier, steps = search.stuck_after[:-_SHOWN_BEFORE], search.stuck_after[-_SHOWN_BEFORE:]
    placed = {step.entry.call for step in search.stuck_after}
    running = _running_beside(history, entry, placed)
    text = [
        f"{name or 'This object'} is not linearizable: no order of its calls gives what their callers saw.",
        "",
        f"What cannot be explained is {_by(culprit)}{culprit}.",
        f"Wherever it is put while it ran, the model says: {_answers_text(answers, complete)}.",
        "",
        "Up to its end everything else can be explained, in this order:",
    ]
    if earlier:
        state = history.states.describe(earlier[-1].state)
        text.append(f"    … {_count(len(earlier), 'earlier call')}, all explained; the model is then {cut(state)}")
    state = history.states.describe(search.stuck_after[-1].state if search.stuck_after else 0)
    text += [f"    {line}" for line in _order_lines(history, steps)]
    text.append(f"    the model is now {cut(state)}")
    text.append(f"    {_by(culprit)}{culprit.asked}: the model says {_text(answers[0])}, seen was {culprit.answered}")
    shown = [*(history.calls[step.entry.call] for step in steps), culprit, *running[:_SHOWN_RUNNING]]
    text += ["", "In time, which goes to the right:"]
    if earlier:
        text.append(f"    … {_count(len(earlier), 'earlier call')}, all explained")
    notes = {len(steps): "   <- cannot be explained"}
    text += [f"    {line}" for line in draw(shown, until=int(entry.ended), notes=notes)]
    if len(running) > _SHOWN_RUNNING:
        text.append(f"    … {_count(len(running) - _SHOWN_RUNNING, 'more call')} that may have been running")
    later = sum(call.began > entry.ended for call in history.calls)
    if later:
        text.append(f"    … {_count(later, 'later call')}, not looked at")
    explained = [history.calls[step.entry.call] for step in search.stuck_after]
    return NotLinearizableError("\n".join(text), name=name, culprit=culprit, explained=explained)


def _running_beside(history: _History, culprit: _Entry, placed: set[int]) -> list[HistoryCall]:
    """The calls that may have been running with the culprit and are not in the order, the newest first."""
    beside = [
        history.calls[entry.call]
        for entry in history.entries
        if entry.call not in placed and entry.call != culprit.call and entry.began <= culprit.ended
    ]
    return sorted(beside, key=lambda call: call.began, reverse=True)


def _order_lines(history: _History, steps: Sequence[_Step]) -> list[str]:
    lines: list[str] = []
    for step in steps:
        call = history.calls[step.entry.call]
        note = "" if call.ended is not None else " (no caller heard of its end)"
        lines.append(f"{_by(call)}{call.asked} {_text(step.answer)}{note}")
    return lines


def _answers_text(answers: Sequence[Answer], complete: bool) -> str:
    texts = ", or ".join(_text(answer) for answer in answers)
    return texts if complete else f"{texts}, and perhaps something else, but not this"


def _text(answer: Answer) -> str:
    return answer_text(answer.result, answer.error)


def _by(call: HistoryCall) -> str:
    return f"{call.who}: " if call.who else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _unknown_text(name: str, calls: Sequence[HistoryCall], limit: int) -> str:
    unheard = sum(call.ended is None for call in calls)
    return (
        f"{name or 'This object'}: it is not known whether this history is linearizable. The search gave up after "
        f"{_count(limit, 'step')}, over {_count(len(calls), 'call')}, {unheard} of them without a known end. "
        "Check a shorter run, fewer callers at the same time or fewer calls whose end no caller heard of; let the "
        "calls return more of what they saw; see that the model has no state that it does not need; or raise `limit`."
    )
