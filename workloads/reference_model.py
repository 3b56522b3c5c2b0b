"""The plain reading of a random program of acts: what must be so in the end, whatever happened on the way.

The model carries acts out one after the other, with neither messages nor time. The checks compare what a run left
behind with that: every object's log, and the ledger of side effects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from workloads.acts import OBJECTS, Act


class Failed(Exception):
    """The model's TerminalError."""


@dataclass
class Expected:
    """What must be so in the end."""

    totals: Counter[int] = field(default_factory=Counter[int])
    carried: dict[int, Counter[int]] = field(default_factory=lambda: {index: Counter() for index in range(OBJECTS)})
    """How often each act was carried out by each object; once, or never."""
    attempts: Counter[str] = field(default_factory=Counter[str])
    """How often each side effect is attempted if nothing crashes."""
    before: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    """Side effects that must have ended when this one starts for the first time."""
    order: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])
    """(object, act, act): messages of one sender, the first was sent before the second."""


class Model:
    """Carries programs out one act after the other."""

    def __init__(self) -> None:
        self.expected = Expected()
        self._endings: dict[int, str | Failed] = {}
        self._effects_of_keyed: dict[int, frozenset[str]] = {}

    def message(self, act: Act, before: frozenset[str]) -> tuple[str | Failed, frozenset[str]]:
        """An act arrives at its object; its outcome, and the side effects that have ended then."""
        expected = self.expected
        expected.carried[act.target][act.number] += 1
        flow = Flow(self, act.target, before, atomic=act.kind == "call_atomic")
        outcome = flow.run(act.parts)
        if flow.atomic and isinstance(outcome, Failed):
            expected.carried[act.target][act.number] -= 1
        else:
            expected.totals[act.target] += flow.added
            for sent, since in flow.held:
                self.sent(sent, since)
        return outcome, flow.before

    def sent(self, act: Act, before: frozenset[str]) -> None:
        """An act is sent, and nobody waits."""
        if act.kind == "send_keyed":
            self.keyed(act)
        else:
            self.message(act, before)

    def keyed(self, act: Act) -> tuple[str | Failed, frozenset[str]]:
        """An act with a key is carried out once, for whoever asked first."""
        if act.number not in self._endings:
            self._endings[act.number], self._effects_of_keyed[act.number] = self.message(act, frozenset())
        return self._endings[act.number], self._effects_of_keyed[act.number]


