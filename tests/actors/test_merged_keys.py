"""Keys from outside that a type reads as one are refused with their place, not merged (rule V5)."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypedDict
from uuid import UUID

import msgspec
import pydantic
import pytest

from durably.actors.values.serde import JsonSerde, codec_for
from durably.actors.values.slices import ADMITTING, value_in_slices
from durably.errors import UndecodableError

SPELLINGS: list[tuple[Any, str, str]] = [
    (float, "1", "1.0"),
    (float, "1e1", "10"),
    (Decimal, "1", "1.0"),
    (UUID, "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"),
    (datetime, "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00"),
]


KINDS: list[tuple[Any, str, str]] = [
    (None, "%s", "$"),
    (list, "[%s]", "$[0]"),
    ("dict", '{"a":%s}', "$.a"),
    ("dataclass", '{"item":%s}', "$.item"),
    ("struct", '{"Item":%s}', "$.item"),
    ("model", '{"Item":%s}', "$.item"),
    ("validated", "%s", "$"),
]


def around(kind: Any, annotation: Any) -> Any:
    match kind:
        case "dict":
            return dict[str, annotation]
        case "dataclass":
            return dataclasses.make_dataclass("Held", [("item", annotation)])
        case "struct":
            return msgspec.defstruct("Held", [("item", annotation)], rename="pascal")
        case "model":
            return pydantic.create_model("Held", item=(annotation, pydantic.Field(alias="Item")))
        case "validated":
            return Annotated[annotation, pydantic.Field(min_length=1)]
        case _:
            return annotation if kind is None else kind[annotation]


@pytest.mark.parametrize(("key", "one", "other"), SPELLINGS)
@pytest.mark.parametrize(("kind", "text", "path"), KINDS)
def test_keys_that_a_type_reads_as_one_are_refused_with_their_place(
    key: Any, one: str, other: str, kind: Any, text: str, path: str
) -> None:
    annotation = around(kind, dict[key, int])
    both, single = ((text % members).encode() for members in (f'{{"{one}":1,"{other}":2}}', f'{{"{one}":1}}'))
    for admit in (codec_for(annotation).admit, JsonSerde(annotation).admit):
        assert admit(single) == single
        with pytest.raises(UndecodableError, match="2 keys are read as 1") as refused:
            admit(both)
        assert refused.value.path == path


def test_keys_in_different_portions_of_a_large_body_are_compared() -> None:
    numbers = ",".join(f'"{number}":0' for number in range(2_000))
    slices = value_in_slices(codec_for(dict[float, int]), f'{{{numbers},"1.0":1}}'.encode(), 1_000, ADMITTING)
    with pytest.raises(UndecodableError, match="2001 keys are read as 2000"):
        for _ in slices:
            pass


class Movie(TypedDict):
    title: str


def test_a_key_that_a_typed_dict_does_not_declare_is_none_that_fell_together() -> None:
    body = b'{"1.5":{"title":"a","more":1}}'
    assert codec_for(dict[float, Movie]).admit(body) == body
