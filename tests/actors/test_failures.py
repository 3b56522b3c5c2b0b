from __future__ import annotations

import asyncio
import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from durably.actors.values import error_envelopes
from durably.actors.values.descriptions import TEXT_LIMIT_CHARACTERS
from durably.actors.values.error_envelopes import (
    LOST_FIELDS,
    asked_delays,
    code_of,
    decode_failure,
    encode_failure,
    message_of,
    metadata_of,
    terminal,
)
from durably.errors import (
    CancelledInvocationError,
    DeadlockError,
    HandlerMistakeError,
    InvalidArgumentError,
    RetryableError,
    TerminalError,
    UnknownTargetError,
    known_error_class,
)


@dataclass
class Amount:
    value: Decimal
    currency: str


@dataclass(eq=False)
class PaymentError(TerminalError):
    code = 402
    kind: ClassVar[str] = "payment"
    amount: Amount
    tried: int


@dataclass(eq=False)
class CardRefusedError(PaymentError):
    """The card was refused."""

    reason: Any = None


class ConstructedError(TerminalError):
    seats: set[str]

    def __init__(self, *, seats: set[str], needed: object) -> None:
        super().__init__(f"No {needed}", metadata={"where": "hall"})
        self.seats = seats


def travelled(error: TerminalError) -> TerminalError:
    return decode_failure(encode_failure(error))


def test_class_fields_code_and_message_travel() -> None:
    error = travelled(CardRefusedError(Amount(Decimal("1.50"), "EUR"), 3, reason=["stolen"]))
    assert type(error) is CardRefusedError
    assert error.amount == Amount(Decimal("1.50"), "EUR")
    assert (error.tried, error.reason, error.code, str(error)) == (3, ["stolen"], 402, "The card was refused.")


def test_the_constructor_is_not_called() -> None:
    error = travelled(ConstructedError(seats={"2B"}, needed=object))
    assert isinstance(error, ConstructedError)
    assert error.seats == {"2B"}
    assert error.metadata == {"where": "hall"}
    assert "No <class" in str(error)


def test_the_library_s_own_fields_travel() -> None:
    for error in (
        DeadlockError(cycle=["a", "b"]),
        UnknownTargetError("No x.", known=["y"]),
        InvalidArgumentError("Not a number.", path="$[0]"),
        TerminalError("no", code=418, metadata={"a": "b"}),
    ):
        restored = travelled(error)
        assert type(restored) is type(error)
        assert vars(restored).items() >= {k: v for k, v in vars(error).items() if k != "message"}.items()
        assert str(restored) == str(error)
        assert restored.code == error.code


def test_an_unknown_class_becomes_its_nearest_known_base() -> None:
    def envelope() -> bytes:
        @dataclass(eq=False)
        class Local(PaymentError):
            more: str = "x"

        return encode_failure(Local(Amount(Decimal(1), "EUR"), 1))

    data = envelope()
    gc.collect()
    error = decode_failure(data)
    assert type(error) is PaymentError
    assert error.amount.currency == "EUR"
    assert error.code == 402


def test_a_class_unknown_altogether_keeps_code_message_and_metadata() -> None:
    data = b'{"classes":["gone.GoneError"],"code":409,"message":"Gone.","metadata":{"a":"b"},"fields":{"x":1}}'
    error = decode_failure(data)
    assert type(error) is TerminalError
    assert (error.code, str(error), error.metadata) == (409, "Gone.", {"a": "b"})
    assert error.class_name == "gone.GoneError"


def who_lacks(unknown: set[str]) -> Callable[[str], type[TerminalError] | None]:
    """A reader without these classes."""
    return lambda name: None if name.rpartition(".")[2] in unknown else known_error_class(name)


@given(some.lists(some.sets(some.sampled_from(["TerminalError", "PaymentError", "CardRefusedError"])), max_size=3))
def test_through_readers_that_know_less_an_error_arrives_as_what_it_was(unknown_on_the_way: list[set[str]]) -> None:
    """Each passes on more than it knows: class, fields and name are there again for the first one who knows them."""
    error: TerminalError = CardRefusedError(Amount(Decimal(1), "EUR"), 2, reason=["stolen", 3])
    with pytest.MonkeyPatch.context() as patch:
        for unknown in unknown_on_the_way:
            patch.setattr(error_envelopes, "known_error_class", who_lacks(unknown))
            error = travelled(error)
            assert error.class_name.endswith("CardRefusedError")
            assert isinstance(error, CardRefusedError) is ("CardRefusedError" not in unknown)
    arrived = travelled(error)
    assert isinstance(arrived, CardRefusedError)
    assert (arrived.amount, arrived.tried, arrived.reason) == (Amount(Decimal(1), "EUR"), 2, ["stolen", 3])
    assert arrived.code == 402


