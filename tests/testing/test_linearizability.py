"""Histories against plain models: what can be explained passes, what cannot is refused, and the account says why."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum
from functools import partial
from itertools import combinations, permutations
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from durably.errors import DefinitionError, TerminalError
from durably.testing.histories.linearizability import (
    HistoryCall,
    LinearizabilityUnknownError,
    NotLinearizableError,
    check_linearizable,
)
from durably.testing.histories.model_states import fingerprint
from tests.levels import level

repeatable = settings(deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


class SoldError(TerminalError):
    """Somebody was faster."""


class Seat:
    def __init__(self) -> None:
        self.holder: str | None = None

    def reserve(self, who: str) -> bool:
        if self.holder is None:
            self.holder = who
            return True
        return False

    def buy(self, who: str) -> None:
        if self.holder not in {None, who}:
            raise SoldError(f"{self.holder} has it")
        self.holder = who

    def peek(self) -> str | None:
        return self.holder


class Tally:
    def __init__(self) -> None:
        self.count = 0

    def add(self, amount: int) -> None:
        self.count += amount

    def increment(self) -> int:
        self.count += 1
        return self.count

    def double(self) -> None:
        self.count *= 2

    def get(self) -> int:
        return self.count


class Shelf:
    """A model whose state is nested, and which fails in one way."""

    def __init__(self) -> None:
        self.books: dict[str, list[int]] = {}

    def put(self, place: str, book: int) -> None:
        self.books.setdefault(place, []).append(book)

    def take(self, place: str) -> int:
        if not self.books.get(place):
            raise SoldError("nothing there")
        return self.books[place].pop(0)

    def size(self) -> int:
        return sum(map(len, self.books.values()))


MODELS: dict[Callable[[], Any], list[tuple[str, tuple[Any, ...]]]] = {
    Seat: [("reserve", ("ann",)), ("reserve", ("ben",)), ("buy", ("ann",)), ("buy", ("ben",)), ("peek", ())],
    Tally: [("add", (1,)), ("add", (2,)), ("increment", ()), ("double", ()), ("get", ())],
    Shelf: [("put", ("a", 1)), ("put", ("a", 2)), ("put", ("b", 1)), ("take", ("a",)), ("take", ("b",)), ("size", ())],
}


def call(who: str, handler: str, *args: Any, at: tuple[int, int | None], result: Any = None) -> HistoryCall:
    return HistoryCall(who=who, handler=handler, args=args, began=at[0], ended=at[1], result=result)


def answer(model: Any, handler: str, args: tuple[Any, ...]) -> tuple[Any, TerminalError | None]:
    try:
        return getattr(model, handler)(*args), None
    except TerminalError as error:
        return None, error


def executed(random: Random, model: Callable[[], Any], calls: int, width: int, lost: float) -> list[HistoryCall]:
    """A history of a real object that takes calls one at a time, each at a random moment while it runs."""
    thing = model()
    history: list[HistoryCall] = []
    running: list[tuple[HistoryCall, bool]] = []
    now = begun = 0
    while begun < calls or running:
        now += 1
        if begun < calls and len(running) < width and random.random() < 0.6:
            handler, args = random.choice(MODELS[model])
            running.append((call(f"caller {begun % width}", handler, *args, at=(now, None)), False))
            begun += 1
        elif running:
            place = random.randrange(len(running))
            one, done = running.pop(place)
            if not done and random.random() < lost / 2:
                history.append(one)  # It never took effect.
                continue
            if not done:
                result, error = answer(thing, one.handler, one.args)
                one = replace(one, result=result, error=error)
            if done or random.random() < 0.5:
                history.append(replace(one, ended=None if random.random() < lost else now))
            else:
                running.append((one, True))
    return history


def is_explained_by_brute_force(history: Sequence[HistoryCall], model: Callable[[], Any]) -> bool:
    required = [one for one in history if one.ended is not None]
    unheard = [one for one in history if one.ended is None]
    return any(
        agrees(order, model)
        for spent in range(len(unheard) + 1)
        for some in combinations(unheard, spent)
        for order in permutations([*required, *some])
    )


def agrees(order: Sequence[HistoryCall], model: Callable[[], Any]) -> bool:
    if any(late.ended is not None and late.ended < early.began for early, late in combinations(order, 2)):
        return False
    thing = model()
    for one in order:
        result, error = answer(thing, one.handler, one.args)
        if one.ended is not None and (result, repr(error)) != (one.result, repr(one.error)):
            return False
    return True


def refused(history: Sequence[HistoryCall], model: Callable[[], Any]) -> NotLinearizableError | None:
    try:
        check_linearizable(history, model)
    except NotLinearizableError as error:
        return error
    return None


def passes(history: Sequence[HistoryCall], model: Callable[[], Any]) -> bool:
    return refused(history, model) is None


@st.composite
def small_histories(draw: st.DrawFn) -> tuple[Callable[[], Any], list[HistoryCall]]:
    """Up to six calls; what they return is what some order gives, and now and then something else."""
    model = draw(st.sampled_from(list(MODELS)))
    size = draw(st.integers(1, 6))
    times = draw(st.permutations(range(2 * size)))
    lost = draw(st.sampled_from([1, 2, 4]))
    thing = model()
    history: list[HistoryCall] = []
    for place in range(size):
        began, ended = sorted(times[2 * place : 2 * place + 2])
        handler, args = draw(st.sampled_from(MODELS[model]))
        result, error = answer(thing, handler, args)
        if draw(st.integers(0, 5)) == 0:
            result, error = draw(st.sampled_from([(0, None), (2, None), (True, None), (None, SoldError("ann has it"))]))
        unheard = draw(st.integers(0, 5)) < lost
        one = call(f"c{place}", handler, *args, at=(began, None if unheard else ended), result=result)
        history.append(replace(one, error=error))
    return model, history


@repeatable
@given(st.randoms(use_true_random=False), st.sampled_from(list(MODELS)), st.integers(1, 5), st.sampled_from([0, 0.2]))
def test_what_a_real_object_did_is_accepted(random: Random, model: Callable[[], Any], width: int, lost: float) -> None:
    check_linearizable(executed(random, model, 25, width, lost), model)


@settings(repeatable, max_examples=8 * level().examples)
@given(small_histories())
def test_every_verdict_is_that_of_trying_all_orders(case: tuple[Callable[[], Any], list[HistoryCall]]) -> None:
    model, history = case
    assert passes(history, model) == is_explained_by_brute_force(history, model)


class Machine:
    """Five states, and three calls that lead from each to any; nothing about it is tidy."""

    def __init__(self, seed: int) -> None:
        random = Random(seed)
        self.table = [[(random.randrange(5), random.randrange(2)) for _ in range(3)] for _ in range(5)]
        self.state = 0

    def go(self, way: int) -> int:
        self.state, result = self.table[self.state][way]
        return result


@pytest.mark.parametrize("unheard", [0, 2, 4])
def test_every_verdict_about_untidy_machines_is_that_of_trying_all_orders(unheard: int) -> None:
    for seed in range(level().examples):
        random = Random(seed)
        times = random.sample(range(12), 12)
        history: list[HistoryCall] = []
        for place in range(6):
            began, ended = sorted(times[2 * place : 2 * place + 2])
            at = (began, None if place < unheard else ended)
            history.append(call(f"c{place}", "go", random.randrange(3), at=at, result=random.randrange(2)))
        machine = partial(Machine, seed)
        assert passes(history, machine) == is_explained_by_brute_force(history, machine), (seed, history)


@settings(repeatable, max_examples=2 * level().examples)
@given(small_histories())
def test_the_culprit_is_the_end_of_the_first_impossible_prefix(
    case: tuple[Callable[[], Any], list[HistoryCall]],
) -> None:
    model, history = case
    refusal = refused(history, model)
    if refusal is not None:
        ended = refusal.culprit.ended
        assert ended is not None
        assert agrees(refusal.explained, model)
        assert refusal.culprit not in refusal.explained
        assert all(one in refusal.explained for one in history if one.ended is not None and one.ended < ended)


DOUBLE_SALE = [
    call("ann", "reserve", "ann", at=(1, 4), result=True),
    call("cyd", "peek", at=(2, 6), result="ann"),
    call("ben", "reserve", "ben", at=(5, 8), result=True),
    call("dan", "reserve", "dan", at=(7, None)),
]


def test_a_double_sale_is_refused_and_the_account_shows_it() -> None:
    with pytest.raises(NotLinearizableError) as caught:
        check_linearizable(DOUBLE_SALE, Seat, name="Seat/2B")
    assert caught.value.culprit.who == "ben"
    assert [one.who for one in caught.value.explained] == ["ann", "cyd"]
    assert str(caught.value).splitlines() == [
        "Seat/2B is not linearizable: no order of its calls gives what their callers saw.",
        "",
        "What cannot be explained is ben: reserve('ben') -> True.",
        "Wherever it is put while it ran, the model says: -> False.",
        "",
        "Up to its end everything else can be explained, in this order:",
        "    ann: reserve('ann') -> True",
        "    cyd: peek() -> 'ann'",
        "    the model is now Seat(holder='ann')",
        "    ben: reserve('ben'): the model says -> False, seen was -> True",
        "",
        "In time, which goes to the right:",
        "    ann  |---|            reserve('ann') -> True",
        "    cyd    |-----|        peek() -> 'ann'",
        "    ben        |-----|    reserve('ben') -> True   <- cannot be explained",
        "    dan            |--->  reserve('dan') (no caller heard of its end)",
    ]


def test_a_lost_update_is_refused() -> None:
    history = [
        call("ann", "increment", at=(1, 4), result=1),
        call("ben", "increment", at=(2, 5), result=1),
    ]
    with pytest.raises(NotLinearizableError, match=r"ben: increment\(\) -> 1\.\nWherever .* says: -> 2\."):
        check_linearizable(history, Tally)


def test_a_stale_read_is_refused_and_every_answer_that_was_possible_is_told() -> None:
    history = [
        call("ann", "add", 1, at=(1, 2)),
        call("ben", "add", 2, at=(3, 8)),
        call("cyd", "get", at=(4, 6), result=0),
    ]
    with pytest.raises(NotLinearizableError) as caught:
        check_linearizable(history, Tally)
    assert "What cannot be explained is cyd: get() -> 0." in str(caught.value)
    assert {"-> 1", "-> 3"} == set(str(caught.value).split("the model says: ")[1].split(".")[0].split(", or "))
    assert passes([replace(one, result=3) if one.who == "cyd" else one for one in history], Tally)


def test_an_error_is_compared_by_its_class_and_what_it_says() -> None:
    ann = call("ann", "buy", "ann", at=(1, 2))
    ben = call("ben", "buy", "ben", at=(3, 4))
    assert passes([ann, replace(ben, error=SoldError("ann has it"))], Seat)
    assert not passes([ann, ben], Seat)
    assert not passes([ann, replace(ben, error=TerminalError("ann has it"))], Seat)
    with pytest.raises(NotLinearizableError) as caught:
        check_linearizable([ann, replace(ben, error=SoldError("cyd has it"))], Seat)
    assert "says: raised SoldError: ann has it." in str(caught.value)
    assert "raised SoldError: cyd has it" in str(caught.value)


def test_a_call_that_nobody_heard_of_may_take_effect_late_or_never() -> None:
    lost = call("ann", "reserve", "ann", at=(1, None))
    assert passes([lost, call("ben", "peek", at=(2, 3)), call("ben", "peek", at=(4, 5), result="ann")], Seat)
    assert passes([lost, call("ben", "reserve", "ben", at=(2, 3), result=True)], Seat)
    before = call("ben", "peek", at=(0, 1), result="ann")
    assert not passes([replace(lost, began=2), before], Seat)


def test_an_account_of_a_long_history_is_short() -> None:
    history = [call("ann", "increment", at=(2 * n, 2 * n + 1), result=n + 1) for n in range(500)]
    history += [call("ben", "get", at=(1000, 1001), result=7)]
    history += [call("cyd", "get", at=(1002 + 2 * n, 1003 + 2 * n), result=7) for n in range(20)]
    with pytest.raises(NotLinearizableError) as caught:
        check_linearizable(history, Tally)
    text = str(caught.value)
    assert "… 492 earlier calls, all explained; the model is then Tally(count=492)" in text
    assert "… 20 later calls, not looked at" in text
    assert "ben: get(): the model says -> 500, seen was -> 7" in text
    assert len(text.splitlines()) < 35


def test_a_search_that_is_too_long_is_neither_a_pass_nor_a_failure() -> None:
    history = executed(Random(1), Tally, 50, 4, 0)
    with pytest.raises(LinearizabilityUnknownError, match=r"Tally/x: .* gave up after 20 steps, over 50 calls, 0 of"):
        check_linearizable(history, Tally, name="Tally/x", limit=20)
    assert not issubclass(LinearizabilityUnknownError, AssertionError)


@pytest.mark.parametrize("model", [Seat, Tally])
def test_a_thousand_calls_of_four_callers_take_few_steps(model: Callable[[], Any]) -> None:
    check_linearizable(executed(Random(1), model, 1_000, 4, 0), model, limit=20_000)


def test_many_calls_that_nobody_heard_of_take_few_steps() -> None:
    unheard = [call(f"c{n}", "add", 1 + n % 3, at=(n, None)) for n in range(300)]
    reads = [call("ann", "get", at=(1000 + 2 * n, 1001 + 2 * n), result=n) for n in range(50)]
    check_linearizable([*unheard, *reads], Tally, limit=5_000)


def test_many_like_calls_at_once_take_few_steps() -> None:
    history = [call(f"c{n}", "add", 1, at=(n, 200 + n)) for n in range(100)]
    check_linearizable([*history, call("ann", "get", at=(400, 401), result=100)], Tally, limit=1_000)
    with pytest.raises(NotLinearizableError, match="says: -> 100"):
        check_linearizable([*history, call("ann", "get", at=(400, 401), result=99)], Tally, limit=1_000)


def test_the_model_and_the_history_are_left_as_they_are() -> None:
    class Keeper:
        def __init__(self) -> None:
            self.lists: list[list[int]] = []

        def keep(self, numbers: list[int]) -> int:
            numbers.append(0)
            self.lists.append(numbers)
            return sum(map(len, self.lists))

    numbers = [1]
    check_linearizable([call("ann", "keep", numbers, at=(n, n + 9), result=2 * n) for n in (1, 2)], Keeper)
    assert numbers == [1]


def test_a_model_without_a_method_is_told_which_it_has() -> None:
    with pytest.raises(DefinitionError, match=r"Seat has no method `sell`, .* It has: buy, peek, reserve\."):
        check_linearizable([call("ann", "sell", at=(1, 2))], Seat)


def test_a_model_that_is_not_plain_is_a_mistake() -> None:
    class Later:
        async def get(self) -> int:
            return 1

    class Broken:
        def get(self) -> int:
            raise KeyError("x")

    with pytest.raises(DefinitionError, match="`get` is an `async def`"):
        check_linearizable([call("ann", "get", at=(1, 2))], Later)
    with pytest.raises(KeyError) as caught:
        check_linearizable([call("ann", "get", at=(1, 2))], Broken)
    assert "The model Broken raised this in `get`" in caught.value.__notes__[0]


def test_a_call_cannot_end_before_it_began() -> None:
    with pytest.raises(ValueError, match=r"peek\(\) ended at 1, before it began at 2"):
        call("ann", "peek", at=(2, 1))


class Colour(Enum):
    RED = 1


@dataclass
class Part:
    number: int
    parts: list[Part] = field(default_factory=list["Part"])
    ignored: int = field(default=0, compare=False)


def pairs() -> Iterator[tuple[object, object, bool]]:
    shared = [1]
    ring: list[Any] = []
    ring.append(ring)
    other_ring: list[Any] = []
    other_ring.append(other_ring)
    yield {"a": 1, "b": [2]}, {"b": [2], "a": 1}, True
    yield OrderedDict(a=1, b=2), OrderedDict(b=2, a=1), False
    yield {1, 2, 30}, {30, 2, 1}, True
    yield [1], (1,), False
    yield [True], [1], False
    yield [shared, shared], [[1], [1]], False
    yield [shared, (other := [1]), shared], [shared, other, other], False
    yield ring, other_ring, True
    yield Part(1, [Part(2)]), Part(1, [Part(2)]), True
    yield Part(1, [Part(2)]), Part(1, [Part(3)]), False
    yield Part(1, ignored=1), Part(1, ignored=2), False
    yield deque([1, 2]), deque([1, 2]), True
    yield deque([1, 2]), deque([1, 2], maxlen=2), False
    yield Colour.RED, 1, False
    yield Decimal("1.0"), Decimal("1.0"), True
    yield Decimal("1.0"), Decimal("1.00"), False
    yield {"seats": {Colour.RED: {1}}}, {"seats": {Colour.RED: {1}}}, True
    yield SoldError("a"), SoldError("b"), False


@pytest.mark.parametrize(("one", "other", "same"), list(pairs()))
def test_states_are_the_same_if_they_are_built_of_the_same_parts(one: object, other: object, same: bool) -> None:
    assert (fingerprint(one) == fingerprint(other)) is same
    if same:
        assert hash(fingerprint(one)) == hash(fingerprint(other))


def test_a_model_that_has_eq_and_hash_decides_which_of_its_states_are_the_same() -> None:
    class Forgetful:
        """Its count of calls tells nobody anything."""

        def __init__(self) -> None:
            self.calls: list[str] = []

        def note(self, what: str) -> None:
            self.calls.append(what)

        def fail(self) -> bool:
            return False

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Forgetful)

        def __hash__(self) -> int:
            return 0

    history = [call(f"c{n}", "note", f"what {n}", at=(n, 100 + n)) for n in range(8)]
    history.append(call("ann", "fail", at=(300, 301), result=True))
    with pytest.raises(NotLinearizableError):
        check_linearizable(history, Forgetful, limit=2_000)


def test_a_refusal_of_a_long_history_takes_few_steps() -> None:
    history = executed(Random(3), Seat, 1_000, 4, 0.05)
    assert sum(one.ended is None for one in history) > 20
    history.append(call("ann", "peek", at=(10_000, 10_001), result="cyd"))
    with pytest.raises(NotLinearizableError, match=r"ann: peek\(\) -> 'cyd'"):
        check_linearizable(history, Seat, limit=200_000)
