"""A query means the same wherever it is answered: by a table of SQLite, by a scan, and as Python reads its lambda."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from durably import Context, InvalidArgumentError, MemoryStore, Runtime, Service, SqliteStore, handler
from durably.actors.protocol.commands import ReadEvents
from durably.errors import InvalidKeyError
from durably.models import Machine, Model, TooManyObjectsError, TransitionContext, initial, one_of, transition
from durably.runtime.registry.questions import answer
from durably.testing import Harness


class Thing(Model, prefix="thing", index=("size", "name", "price", "made")):
    size: int
    name: str | None = None
    price: Decimal | None = None
    made: datetime | None = None
    day: date | None = None
    ready: bool = False
    tags: tuple[str, ...] = ()
    cost: Decimal | None = None
    sold: datetime | None = None


class New(Thing):
    pass


class Old(Thing):
    since: int


class Things(Machine[Thing]):
    @initial
    async def make(
        self,
        ctx: TransitionContext,
        size: int,
        name: str | None = None,
        price: Decimal | None = None,
        made: datetime | None = None,
        day: date | None = None,
        ready: bool = False,
        tags: tuple[str, ...] = (),
        cost: Decimal | None = None,
        sold: datetime | None = None,
    ) -> New:
        return New(
            size=size, name=name, price=price, made=made, day=day, ready=ready, tags=tags, cost=cost, sold=sold
        )  # fmt: skip

    @transition
    async def age(self, ctx: TransitionContext, thing: New, since: int) -> Old:
        return Old.of(thing, since=since)


class Counting(Service):
    @handler
    async def sizes(self, ctx: Context) -> list[int]:
        return [one.size for one in await ctx.machine(Things).find_all(Thing, order_by=lambda thing: thing.size)]


SIZES = st.integers(-3, 3) | st.sampled_from(
    [2**53, 2**53 + 1, 2**62, 2**62 + 1, 2**63 - 1, 2**63, 2**63 + 1, -(2**63), -(2**63) - 1]
)
NAMES = st.none() | st.sampled_from(["", "a", "A", "ä", "\U0001f600", "10", "9", "a'b\"c"])
PLAIN_PRICES = st.sampled_from(
    [Decimal(text) for text in ("1.0", "1.00", "0.1", "0.10", "1e3", "1000", "-2", "0.3", "1E-18", "-0", "99.99")]
)
"""Few digits: columns tell them exactly."""
ODD_PRICES = st.sampled_from(
    [
        Decimal(text)
        for text in (
            "0.30000000000000001", "0.30000000000000002", "0.3333333333333333333333333333", "1234567890123456.7",
            "1234567890123456.8", "1E+400", "1E+401", "-1E-400", "Infinity",
        )
    ]
)  # fmt: skip
PRICES = st.none() | PLAIN_PRICES | ODD_PRICES
START = datetime(2026, 1, 1, tzinfo=UTC)


def moment(microseconds: int, hours: float) -> datetime:
    return (START + timedelta(microseconds=microseconds)).astimezone(timezone(timedelta(hours=hours)))


MOMENTS = st.none() | st.builds(
    moment,
    st.integers(0, 3) | st.sampled_from([999_999, 1_000_000, 1_000_001, 59_999_999, -(10**16)]),
    st.sampled_from([0, 2, -5.5, 14.5, 20]),
)
DAYS = st.none() | st.sampled_from([date(2026, 1, 1), date(2025, 12, 31), date(999, 5, 5)])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "size": SIZES, "name": NAMES, "price": PRICES, "made": MOMENTS, "day": DAYS, "ready": st.booleans(),
    "cost": PRICES, "sold": MOMENTS,
}  # fmt: skip
things = st.fixed_dictionaries({**FIELDS, "tags": st.just(()) | st.just(("a",))})
COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": lambda one, other: one == other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}

Wanted = Callable[[Any], Any]
"""What a test asks, as a lambda of an object, which is a query, too."""


class Plain:
    """An object, whose comparisons with None are as a query means them."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        return _Value(getattr(self._thing, name, None))


class _Value:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> Any:
        return self.value == other

    def __ne__(self, other: object) -> Any:
        return self.value != other

    def _both(self, other: Any, compare: Callable[[Any, Any], bool]) -> bool:
        return self.value is not None and other is not None and compare(self.value, other)

    def __lt__(self, other: Any) -> bool:
        return self._both(other, COMPARISONS["<"])

    def __le__(self, other: Any) -> bool:
        return self._both(other, COMPARISONS["<="])

    def __gt__(self, other: Any) -> bool:
        return self._both(other, COMPARISONS[">"])

    def __ge__(self, other: Any) -> bool:
        return self._both(other, COMPARISONS[">="])

    __hash__ = None  # type: ignore[assignment]


@st.composite
def comparisons(draw: st.DrawFn) -> tuple[str, Any]:
    field = draw(st.sampled_from(sorted(FIELDS)))
    value = draw(FIELDS[field])
    if draw(st.booleans()):
        values = draw(st.lists(FIELDS[field], max_size=3))
        return f"{field} one of {values}", ("one of", field, values)
    sign = draw(st.sampled_from(sorted(COMPARISONS)))
    return f"{field} {sign} {value!r}", (sign, field, value)


