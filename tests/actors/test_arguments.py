from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors import BytesSerde, Context, Service, handler
from durably.actors.definition.binding import BoundActorHandler, bind
from durably.errors import InvalidArgumentError, TerminalError, UnencodableError
from tests.actors.port import finished


@dataclass(frozen=True)
class Purchase:
    user: str
    tickets: list[str]


class Echo(Service):
    """Every handler returns what it was called with."""

    @handler
    async def none(self, ctx: Context) -> list[Any]:
        return []

    @handler
    async def nothing(self, ctx: Context, value: None) -> list[Any]:
        return [value]

    @handler
    async def one(self, ctx: Context, ticket: str) -> list[Any]:
        return [ticket]

    @handler
    async def optional(self, ctx: Context, count: int = 7) -> list[Any]:
        return [count]

    @handler(name="addTicket")
    async def add_ticket(self, ctx: Context, ticket: str, n: int = 1, *, note: str | None = None) -> list[Any]:
        return [ticket, n, note]

    @handler
    async def two(self, ctx: Context, left: int, right: int) -> list[Any]:
        return [left, right]

    @handler
    async def defaults(self, ctx: Context, left: int = 1, right: int = 2) -> list[Any]:
        return [left, right]

    @handler
    async def purchase(self, ctx: Context, purchase: Purchase) -> list[Any]:
        return [purchase]

    @handler
    async def mapping(self, ctx: Context, values: dict[str, int], deep: bool = False) -> list[Any]:
        return [values, deep]

    @handler
    async def untyped(self, ctx, value):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
        return [value]  # pyright: ignore[reportUnknownVariableType]

    @handler(accepts=BytesSerde(), returns=BytesSerde())
    async def raw(self, ctx: Context, data: bytes) -> bytes:
        return data

    @handler
    async def appended(self, ctx: Context, value: int, to: list[int] = []) -> list[Any]:  # noqa: B006
        return [value, to]


HANDLERS = bind(Echo, {}).handlers


def called(name: str, argument: bytes) -> Any:
    ctx: Any = None
    instance: Any = None
    coroutine: Coroutine[Any, Any, Any] = HANDLERS[name].start(instance, ctx, argument)
    return finished(coroutine)


def admitted(name: str, body: bytes) -> Any:
    return called(name, HANDLERS[name].admit(body))