class Flow:
    """One invocation: its acts in order."""

    def __init__(self, model: Model, index: int | None, before: frozenset[str], *, atomic: bool = False) -> None:
        self.model = model
        self.index = index
        self.before = before
        self.atomic = atomic
        self.added = 0
        self.held: list[tuple[Act, frozenset[str]]] = []
        self.sent: list[tuple[int, int]] = []

    def run(self, acts: Iterable[Act]) -> str | Failed:
        try:
            return self.all(acts)
        except Failed as failure:
            return failure

    def all(self, acts: Iterable[Act]) -> str:
        return " ".join([self.do(act) for act in acts])

    def do(self, act: Act) -> str:
        model, expected = self.model, self.model.expected
        match act.kind:
            case "add":
                self.added += act.amount
            case "run":
                self.effect(act, act.amount % 3 + 1)
            case "run_in_a_thread":
                self.effect(act, 1)
            case "run_refused":
                self.effect(act, 1)
                raise Failed(f"refused {act.number}")
            case "run_given_up":
                self.effect(act, 2)
                told = f"The action 'run {act.number}' failed for good after 2 attempts. The last error: "
                raise Failed(f"{told}Oops: stumbled {act.number}")
            case "fail":
                raise Failed(f"failed {act.number}")
            case "sleep" | "limit" | "stumble":
                pass
            case "watch":
                return f"{act.number}(True)"
            case "call" | "call_atomic":
                self.post(act)
                return self.answered(act, model.message(act, self.before))
            case "call_keyed":
                return self.answered(act, model.keyed(act))
            case "call_service":
                flow = Flow(model, None, self.before)
                return self.answered(act, (flow.run(act.parts), flow.before))
            case "send" | "send_later":
                if act.kind == "send":
                    self.post(act)
                self.send(act)
            case "send_keyed":
                self.send(act)
            case "send_and_ask":
                self.post(act)
                return self.answered(act, model.message(act, self.before))
            case "attempt":
                try:
                    return f"{act.number}({self.all(act.parts)})"
                except Failed as failure:
                    return f"{act.number}({failure})"
            case "gather":
                return f"{act.number}({self.gather(act.parts)})"
            case _:
                raise AssertionError(act.kind, expected)
        return f"{act.number}"

    def gather(self, acts: Iterable[Act]) -> str:
        began, sent = self.before, self.sent
        results: list[str | Failed] = []
        ended = began
        for act in acts:
            self.before, self.sent = began, [*sent]
            results.append(self.run([act]))
            ended |= self.before
        self.before, self.sent = ended, sent
        for one in results:
            if isinstance(one, Failed):
                raise one
        return " ".join(str(one) for one in results)

    def answered(self, act: Act, answer: tuple[str | Failed, frozenset[str]]) -> str:
        outcome, effects = answer
        self.before |= effects
        if isinstance(outcome, Failed):
            raise Failed(*outcome.args)
        return f"{act.number}({outcome})"

    def effect(self, act: Act, attempts: int) -> None:
        name = f"run {act.number}"
        self.model.expected.attempts[name] += attempts
        self.model.expected.before[name] = self.before
        self.before |= {name}

    def post(self, act: Act) -> None:
        """Messages of one sender to one object are carried out in the order in which they were sent."""
        if not self.atomic:
            self.model.expected.order.extend(
                (act.target, first, act.number) for to, first in self.sent if to == act.target
            )
            self.sent.append((act.target, act.number))

    def send(self, act: Act) -> None:
        if self.atomic:
            self.held.append((act, self.before))
        else:
            self.model.sent(act, self.before)


# ---------------------------------------------------------------------- what is compared with it


def read_roots(roots: Iterable[Act]) -> tuple[Expected, dict[int, str]]:
    """What programs come to: all that must be so in the end, and by number the answers of the roots."""
    model = Model()
    answers: dict[int, str] = {}
    for root in roots:
        outcome, _ = model.message(root, frozenset())
        if root.kind != "send_later":
            answers[root.number] = f"failed: {outcome}" if isinstance(outcome, Failed) else outcome
    return model.expected, answers


def check_log(index: int, log: Sequence[str], expected: Expected) -> None:
    """One message at a time, each exactly once, those of one sender in the order in which they were sent."""
    carried = [line.removesuffix(" begins") for line in log[::2]]
    assert list(log) == [line for number in carried for line in (f"{number} begins", f"{number} ends")], log
    assert Counter(map(int, carried)) == +expected.carried[index], f"object {index} carried out {carried}"
    places = {int(number): place for place, number in enumerate(carried)}
    for target, first, second in expected.order:
        if target == index and first in places and second in places:
            assert places[first] < places[second], f"{second} overtook {first}"


def check_ledger(
    ledger: Sequence[str],
    expected: Expected,
    lives: int,
    failed: Mapping[str, int],
    of_owners: Sequence[str] | None = None,
) -> None:
    """Side effects run once; those that were not followed by others may have run again in each life (rule A2).

    `failed` are attempts that a fault made fail, by name. `of_owners` leaves out those of a process that had been
    superseded: until it knows, it may try again what others have followed meanwhile.
    """
    attempts = Counter(ledger)
    assert attempts.keys() == expected.attempts.keys(), attempts.keys() ^ expected.attempts.keys()
    for name, count in expected.attempts.items():
        assert count <= attempts[name] <= count * lives + failed.get(name, 0), (
            f"{name} was attempted {attempts[name]} times"
        )
    in_order = ledger if of_owners is None else of_owners
    first = {name: in_order.index(name) for name in attempts}
    last = {name: place for place, name in enumerate(in_order)}
    for name, earlier in expected.before.items():
        for one in earlier:
            assert last[one] < first[name], f"{one} ran again after {name}, which follows from it"