@st.composite
def questions(draw: st.DrawFn) -> Any:
    """A tree of comparisons."""
    leaf = comparisons().map(lambda one: one[1])
    return draw(st.recursive(leaf, lambda inner: st.tuples(st.sampled_from("&|~"), inner, inner), max_leaves=4))


def ask(question: Any, thing: Any) -> Any:
    """Evaluate a question on a plain object, or make a query of it."""
    sign, first, second = question
    if sign == "one of":
        field = getattr(thing, first)
        if isinstance(field, _Value):
            return any(field == value for value in second)
        return one_of(field, second)
    if sign == "~":
        inner = ask(first, thing)
        return (not inner) if isinstance(inner, bool) else ~inner
    if sign in "&|":
        one, other = ask(first, thing), ask(second, thing)
        return one & other if sign == "&" else one | other
    return COMPARISONS[sign](getattr(thing, first), second)


Made = list[tuple[dict[str, Any], bool]]
"""Fields of objects, and whether they have aged."""
Asked = list[tuple[Any, Any]]
"""Questions, and the states that they are about."""
MADE = st.lists(st.tuples(things, st.booleans()), max_size=6)
ASKED = st.lists(st.tuples(questions(), st.sampled_from([Thing, New, Old])), min_size=1, max_size=6)


async def answers(store: Any, made: Made, asked: Asked) -> list[Any]:
    """See that a store answers as Python does; the answers."""
    async with Runtime(store, [Things]) as runtime:
        machine = runtime.machine(Things)
        objects: list[Any] = []
        for place, (fields, has_aged) in enumerate(made):
            create = machine.make.options(idempotency_key=str(place))
            thing: Any = (await create(**fields)).object
            objects.append((await machine.age(thing, since=place)).object if has_aged else thing)
        objects.sort(key=lambda one: one.id)
        found: list[Any] = []
        for question, state in asked:
            wanted = [one for one in objects if isinstance(one, state) and ask(question, Plain(one))]
            where = cast("Wanted", partial(ask, question))
            assert await machine.find_all(state, where) == wanted
            assert await machine.count(state, where) == len(wanted)
            for field in FIELDS:
                pages: list[Any] = []
                after = None
                order_by = cast("Wanted", attrgetter(field))
                while page := await machine.find_all(state, where, order_by=order_by, limit=2, after=after):
                    pages += page
                    after = page[-1].id
                assert sorted(one.id for one in pages) == [one.id for one in wanted], "pages have each once"
                values: list[Any] = [getattr(one, field) for one in pages]
                known = [value for value in values if value is not None]
                assert values == [None] * (len(values) - len(known)) + sorted(known), "in order, None first"
                found.append(pages)
        return found


@settings(max_examples=12)
@given(made=MADE, asked=ASKED)
def test_tables_scans_and_python_agree(made: Made, asked: Asked) -> None:
    async def compare() -> None:
        with TemporaryDirectory() as folder:
            await answers(SqliteStore(Path(folder) / "app.db"), made, asked)
        await answers(MemoryStore(), made, asked)

    asyncio.run(compare())


