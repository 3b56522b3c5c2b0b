from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import AsyncMock

import pytest

from durably.actors import BytesSerde, Context, RetryPolicy, Service, handler
from durably.actors.protocol.commands import Run
from durably.errors import UnencodableError
from durably.testing import Harness
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
    assert action.runs_on_loop
    assert action.encode(finished(action.invoke())) == b'{"number":3}'
    assert port.sites[0].filename == __file__


def test_a_plain_function_runs_in_a_thread() -> None:
    port = answered(b'{"number":-3}')
    assert finished(object_context(port).run("refund", Payments().refund, 3)) == Receipt(-3)
    assert not port.actions[0].runs_on_loop
    assert port.actions[0].invoke() == Receipt(-3)


def test_partials_and_callable_objects_are_looked_through() -> None:
    port = answered(b'{"number":1}', b"1", b"2")
    ctx = object_context(port)
    assert finished(ctx.run("a", functools.partial(Payments().charge, "k"), 1)) == Receipt(1)
    assert finished(ctx.run("b", Payments())) == 1
    assert finished(ctx.run("c", int, "2")) == 2
    assert [action.runs_on_loop for action in port.actions] == [True, True, False]


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


async def charged(number: int) -> Receipt:
    return Receipt(number)


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)

    return call


def says_awaitable(number: int) -> Awaitable[Receipt]:
    return charged(number)


def says_future(number: int) -> asyncio.Future[Receipt]:
    return asyncio.ensure_future(charged(number))


def unannotated(number: int):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return charged(number)


class Charger:
    async def method(self, number: int) -> Receipt:
        return Receipt(number)

    def says_coroutine(self, number: int) -> Coroutine[Any, Any, Receipt]:
        return charged(number)

    def __call__(self, number: int) -> Awaitable[Receipt]:
        return charged(number)


class AsyncCharger:
    async def __call__(self, number: int) -> Receipt:
        return Receipt(number)


ON_THE_LOOP: list[Callable[..., Any]] = [
    charged,
    Charger().method,
    AsyncCharger(),
    functools.partial(charged),
    functools.partial(functools.partial(AsyncCharger())),
    functools.partial(Charger().method),
    says_awaitable,
    says_future,
    Charger().says_coroutine,
    Charger(),
    functools.partial(says_awaitable),
    AsyncMock(return_value=Receipt(7)),
]
FROM_A_THREAD: list[Callable[..., Any]] = [wrapped(charged), unannotated]


@pytest.mark.parametrize("action", [*ON_THE_LOOP, *FROM_A_THREAD])
async def test_whatever_gives_an_awaitable_is_awaited(action: Callable[..., Any]) -> None:
    class Shop(Service):
        @handler
        async def buy(self, ctx: Context) -> int:
            receipt: Receipt | dict[str, int] = await ctx.run("charge", action, 7)
            return receipt.number if isinstance(receipt, Receipt) else receipt["number"]

    async with Harness(Shop) as app:
        assert await app.service(Shop).buy() == 7


@pytest.mark.parametrize("action", ON_THE_LOOP)
def test_what_says_that_it_is_awaitable_is_called_on_the_loop(action: Callable[..., Any]) -> None:
    port = answered()
    issue(object_context(port).run("charge", action, 7))
    assert port.actions[0].runs_on_loop


@pytest.mark.parametrize("action", ON_THE_LOOP[:-1])
def test_the_result_of_an_awaitable_is_of_the_type_that_it_ends_with(action: Callable[..., Any]) -> None:
    port = answered(b'{"number":3}')
    assert finished(object_context(port).run("charge", action, 7)) == Receipt(3)


def test_an_action_answers_once() -> None:
    async def many() -> AsyncIterator[int]:
        yield 1

    def plain() -> Iterator[int]:
        yield 1

    for action in (many, plain):
        with pytest.raises(TypeError, match=r"'x' contains `yield`, and an action answers once\. Return a list"):
            issue(object_context(answered()).run("x", cast("Any", action)))


def test_a_serde_takes_what_no_annotation_could() -> None:
    def opaque() -> Awaitable[Opaque]:
        raise NotImplementedError

    port = answered(b"raw")
    run = object_context(port).run.options(serde=BytesSerde())
    assert finished(run("x", cast("Any", opaque))) == b"raw"
    assert port.actions[0].runs_on_loop


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
