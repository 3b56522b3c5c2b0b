from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from durably.actors import BytesSerde, RetryPolicy
from durably.actors.protocol.commands import Run
from durably.errors import UnencodableError
from tests.actors.port import FakePort, finished, issue
from tests.actors.test_context import object_context

if TYPE_CHECKING:
    from collections.abc import Sized as OnlyForTypeCheckers


@dataclass
class Receipt:
    number: int


class Payments:
    async def charge(self, key: str, amount: int, *, currency: str = "EUR") -> Receipt:
        return Receipt(amount)

    def refund(self, amount: int) -> Receipt:
        return Receipt(-amount)

    async def __call__(self) -> int:
        return 1


class Opaque:
    pass


def answered(*actions: bytes) -> FakePort:
    port = FakePort()
    port.answers = dict(enumerate(actions))
    return port


def test_an_action_is_called_with_its_arguments() -> None:
    port = answered(b'{"number":3}')
    receipt = finished(object_context(port).run("charge", Payments().charge, "k", 3, currency="USD"))
    assert receipt == Receipt(3)
    assert port.commands == [Run("charge")]
    (action,) = port.actions
    assert action.is_coroutine_function
    assert action.encode(finished(action.invoke())) == b'{"number":3}'
    assert port.sites[0].filename == __file__


def test_a_plain_function_runs_in_a_thread() -> None:
    port = answered(b'{"number":-3}')
    assert finished(object_context(port).run("refund", Payments().refund, 3)) == Receipt(-3)
    assert not port.actions[0].is_coroutine_function
    assert port.actions[0].invoke() == Receipt(-3)


def test_partials_and_callable_objects_are_looked_through() -> None:
    port = answered(b'{"number":1}', b"1", b"2")
    ctx = object_context(port)
    assert finished(ctx.run("a", functools.partial(Payments().charge, "k"), 1)) == Receipt(1)
    assert finished(ctx.run("b", Payments())) == 1
    assert finished(ctx.run("c", int, "2")) == 2
    assert [action.is_coroutine_function for action in port.actions] == [True, True, False]


def test_a_class_as_an_action_gives_its_instance() -> None:
    port = answered(b'{"number":1}')
    assert finished(object_context(port).run("make", Receipt, 1)) == Receipt(1)
    assert port.actions[0].encode(port.actions[0].invoke()) == b'{"number":1}'


def test_an_action_without_annotation_gives_plain_json() -> None:
    port = answered(b'{"a":[1]}')
    assert finished(object_context(port).run("lambda", lambda: {"a": [1]})) == {"a": [1]}
    assert port.actions[0].encode({"a": (1,)}) == b'{"a":[1]}'


def test_a_class_of_the_calling_function_is_found() -> None:
    @dataclass
    class Local:
        number: int

    def make() -> Local:
        return Local(1)

    assert finished(object_context(answered(b'{"number":2}')).run("make", make)) == Local(2)


def test_options_come_before_the_call() -> None:
    port = answered(b"raw", b"1")
    ctx = object_context(port)
    policy = RetryPolicy(max_attempts=3)
    run = ctx.run.options(retry=policy).options(timeout=2, serde=BytesSerde())
    assert finished(run("raw", lambda: b"raw")) == b"raw"
    assert finished(ctx.run("plain", lambda: 1)) == 1
    first, second = port.actions
    assert (first.retry, first.timeout_us, first.encode(b"x")) == (policy, 2_000_000, b"x")
    assert (second.retry, second.timeout_us) == (None, None)


def test_a_result_of_another_type_is_named() -> None:
    port = answered()
    issue(object_context(port).run("refund", Payments().refund, 3))
    with pytest.raises(UnencodableError, match="The result of run 'refund' cannot be journaled"):
        port.actions[0].encode(object())


def test_a_result_that_cannot_be_journaled_is_found_before_the_action_runs() -> None:
    def opaque() -> Opaque:
        return Opaque()

    def hidden() -> OnlyForTypeCheckers:
        return []

    port = answered()
    with pytest.raises(UnencodableError, match="so it was not run: Opaque cannot be stored"):
        issue(object_context(port).run("opaque", opaque))
    with pytest.raises(UnencodableError, match="import it at run time too"):
        issue(object_context(port).run("hidden", hidden))
    assert port.commands == []


def test_a_lambda_around_a_coroutine_is_told_what_to_write() -> None:
    port = answered()
    issue(object_context(port).run("charge", lambda: Payments().charge("k", 1)))
    (action,) = port.actions
    with pytest.raises(UnencodableError, match=r"Give ctx\.run the coroutine function itself"):
        action.encode(action.invoke())


def test_what_is_no_function_is_told_what_to_write() -> None:
    run = cast("Any", object_context(answered()).run)
    with pytest.raises(TypeError, match=r"was given a coroutine\. Give it the function and its arguments"):
        run("charge", Payments().charge("k", 1))
    with pytest.raises(TypeError, match="takes a function and its arguments, not 5"):
        run("five", 5)


def test_a_run_without_a_name_or_without_a_function_is_told_what_to_write() -> None:
    run = cast("Any", object_context(answered()).run)
    for given in ((Payments().charge,), (Payments().charge, "k", 1)):
        with pytest.raises(TypeError, match=r'Write ctx\.run\("charge", charge, \.\.\.\): the name first'):
            run(*given)
    with pytest.raises(TypeError, match=r'Write ctx\.run\("function", function, \.\.\.\)'):
        run(lambda: 5)
    with pytest.raises(TypeError, match=r"ctx\.run\('charge'\) does not say what to run"):
        run("charge")
