"""A collection that is verified by its parts is refused exactly where the whole is."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from durably.actors.values.parts import Parts, parts_of
from durably.actors.values.serde import codec_for
from durably.errors import UnencodableError


@dataclass
class Job:
    number: Any

    def __post_init__(self) -> None:
        if not isinstance(self.number, int):
            raise TypeError("a number is an int")


def parts(annotation: Any) -> Parts:
    found = parts_of(annotation, codec_for(annotation))
    assert found is not None
    return found


def broken(number: Any) -> Job:
    job = Job(0)
    job.number = number
    return job


RIGHT = st.integers(0, 3).map(Job)
ANY = st.one_of(st.integers(0, 3), st.integers(0, 3), st.just("x")).map(broken)
KEYS = st.sampled_from("abcdef")


def refused(verify: Any, *given: Any) -> str | None:
    try:
        verify(*given)
    except UnencodableError as error:
        return error.message
    return None


@given(before=st.lists(RIGHT, max_size=8), after=st.lists(ANY, max_size=8), shared=st.integers(0, 8))
def test_lists(before: list[Job], after: list[Job], shared: int) -> None:
    value = [*before[:shared], *after, *before[shared + 1 :]]
    compare(list[Job], before, value)


@given(
    before=st.lists(st.integers(0, 3)),
    after=st.lists(st.sampled_from([1, 2, "x", 1.5, None])),
    shared=st.integers(0, 8),
)
def test_lists_of_plain_values(before: list[Any], after: list[Any], shared: int) -> None:
    compare(list[int], before, [*before[:shared], *after, *before[shared + 1 :]])


@given(before=st.lists(st.sampled_from([0.5, 1.0])), added=st.lists(st.sampled_from([0.5, 1.0, 1])))
def test_lists_of_numbers_that_may_be_written_in_two_ways(before: list[float], added: list[float]) -> None:
    compare(list[float], before, [*before, *added])
    compare(list[float], before, [*before[1:], *added])


@given(before=st.dictionaries(KEYS, RIGHT), after=st.dictionaries(KEYS, ANY), gone=st.sets(KEYS))
def test_dicts(before: dict[str, Job], after: dict[str, Job], gone: set[str]) -> None:
    value = {key: job for key, job in {**before, **after}.items() if key not in gone}
    compare(dict[str, Job], before, value)


def compare(annotation: Any, before: Any, value: Any) -> None:
    codec = codec_for(annotation)
    by_parts = parts(annotation)
    data, verified = codec.encode(value), codec.encode(before)
    expected = refused(codec.verify, value, data)
    assert refused(by_parts.verify, value, data, verified) == expected
    if expected is None:
        again, is_canonical = by_parts.verify(value, data, verified)
        assert is_canonical is (codec.encode(codec.decode(data)) == data)
        assert refused(by_parts.verify, value, data, data if again is None else again) is None


@given(before=st.lists(RIGHT, min_size=1), added=st.lists(ANY))
def test_lists_to_which_something_was_added(before: list[Job], added: list[Job]) -> None:
    compare(list[Job], before, [*before, *added])


@given(before=st.dictionaries(KEYS, RIGHT, min_size=1), added=st.dictionaries(st.sampled_from(["x", 1, "1"]), ANY))
def test_dicts_to_which_something_was_added(before: dict[str, Job], added: dict[Any, Job]) -> None:
    compare(dict[str, Job], before, {**before, **added})


OLDER = vars(typing)
PLAIN = st.sampled_from([0, "x", None, [1], {"a": 2}, float("nan"), {1: 2}, {1: 1, "1": 2}, {3}])
NAMES = st.sampled_from(["a", "1", "true", "null", 1, True, None, 1.5, float("inf")])


@pytest.mark.parametrize("annotation", [list, OLDER["List"], list[Any]])
@given(before=st.lists(st.sampled_from([0, "x", [1]]), max_size=6), after=st.lists(PLAIN, max_size=6))
def test_lists_of_anything(annotation: Any, before: list[Any], after: list[Any]) -> None:
    compare(annotation, before, [*before, *after])
    compare(annotation, before, [*before[1:], *after, *before[:1]])


@pytest.mark.parametrize("annotation", [dict, OLDER["Dict"], dict[Any, Any]])
@given(before=st.dictionaries(st.sampled_from(["a", "b", 1]), st.just(0)), after=st.dictionaries(NAMES, PLAIN))
def test_dicts_of_anything(annotation: Any, before: dict[Any, Any], after: dict[Any, Any]) -> None:
    compare(annotation, before, {**before, **after})
    compare(annotation, before, {**after, **before})


@pytest.mark.parametrize("key", [1, None, 1.5])
def test_a_key_that_is_no_string_is_left_to_the_whole(key: Any) -> None:
    codec = codec_for(dict[str, Job])
    before = {str(number): Job(number) for number in range(9)}
    value: dict[Any, Job] = {**before, key: broken("x")}
    data = codec.encode(value)
    assert refused(parts(dict[str, Job]).verify, value, data, codec.encode(before)) == refused(
        codec.verify, value, data
    )


def test_the_place_of_a_part_that_does_not_fit_is_named() -> None:
    codec = codec_for(list[int])
    before: list[Any] = list(range(100))
    value = [*before[:70], "x", *before[71:]]
    with pytest.raises(UnencodableError, match=r"\$\[70\]"):
        parts(list[int]).verify(value, codec.encode(value), codec.encode(before))


@pytest.mark.parametrize(
    "annotation",
    [
        int,
        dict[int, str],
        Sequence[int],
        set[str],
        tuple[int, ...],
        Job,
        list[int] | None,
        Annotated[list[int], msgspec.Meta(max_length=3)],
    ],
)
def test_other_types_are_verified_as_a_whole(annotation: Any) -> None:
    assert parts_of(annotation, codec_for(annotation)) is None
