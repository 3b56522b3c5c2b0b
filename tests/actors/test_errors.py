from __future__ import annotations

import copy
import gc
import pickle
from dataclasses import dataclass

import durably.errors
from durably.errors import (
    DeadlockError,
    DurablyError,
    HandlerMistakeError,
    PausedInvocationError,
    TerminalError,
    known_error_class,
)


@dataclass(eq=False)
class OutOfStock(TerminalError):
    sku: str
    left: int


@dataclass(eq=False)
class SoldOut(TerminalError):
    """Nothing is left of it."""

    message: str
    code: int = 410


class Silent(TerminalError):
    def __init__(self, reason: int) -> None:
        self.reason = reason


def test_the_message_of_an_error_that_is_given_none_is_the_first_line_of_its_docstring() -> None:
    assert str(DeadlockError()) == "The call would wait for itself: it closes a cycle of exclusive handlers."
    assert DeadlockError().message == str(DeadlockError())


def test_a_class_without_a_docstring_is_named() -> None:
    assert str(Silent(3)) == "Silent"


def test_a_message_that_is_given_wins() -> None:
    error = TerminalError("No such seat.", code=404, metadata={"seat": "2B"})
    assert (str(error), error.code, error.metadata) == ("No such seat.", 404, {"seat": "2B"})


def test_an_empty_message_is_given_too() -> None:
    for error in (TerminalError(""), DeadlockError(""), DurablyError("")):
        assert (str(error), error.message) == ("", "")
        assert copy.copy(error).message == ""
        assert pickle.loads(pickle.dumps(type(error)())).message == type(error)().message


def test_a_dataclass_needs_no_call_of_our_constructor() -> None:
    error = OutOfStock("a", 3)
    assert str(error) == "OutOfStock(sku='a', left=3)"
    assert (error.code, error.metadata) == (500, {})


def test_a_dataclass_may_have_message_and_code_as_fields() -> None:
    error = SoldOut("None are left.")
    assert (str(error), error.code) == ("None are left.", 410)


def test_an_unknown_attribute_is_still_unknown() -> None:
    assert not hasattr(TerminalError(), "sku")
    assert not hasattr(DurablyError(), "metadata")


def test_every_error_of_the_file_stands_in_its_tree() -> None:
    tree = durably.errors.__doc__ or ""
    classes = [one for one in vars(durably.errors).values() if isinstance(one, type) and issubclass(one, DurablyError)]
    assert len(classes) > 20
    for cls in classes:
        assert cls.__name__ in tree
        assert cls.__doc__ is not None
        assert cls.__doc__.partition("\n")[0].strip().endswith(".")


def test_a_mistake_is_no_terminal_error() -> None:
    assert not issubclass(HandlerMistakeError, TerminalError)


def test_a_paused_invocation_is_named_with_its_reason() -> None:
    error = PausedInvocationError("inv_1", "It asked for another command than recorded.")
    assert "inv_1" in str(error)
    assert "another command" in str(error)


def test_classes_are_found_by_name_as_long_as_they_exist() -> None:
    def define() -> str:
        class Local(TerminalError):
            pass

        name = f"{Local.__module__}.{Local.__qualname__}"
        assert known_error_class(name) is Local
        return name

    name = define()
    gc.collect()
    assert known_error_class(name) is None
    assert known_error_class(f"{__name__}.OutOfStock") is OutOfStock
