"""An error about a part of a value says where it is, also below keys of dicts, whatever those are."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably import Context, InvalidArgumentError, MsgpackSerde, Service, UndecodableError, UnencodableError, handler
from durably.actors.values import places
from durably.actors.values.places import below
from durably.actors.values.serde import codec_for
from durably.testing import Harness

Prices = dict[str, dict[str, list[int]]]
KEYS = some.sampled_from(["a", "b", "a.b", "x-y", "", "[...]", "0", "$", '"', "ä", "a b", "{}", "`"])
VALUES = some.dictionaries(
    KEYS, some.dictionaries(KEYS, some.lists(some.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=6),
    min_size=1, max_size=6,
)  # fmt: skip
PLACES = some.tuples(some.integers(0), some.integers(0), some.integers(0))


def put(value: Prices, place: tuple[int, int, int], misfit: Any) -> str:
    """Put something somewhere; returns where that is."""
    first = list(value)[place[0] % len(value)]
    second = list(value[first])[place[1] % len(value[first])]
    third = place[2] % len(value[first][second])
    value[first][second][third] = misfit
    return f"{below(below('$', first), second)}[{third}]"


@given(value=VALUES, place=PLACES, other=PLACES, is_packed=some.booleans())
def test_what_is_read_and_does_not_fit_is_named_by_its_keys(
    value: Prices, place: tuple[int, int, int], other: tuple[int, int, int], is_packed: bool
) -> None:
    found = put(value, place, "misfit")
    serde: Any = MsgpackSerde(Prices) if is_packed else codec_for(Prices)
    with pytest.raises(UndecodableError) as refused:
        serde.decode((msgspec.msgpack if is_packed else msgspec.json).encode(value))
    assert refused.value.path == found
    assert found in refused.value.message
    another = put(value, other, "misfit")
    with pytest.raises(UndecodableError) as refused:  # The first of two.
        serde.decode((msgspec.msgpack if is_packed else msgspec.json).encode(value))
    assert refused.value.path in (found, another)


@given(value=VALUES, place=PLACES)
def test_what_is_written_and_what_pydantic_reads_is_named_in_the_same_way(
    value: Prices, place: tuple[int, int, int]
) -> None:
    found = put(value, place, -1)
    positive = dict[str, dict[str, list[Annotated[int, pydantic.Field(ge=0)]]]]
    with pytest.raises(UndecodableError) as refused:
        codec_for(positive).decode(msgspec.json.encode(value))
    assert refused.value.path == found
    put(value, place, float("nan"))
    for encode in (codec_for(dict[str, dict[str, list[float]]]).encode_exactly, codec_for(Any).encode_exactly):
        with pytest.raises(UnencodableError) as lost:
            encode(value)
        assert lost.value.path == found
    put(value, place, object())
    with pytest.raises(UnencodableError) as unknown:
        MsgpackSerde(dict[str, Any]).encode(value)
    assert unknown.value.path == found


@pytest.mark.parametrize(
    ("annotation", "data", "path"),
    [
        (dict[int, int], b'{"1":1,"x":2}', "$.x"),
        (dict[str, dict[int, int]], b'{"a.b":{"1":1,"x y":2}}', '$["a.b"]["x y"]'),
        (dict[pydantic.PositiveInt, int], b'{"1":1,"-2":2}', '$["-2"]'),
        (tuple[int, dict[str, int]], b'[1,{"q":"x"}]', "$[1].q"),
        (dict[str, int], b'{"%s":"x"}' % (b"k" * 500), f'$["{"k" * places.MOST_SHOWN_CHARACTERS}\\u2026"]'),
    ],
)
def test_keys_and_unusual_places(annotation: Any, data: bytes, path: str) -> None:
    with pytest.raises(UndecodableError) as refused:
        codec_for(annotation).decode(data)
    assert refused.value.path == path.replace("\\u2026", "…")


def test_a_large_value_is_not_read_again_to_name_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "MOST_SEARCHED_BYTES", 10)
    with pytest.raises(UndecodableError) as refused:
        codec_for(dict[str, int]).decode(b'{"a":1,"b":"x"}')
    assert refused.value.path == "$[...]"


class Shop(Service):
    @handler
    async def price(self, ctx: Context, prices: Prices, currency: str = "EUR") -> None: ...


@pytest.mark.parametrize("body", ['{"prices":{"a.b":{"c":[1,"x"]}},"currency":"USD"}', '{"a.b":{"c":[1,"x"]}}'])
async def test_an_argument_of_a_handler_is_named_by_its_keys(body: str) -> None:
    place = '$.prices["a.b"].c[1]' if "prices" in body else '$["a.b"].c[1]'
    async with Harness(Shop) as app:
        with pytest.raises(InvalidArgumentError) as refused:
            await app.call("Shop", "price", body.encode())
    assert refused.value.path == place