def test_a_field_that_cannot_be_written_is_left_out_and_named() -> None:
    error = travelled(CardRefusedError(Amount(Decimal(1), "EUR"), 1, reason=object()))
    assert isinstance(error, CardRefusedError)
    assert error.metadata[LOST_FIELDS] == "reason"
    assert error.tried == 1


def test_a_field_that_cannot_be_read_is_left_out_and_named() -> None:
    envelope = msgspec.json.decode(encode_failure(PaymentError(Amount(Decimal(1), "EUR"), 1)))
    envelope["fields"]["amount"] = "one euro"
    error = decode_failure(msgspec.json.encode(envelope))
    assert isinstance(error, PaymentError)
    assert error.metadata[LOST_FIELDS] == "amount"
    assert error.tried == 1


def test_a_field_that_was_never_set_is_no_loss() -> None:
    error = PaymentError.__new__(PaymentError)
    error.tried = 2
    restored = travelled(error)
    assert vars(restored)["tried"] == 2
    assert LOST_FIELDS not in restored.metadata


class BrokenError(TerminalError):
    metadata: Any = 5

    @property
    def message(self) -> str:  # type: ignore[override]
        raise RuntimeError("no message")


class FieldError(TerminalError):
    field: int
    own: int = 7


class UnreadableError(FieldError):
    @property
    def field(self) -> int:  # type: ignore[override]
        raise KeyError("no field")

    @property
    def code(self) -> int:  # type: ignore[override]
        raise KeyError("no code")


class UnsettableError(FieldError):
    @property
    def field(self) -> int:
        return 3

    @field.setter
    def field(self, value: int) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        raise KeyError("no field")


class DemandingError(TerminalError):
    def __new__(cls, *, seats: int) -> Self:
        return super().__new__(cls, seats)

    def __init__(self, *, seats: int) -> None:
        super().__init__(f"{seats} seats")


class RefusedError(TerminalError):
    """Says nothing of its own."""


class Number(int):
    """Of a class that no encoder knows."""


class Words(str):
    def __str__(self) -> str:
        raise KeyError("no text")


def test_the_strangest_error_travels_somehow() -> None:
    assert type(travelled(BrokenError.__new__(BrokenError))) is BrokenError
    assert isinstance(decode_failure(b"garbage"), TerminalError)
    error = travelled(UnreadableError("over"))
    assert type(error) is UnreadableError
    assert (error.message, error.metadata[LOST_FIELDS], error.own) == ("over", "field", 7)
    assert (code_of(error), message_of(error), metadata_of(error)) == (500, "over", {LOST_FIELDS: "field"})
    assert travelled(UnsettableError("over")).metadata[LOST_FIELDS] == "field"
    error = travelled(DemandingError(seats=2))
    assert (type(error), error.message) == (DemandingError, "2 seats")


@pytest.mark.parametrize(("code", "expected"), [(Number(409), 409), (HTTPStatus.CONFLICT, 409), (True, 1), ("4", 500)])
def test_whatever_the_code_is_the_class_and_the_message_travel(code: Any, expected: int) -> None:
    error = travelled(RefusedError(Words("over"), code=code))
    assert (type(error), error.code, error.message) == (RefusedError, expected, "over")


ItemT = TypeVar("ItemT")
OtherT = TypeVar("OtherT")


class MissingError(TerminalError, Generic[ItemT, OtherT]):
    item: ItemT
    more: list[ItemT | OtherT | None]
    plain: Annotated[int, []] = 0


class MissingAmountError(MissingError[OtherT, "Amount"], Generic[OtherT]):
    amount: OtherT


class MissingDateError(MissingAmountError[date]):
    """Says what the last variable stands for."""


def test_a_field_whose_type_a_subclass_says_arrives_as_of_that_type() -> None:
    error = MissingDateError("gone")
    error.item = error.amount = date(2026, 1, 2)
    error.more = [date(2026, 1, 3), Amount(Decimal(1), "EUR")]
    read = travelled(error)
    assert isinstance(read, MissingDateError)
    assert (read.item, read.amount, read.more) == (error.item, error.amount, error.more)


