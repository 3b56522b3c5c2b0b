from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from durably.actors import Context, Service, handler
from durably.actors.definition.binding import bind
from durably.errors import UndecodableError, UnencodableError


@dataclass(frozen=True)
class Price:
    cents: int


class Shop(Service):
    @handler
    async def price(self, ctx: Context, article: str, count: int = 1) -> Price:
        return Price(count)

    @handler
    async def forget(self, ctx: Context) -> None: ...

    @handler
    async def untyped(self, ctx):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        return None

    @handler
    async def maybe(self, ctx: Context) -> int | None:
        return None


HANDLERS = bind(Shop, {}).handlers


def test_a_signature_reads_as_it_was_written() -> None:
    signature = HANDLERS["price"].signature
    assert signature.parameters == {"article": "str", "count": "int = 1"}
    assert signature.returns == "Price"
    assert HANDLERS["untyped"].signature.returns == "anything"


def test_a_result_has_the_annotated_type() -> None:
    bound = HANDLERS["price"]
    assert bound.signature.decode_result(bound.encode_result(Price(3))) == Price(3)
    assert bound.content_type == "application/json"


def test_nothing_has_no_bytes() -> None:
    bound = HANDLERS["forget"]
    assert (bound.encode_result(None), bound.content_type) == (b"", None)
    assert bound.signature.decode_result(b"") is None
    with pytest.raises(UndecodableError, match="declared to return None"):
        bound.signature.decode_result(b"1")


def test_none_of_a_handler_that_may_return_something_is_null() -> None:
    assert HANDLERS["maybe"].encode_result(None) == b"null"
    assert HANDLERS["untyped"].encode_result(None) == b"null"


@pytest.mark.parametrize(("name", "value"), [("price", 3), ("price", object()), ("forget", 1), ("maybe", "x")])
def test_a_result_of_another_type_is_refused_where_it_is_returned(name: str, value: Any) -> None:
    with pytest.raises(UnencodableError, match=f"andler '{name}'"):
        HANDLERS[name].encode_result(value)