@pytest.mark.parametrize(
    ("name", "body", "expected"),
    [
        ("none", b"", []),
        ("none", b" \r\n", []),
        ("nothing", b"", [None]),
        ("nothing", b" null", [None]),
        ("one", b'"2B"', ["2B"]),
        ("one", b' "2B"\n', ["2B"]),
        ("optional", b"", [7]),
        ("optional", b"3", [3]),
        ("addTicket", b'"2B"', ["2B", 1, None]),
        ("addTicket", b'{"ticket": "2B"}', ["2B", 1, None]),
        ("addTicket", b'{"n": 2, "ticket": "2B", "note": "x"}', ["2B", 2, "x"]),
        ("two", b'{"right": 2, "left": 1}', [1, 2]),
        ("defaults", b"", [1, 2]),
        ("defaults", b"{}", [1, 2]),
        ("defaults", b'{"right": 5}', [1, 5]),
        ("purchase", b'{"user": "mary", "tickets": ["2B"]}', [Purchase("mary", ["2B"])]),
        ("mapping", b'{"a": 1}', [{"a": 1}, False]),
        ("mapping", b'{"values": {"a": 1}, "deep": true}', [{"a": 1}, True]),
        ("mapping", b'{"values": 1, "other": 2}', [{"values": 1, "other": 2}, False]),
        ("untyped", b'{"a": [1]}', [{"a": [1]}]),
        ("appended", b"1", [1, list[int]()]),
    ],
)
def test_a_body_from_outside_is_admitted(name: str, body: bytes, expected: list[Any]) -> None:
    assert admitted(name, body) == expected


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("none", b"1", "expects an empty body, and got 1: it has no parameters"),
        ("one", b"", "expects one JSON value, ticket: str, and got nothing"),
        ("one", b"5", "expects one JSON value, ticket: str, and got 5: Expected `str`, got `int`"),
        ("one", b'{"ticket": "2B"}', "Expected `str`, got `object`"),
        ("optional", b'"x"', "expects one JSON value, count: int = 7, and got"),
        (
            "addTicket",
            b"",
            "expects a JSON object of (ticket: str, n: int = 1, note: str | None = None), or just a value for",
        ),
        ("addTicket", b'{"ticket": "2B", "n": "x"}', "Expected `int`, got `str` at $.n"),
        ("two", b"1", "expects a JSON object of (left: int, right: int), and got 1"),
        ("two", b'{"left": 1}', "missing required field `right`"),
        ("two", b'{"left": 1, "right": 2, "top": 3}', "unknown field `top`"),
        ("defaults", b"[1]", "Expected `object`, got `array`"),
        ("purchase", b'{"user": "mary", "tickets": [1]}', "Expected `str`, got `int` at $.tickets[0]"),
        ("one", b'"2B', "truncated"),
        ("one", b"\xff\xfe", "got \ufffd\ufffd"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_what_was_expected_and_what_came(
    name: str, body: bytes, words: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        HANDLERS[name].admit(body)
    assert words in str(caught.value)
    assert f"Handler {name!r}" in str(caught.value)
    assert caught.value.code == 400


@pytest.mark.parametrize(
    ("name", "body", "missing"),
    [
        ("one", b"", "got nothing: `ticket` is missing."),
        ("addTicket", b"", "got nothing: `ticket` is missing."),
        ("addTicket", b"{}", "got {}: `ticket` is missing."),
        ("addTicket", b' {"n": 2}', "`ticket` is missing."),
        ("two", b"", "got nothing: `left` and `right` are missing."),
        ("two", b"  ", "`left` and `right` are missing."),
        ("two", b"{}", "got {}: Object missing required field `left`."),
        ("nothing", b"1", "got 1: Expected nothing, or `null`."),
        ("none", b"{}", "got {}: it has no parameters."),
        ("none", b"null", "got null: it has no parameters."),
        ("two", b'{"right": 1}', "missing required field `left`."),
    ],
)
def test_what_is_missing_in_a_body_is_named(name: str, body: bytes, missing: str) -> None:
    with pytest.raises(InvalidArgumentError, match=re.escape(missing)):
        admitted(name, body)


def test_the_path_of_what_does_not_fit_is_told() -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        HANDLERS["purchase"].admit(b'{"user": "mary", "tickets": ["a", 1]}')
    assert caught.value.path == "$.tickets[1]"


@given(some.binary(max_size=30) | some.text(max_size=10).map(str.encode) | some.just(b'{"ticket": 1'))
def test_any_bytes_are_admitted_or_refused(body: bytes) -> None:
    for bound in HANDLERS.values():
        try:
            argument = bound.admit(body)
        except InvalidArgumentError:
            continue
        called(bound.name, argument)


VALUES = some.dictionaries(some.text("abc"), some.integers())


@given(values=VALUES, deep=some.booleans(), form=some.sampled_from(["bare", "by name"]))
def test_both_forms_of_several_arguments_mean_the_same(values: dict[str, int], deep: bool, form: str) -> None:
    if form == "bare":
        assert admitted("mapping", msgspec.json.encode(values)) == [values, False]
    else:
        assert admitted("mapping", msgspec.json.encode({"deep": deep, "values": values})) == [values, deep]


Encode = Callable[..., bytes]


def encoded(name: str, *args: Any, **kwargs: Any) -> bytes:
    return HANDLERS[name].signature.encode_arguments(args, kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "expected"),
    [
        ("none", (), {}, b"{}"),
        ("one", ("2B",), {}, b'{"ticket":"2B"}'),
        ("one", (), {"ticket": "2B"}, b'{"ticket":"2B"}'),
        ("optional", (), {}, b"{}"),
        ("addTicket", ("2B",), {}, b'{"ticket":"2B"}'),
        ("addTicket", ("2B", 2), {"note": "x"}, b'{"ticket":"2B","n":2,"note":"x"}'),
        ("two", (1, 2), {}, b'{"left":1,"right":2}'),
        ("two", (1,), {"right": 2}, b'{"left":1,"right":2}'),
        ("raw", (b"\xff",), {}, b"\xff"),
    ],
)
def test_in_journals_arguments_go_by_name(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], expected: bytes
) -> None:
    assert encoded(name, *args, **kwargs) == expected
    assert called(name, expected) is not None


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "words"),
    [
        ("none", (1,), {}, "too many positional arguments"),
        ("one", (), {}, "missing a required argument: 'ticket'"),
        ("two", (1, 2), {"left": 1}, "multiple values for argument 'left'"),
        ("two", (1,), {"top": 1}, "missing a required argument: 'right'"),
        ("addTicket", ("2B", 1, "x"), {}, "too many positional arguments"),
        ("raw", (), {}, "missing a required argument: 'data'"),
    ],
)
def test_wrong_arguments_are_refused_as_python_would(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], words: str
) -> None:
    with pytest.raises(TypeError, match=words):
        encoded(name, *args, **kwargs)