def test_the_text_of_an_error_travels_with_escapes_for_what_is_no_unicode_and_is_bounded() -> None:
    error = travelled(TerminalError("a \ud800 \xe4", metadata={"\udfff": "\udfff"}))
    assert (str(error), error.metadata) == ("a \\ud800 \xe4", {"\\udfff": "\\udfff"})
    long = travelled(TerminalError("x" * 1_000_000, metadata={"page": "y" * 1_000_000}))
    for text in (str(long), long.metadata["page"]):
        assert len(text) < 1.01 * TEXT_LIMIT_CHARACTERS
        assert text.endswith("x… (934,464 characters more were left out)".replace("x", text[0]))
    assert str(travelled(TerminalError("x" * TEXT_LIMIT_CHARACTERS))) == "x" * TEXT_LIMIT_CHARACTERS


@given(
    message=some.text(some.characters(exclude_categories=["Cs"]), min_size=1),
    code=some.integers(100, 599),
    metadata=some.dictionaries(some.text(some.characters(exclude_categories=["Cs"])), some.just("x")),
)
def test_every_plain_error_travels_unchanged(message: str, code: int, metadata: dict[str, str]) -> None:
    error = travelled(TerminalError(message, code=code, metadata=metadata))
    assert (str(error), error.code, error.metadata) == (message, code, metadata)


def test_a_terminal_error_is_itself() -> None:
    error = TerminalError("x")
    assert terminal(error) is error


@pytest.mark.parametrize(
    "error", [ValueError("x"), RetryableError("x"), MemoryError(), KeyboardInterrupt(), SystemExit()]
)
def test_anything_else_is_worth_another_attempt(error: BaseException) -> None:
    assert terminal(error) is None


def raised_from(*errors: Exception) -> Exception:
    """The first, raised from the second, and so on."""
    for error, cause in itertools.pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def test_wrapping_a_terminal_error_leaves_it_terminal() -> None:
    ends = TerminalError("y", code=409)
    assert terminal(raised_from(ValueError("x"), KeyError("x"), ends)) is ends
    assert terminal(ExceptionGroup("both", [raised_from(ValueError("x"), ends)])) is ends


def test_what_an_error_came_up_beside_does_not_make_it_terminal() -> None:
    error = ValueError("x")
    error.__context__ = TerminalError("y")
    assert terminal(error) is None


@pytest.mark.parametrize("error", [HandlerMistakeError("x"), RetryableError("x")])
def test_an_error_that_says_what_to_do_is_not_overruled_by_its_cause(error: Exception) -> None:
    assert terminal(raised_from(error, TerminalError("y"))) is None
    assert terminal(raised_from(ValueError("x"), error, TerminalError("y"))) is None


def test_a_ring_of_causes_ends() -> None:
    first, second = ValueError("x"), KeyError("y")
    first.__cause__, second.__cause__ = second, first
    assert terminal(first) is None


def test_the_delay_that_a_wrapped_error_asks_for_is_found() -> None:
    assert asked_delays(raised_from(ValueError("x"), RetryableError("y", retry_after=7))) == [7]
    assert asked_delays(ValueError("x")) == asked_delays(RetryableError("x")) == []


def test_the_delays_that_the_errors_of_a_group_ask_for_are_found() -> None:
    inner = ExceptionGroup("y", [raised_from(ValueError("x"), RetryableError("y", retry_after=7)), ValueError("z")])
    group = ExceptionGroup("x", [inner, RetryableError("y", retry_after=timedelta(minutes=1)), TerminalError("x")])
    assert asked_delays(group) == asked_delays(raised_from(OSError("w"), group)) == [7, timedelta(minutes=1)]


def test_a_timeout_that_leaves_the_handler_is_408() -> None:
    error = terminal(TimeoutError())
    assert error is not None
    assert error.code == 408


def test_a_cancellation_that_leaves_the_handler_is_409() -> None:
    class Both(CancelledInvocationError, asyncio.CancelledError):
        pass

    for one in (asyncio.CancelledError(), Both("Stop it."), CancelledInvocationError()):
        error = terminal(one)
        assert type(error) is CancelledInvocationError
        assert error.code == 409
    assert str(terminal(Both("Stop it."))) == "Stop it."


def test_a_group_of_terminal_errors_is_the_first_one_with_the_rest_as_metadata() -> None:
    first = PaymentError(Amount(Decimal(1), "EUR"), 1)
    group = ExceptionGroup("x", [ExceptionGroup("y", [first]), DeadlockError("Round."), TimeoutError()])
    error = terminal(group)
    assert isinstance(error, PaymentError)
    assert error.code == 402
    assert error.metadata["also_1"] == "DeadlockError (508): Round."
    assert "408" in error.metadata["also_2"]
    assert first.metadata == {}


def test_a_group_with_one_other_error_is_not_terminal() -> None:
    assert terminal(ExceptionGroup("x", [TerminalError("a"), ExceptionGroup("y", [ValueError()])])) is None
