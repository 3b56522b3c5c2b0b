"""Rules V2, S3: an attempt that only reads its state changes nothing, in whatever words it was written, anywhere."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from types import new_class
from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as some

from durably import (
    DefinitionError,
    ObjectContext,
    SharedContext,
    UnencodableError,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.definition.binding import bind
from durably.testing import Harness
from tests.actors.port import FakePort
from tests.actors.typed_values import ODD, Strategy, typed

OTHER_ZONE = timezone(timedelta(hours=2))


@dataclass
class Bill:
    total: float = 0
    items: list[float] = dataclasses.field(default_factory=list[float])


class Receipt(pydantic.BaseModel):
    total: float = 0


async def look(self: Any, ctx: ObjectContext) -> None: ...


def bound(annotation: Any, default: Any) -> Any:
    """As one process binds it."""
    body = {
        "__annotations__": {"field": annotation, "fields": list[annotation]},
        "__module__": __name__,
        "field": state() if default is None else state(default=default),
        "fields": state(default=[]),
        "look": handler(look),
    }
    holder: Any = new_class("Holder", (VirtualObject,), {"name": "ReadsHolder"}, lambda names: names.update(body))
    return bind(holder, {})


def reading_changes_nothing(annotation: Any, value: Any, default: Any = None) -> None:
    here, elsewhere = bound(annotation, default), bound(annotation, default)
    port = FakePort()
    holder = here.instance("a", port, writable=True)
    if default is None:
        holder.field = value
    for _ in range(2):
        holder.fields.append(value)
        port.flushed()
    for process in (here, elsewhere, here):
        for writable in (True, False):
            later = FakePort(port.state)
            reader = process.instance("a", later, writable=writable)
            assert reader.field is not reader.fields
            assert later.flushed() == {}


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (list[float], [1, 2]),
        (dict[str, float], {"a": 1}),
        (set[float], {1, 2}),
        (tuple[float, ...], (1,)),
        (dict[float, str], {1: "a"}),
        (Bill, Bill(1, [1])),
        (Receipt, Receipt.model_construct(total=1)),
        (list[float | None], [1, None]),
        (list[int], [True]),
        (list[datetime], [datetime(2026, 1, 1, tzinfo=OTHER_ZONE)]),
        (list[Decimal], [Decimal("1.0"), Decimal("1E+2")]),
    ],
)
def test_what_was_written_in_other_words_is_only_read(annotation: Any, value: Any) -> None:
    try:
        reading_changes_nothing(annotation, value)
    except UnencodableError:  # Refused where it is given (rule V5).
        assert annotation == list[int]


@pytest.mark.parametrize(("annotation", "default"), [(Bill, Bill()), (list[float], [1]), (dict[str, float], {"a": 1})])
def test_a_default_in_other_words_is_only_read(annotation: Any, default: Any) -> None:
    reading_changes_nothing(annotation, default, default)


@settings(suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(typed(), some.booleans(), some.data())
def test_whatever_was_written_is_only_read(drawn: tuple[Any, Strategy], is_odd: bool, data: some.DataObject) -> None:
    annotation, values = drawn
    value = data.draw(ODD if is_odd else values)
    try:
        reading_changes_nothing(annotation, with_ints(value))
    except (DefinitionError, UnencodableError, pydantic.ValidationError):  # Some take no int for a float.
        reject()


def with_ints(value: Any) -> Any:
    """The same with an int for each float that is whole."""
    kind: Any = value.__class__
    if dataclasses.is_dataclass(kind):
        return _record_with_ints(value)
    return WITH_INTS.get(kind, lambda value: value)(value)


def _record_with_ints(value: Any) -> Any:
    names = [field.name for field in dataclasses.fields(value) if field.init]
    return dataclasses.replace(value, **{name: with_ints(getattr(value, name)) for name in names})


WITH_INTS: dict[Any, Callable[[Any], Any]] = {
    float: lambda value: int(value) if value.is_integer() else value,
    list: lambda value: [with_ints(item) for item in value],
    tuple: lambda value: tuple([with_ints(item) for item in value]),
    set: lambda value: {with_ints(item) for item in value},
    dict: lambda value: {with_ints(key): with_ints(item) for key, item in value.items()},
}


class ReadsTill(VirtualObject):
    sums: list[float] = state(default=[])

    @handler
    async def put(self, ctx: ObjectContext) -> None:
        self.sums = [1, 2]

    @handler
    async def look(self, ctx: ObjectContext) -> float:
        found = sum(self.sums)
        await ctx.sleep(2)
        return found

    @shared
    async def peek(self, ctx: SharedContext) -> float:
        return sum(self.sums)


async def test_a_reader_goes_on_in_another_process() -> None:
    async with Harness(ReadsTill) as app:
        till = app.object(ReadsTill, "a")
        await till.put()
        assert await till.peek() == 3
        looking = await till.look.send()
        await app.settle()
        await app.crash()
        await app.advance(2)
        assert await looking.result() == 3