def test_an_argument_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(UnencodableError, match="The argument 'value' of handler 'untyped'"):
        encoded("untyped", object())
    with pytest.raises(UnencodableError, match="The argument 'right' of handler 'two'"):
        encoded("two", 1, "x")


def test_an_argument_in_a_journal_that_does_not_fit_is_refused_too() -> None:
    with pytest.raises(InvalidArgumentError, match="unknown field `gone`"):
        called("one", b'{"ticket": "2B", "gone": 1}')


def test_a_serde_of_the_user_s_gets_the_bytes_as_they_are() -> None:
    assert admitted("raw", b"\xff") == b"\xff"
    assert HANDLERS["raw"].encode_result(b"\xfe") == b"\xfe"
    assert HANDLERS["raw"].content_type == "application/octet-stream"


class Picky:
    content_type = "text/picky"

    def encode(self, value: Any, /) -> bytes:
        raise ValueError("never")

    def decode(self, data: bytes, /) -> Any:
        raise ValueError("never ever")


class Refusing(Service):
    @handler(accepts=Picky(), returns=Picky())
    async def run(self, ctx: Context, data: str) -> str:
        return data


def test_what_a_serde_refuses_is_a_bad_argument() -> None:
    bound = bind(Refusing, {}).handlers["run"]
    with pytest.raises(InvalidArgumentError, match=r"expects text/picky, and got x: never ever\."):
        bound.admit(b"x")
    with pytest.raises(UnencodableError, match="The result of handler 'run'"):
        bound.encode_result("x")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (SystemExit(), "SystemExit"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (KeyError("name"), "KeyError: 'name'"),
        (ValueError(), "ValueError"),
        (ValueError("it is odd."), "it is odd"),
        (TerminalError("it is even"), "it is even"),
    ],
)
def test_what_a_serde_raises_is_told_by_its_text_or_its_name(error: BaseException, said: str) -> None:
    class Failing:
        content_type = "text/x"

        def encode(self, value: Any, /) -> bytes:
            raise error

        def decode(self, data: bytes, /) -> Any:
            raise error

    class Written(Service):
        @handler(accepts=Failing(), returns=Failing())
        async def run(self, ctx: Context, data: str) -> str:
            return data

    bound = bind(Written, {}).handlers["run"]
    with pytest.raises(InvalidArgumentError, match=rf"expects text/x, and got x: {re.escape(said)}\.$"):
        bound.admit(b"x")
    with pytest.raises(UnencodableError, match=rf"The result of handler 'run', 'x': {re.escape(said)}\.$"):
        bound.encode_result("x")


def bound_handler(cls: type[Service]) -> BoundActorHandler:
    return next(iter(bind(cls, {}).handlers.values()))