async def test_a_table_changes_with_its_objects_and_is_made_anew_from_them(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    async with Runtime(SqliteStore(path), [Things]) as runtime:
        things = runtime.machine(Things)
        first, _ = await things.make(1)
        await things.make(2, name="two")
        await things.age(first, since=7)
    rows = [("new", 2, "two", None), ("old", 1, None, 7)]
    select = "select state, size, name, since from model_thing order by state"
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(select).fetchall() == rows
        plan = connection.execute("explain query plan select id from model_thing where size is 2 and state is 'new'")
        assert "model_thing_by_state_and_size" in str(plan.fetchall())
        connection.executescript("drop table model_thing; drop trigger model_thing_insert;")
    async with Runtime(SqliteStore(path), [Things]) as runtime:
        assert await runtime.machine(Things).count(Old, since=7) == 1
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(select).fetchall() == rows


async def test_a_handler_reads_a_thousand_at_most_and_what_it_has_read_is_recorded() -> None:
    async with Harness(Things, Counting) as app:
        things = app.machine(Things)
        for size in (3, 1, 2):
            await things.make(size)
        assert await app.service(Counting).sizes() == [1, 2, 3]
        await asyncio.gather(*(things.make(n) for n in range(998)))
        with pytest.raises(TooManyObjectsError, match="More than 1,000 objects fit"):
            await app.service(Counting).sizes()


async def test_what_is_no_question_is_told() -> None:
    async with Harness(Things) as app:
        things = app.machine(Things)
        with pytest.raises(AttributeError, match=r"New has no field 'since'\. It has cost"):
            await things.find_all(New, since=7)
        with pytest.raises(TypeError, match=r"Join conditions by & and \|"):
            await things.find_all(New, lambda thing: thing.size > 1 and thing.size < 3)
        with pytest.raises(TypeError, match="A query asks by comparing fields"):
            await things.find_all(New, lambda thing: True)
        with pytest.raises(TypeError, match="whose values are in an order"):
            await things.find_all(New, order_by=lambda thing: thing.tags)
        with pytest.raises(TypeError, match="write `== None`, not `is None`"):
            await things.find_all(New, lambda thing: thing.name is None)
        no_questions: list[Callable[[Any], Any]] = [
            lambda thing: thing.size + 1 > 2,
            lambda thing: 2 * thing.size > 2,
            lambda thing: -thing.size > 2,
            lambda thing: len(thing.name) > 2,
            lambda thing: "a" in thing.name,
            lambda thing: thing.tags[0] == "a",
            lambda thing: one_of(thing.size, thing.tags),
            lambda thing: thing.size and True,
        ]
        for asked in no_questions:
            with pytest.raises(TypeError, match=r"compares the field '\w+' with values, by ==, .* no more of it"):
                await things.find_all(New, asked)
        with pytest.raises(AttributeError, match="compares the field 'name' with values"):
            await things.find_all(New, lambda thing: cast("str", thing.name).startswith("a"))
        with pytest.raises(TypeError, match=r"Join conditions by & and \|"):
            await things.find_all(New, lambda thing: thing.ready and thing.size > 1)
        with pytest.raises(TypeError, match="gave the field 'size' itself"):
            await things.find_all(New, lambda thing: cast("Any", thing.size))
        wrong: Any = "ready"
        with pytest.raises(TypeError, match="The condition of a query is a lambda"):
            await things.find_all(New, wrong)
        with pytest.raises(TypeError, match="order_by= gives a field"):
            await things.find_all(New, order_by=wrong)
        with pytest.raises(InvalidKeyError, match="after='order_7' is no id of Thing, whose ids begin with 'thing_'"):
            await things.find_all(New, after="order_7")
        await things.make(7)
        for wrong in (None, 7, New):
            with pytest.raises(TypeError, match="id= is the id of an object, not"):
                await things.find_one(New, id=wrong)
            with pytest.raises(TypeError, match="id= is the id of an object, not"):
                await things.find_one_or_raise(New, size=7, id=wrong)
            with pytest.raises(TypeError, match=r"get_transition\(\) takes the id of a transition"):
                await things.get_transition(wrong)
        assert await things.count(New) == 1, "the runtime lives"
        for wrong in (-1, True, 2.5, "3"):
            with pytest.raises(TypeError, match="limit= is a whole number"):
                await things.find_all(New, limit=wrong)
            with pytest.raises(TypeError, match="limit= is a whole number"):
                await things.get_object_transitions("thing_1", limit=wrong)
        for wrong in (None, 7, New):
            with pytest.raises(TypeError, match="takes a version of Thing or its id, not"):
                await things.get_object_transitions(wrong)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_field_that_is_true_or_false_is_a_condition(tmp_path: Path, on_disk: bool) -> None:
    async with Runtime(SqliteStore(tmp_path / "app.db") if on_disk else MemoryStore(), [Things]) as runtime:
        things = runtime.machine(Things)
        for size in range(4):
            await things.make(size, ready=size % 2 == 1)

        async def sizes(where: Callable[[Any], Any]) -> list[int]:
            found = await things.find_all(New, where)
            assert await things.count(New, where) == len(found)
            return [one.size for one in found]

        assert await sizes(lambda thing: thing.ready) == [1, 3]
        assert await sizes(lambda thing: ~thing.ready) == [0, 2]
        assert await sizes(lambda thing: thing.ready & (thing.size > 1)) == [3]
        assert await sizes(lambda thing: (thing.size > 1) & thing.ready) == [3]
        assert await sizes(lambda thing: thing.ready | (thing.size == 0)) == [0, 1, 3]
        assert await sizes(lambda thing: (thing.size == 0) | ~thing.ready) == [0, 2]


async def test_a_question_that_no_machine_asks_does_not_end_the_store() -> None:
    wrong: Any = 7
    with pytest.raises(InvalidArgumentError, match="This cannot be asked"):
        await answer(MemoryStore(), ReadEvents("Things", key=wrong))


@pytest.mark.parametrize("on_disk", [False, True])
async def test_behind_an_object_that_is_gone_pages_go_on_or_it_is_told(tmp_path: Path, on_disk: bool) -> None:
    await pages_go_on(SqliteStore(tmp_path / "app.db") if on_disk else MemoryStore())


async def pages_go_on(store: Any) -> None:
    async with Runtime(store, [Things]) as runtime:
        things = runtime.machine(Things)
        made = sorted([(await things.make(size)).object for size in (3, 1, 2, 4)], key=lambda one: one.id)
        last = (await things.find_all(Thing, limit=2))[-1]
        deletion = await runtime.request_deletion("Things", last.id)
        await runtime.invocation(deletion.id).result()
        assert await things.find_all(Thing, after=last.id) == made[2:]
        assert await things.find_all(Thing, after=last.id, descending=True) == made[:1]
        with pytest.raises(InvalidArgumentError, match=f"There is no object {last.id} any longer, so where it was"):
            await things.find_all(Thing, order_by=lambda thing: thing.size, after=last.id)
