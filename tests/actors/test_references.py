from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from durably.actors import (
    Context,
    Invocation,
    ObjectContext,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.caller import Caller
from durably.actors.definition.binding import bind
from durably.actors.protocol.operations import CallSite, Operation
from durably.actors.transport import Delay, Outgoing
from durably.errors import HandlerMistakeError, InvalidKeyError, UnencodableError
from durably.ids import InvocationStatus
from tests.actors.port import FakePort, issue

R = TypeVar("R")


class Cart(VirtualObject, name="CartObject"):
    LIMIT = 3
    tickets: list[str] = state(default=[])

    @handler(name="addTicket")
    async def add_ticket(self, ctx: ObjectContext, ticket: str, count: int = 1) -> bool:
        return True

    @shared
    async def peek(self, ctx: SharedContext) -> list[str]:
        return self.tickets

    def total(self) -> int:
        return len(self.tickets)

    @property
    def empty(self) -> bool:
        return not self.tickets


class Checkout(Service):
    @handler
    async def handle(self, ctx: Context, user: str) -> None: ...


class RecordingCaller(Caller):
    """Keeps what it was asked to carry."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.close()
        self.asked: list[tuple[str, Any, Any]] = []
        self.site: CallSite | None = None

    def _operation(self, what: str, site: CallSite, first: Any, second: Any = None) -> Operation[Any]:
        self.asked.append((what, first, second))
        self.site = site
        return Operation(loop=self.loop, what=what, site=site)

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> Operation[R]:
        return self._operation("call", site, outgoing)

    def _issue_send(self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /) -> Operation[Invocation[R]]:
        return self._operation("send", site, outgoing, delay)

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> Operation[R]:
        return self._operation("attach", site, outgoing)

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> Operation[R]:
        return self._operation("result", site, id, decode)

    def _issue_status(self, id: str, site: CallSite, /) -> Operation[InvocationStatus]:
        return self._operation("status", site, id)


@pytest.fixture
def caller() -> RecordingCaller:
    return RecordingCaller()


def line_of_call(caller: RecordingCaller) -> str:
    assert caller.site is not None
    with open(caller.site.filename) as source:
        return source.read().splitlines()[caller.site.line - 1]


def test_a_call_is_a_message(caller: RecordingCaller) -> None:
    issue(caller.object(Cart, "mary").add_ticket("2B"))
    assert "caller.object(Cart" in line_of_call(caller)
    ((what, outgoing, _),) = caller.asked
    assert what == "call"
    assert (outgoing.service, outgoing.key, outgoing.handler) == ("CartObject", "mary", "addTicket")
    assert (outgoing.argument, outgoing.headers, outgoing.idempotency_key) == (b'{"ticket":"2B"}', {}, None)
    assert outgoing.decode(b"true") is True
    assert not outgoing.wire
    assert str(outgoing) == "CartObject/addTicket"


def test_a_service_has_no_key(caller: RecordingCaller) -> None:
    issue(caller.service(Checkout).handle("mary"))
    assert caller.asked[0][1].key is None


def test_what_a_call_returns_knows_where_it_was_made_and_is_no_truth(caller: RecordingCaller) -> None:
    operation = caller.object(Cart, "mary").peek()
    with pytest.raises(TypeError, match=r"(?s)call was tested for truth.*test_references\.py"):
        bool(operation)


def test_options_stay_until_they_are_changed(caller: RecordingCaller) -> None:
    plain = caller.object(Cart, "mary").add_ticket
    keyed = plain.options(idempotency_key="k", timeout=5)
    issue(keyed.options(headers={"X-Trace": "1"}).options(timeout=timedelta(seconds=1)).send("2B", 3))
    issue(plain("2B"))
    sent, called = caller.asked[0][1], caller.asked[1][1]
    assert (sent.idempotency_key, sent.timeout_us, sent.headers) == ("k", 1_000_000, {"x-trace": "1"})
    assert sent.argument == b'{"ticket":"2B","count":3}'
    assert (called.idempotency_key, called.timeout_us, called.headers) == (None, None, {})


def test_a_message_may_be_delayed(caller: RecordingCaller) -> None:
    add = caller.object(Cart, "mary").add_ticket
    issue(add.after(minutes=15).send("a"))
    issue(add.after(1.5).send("a"))
    issue(add.after(timedelta(0)).send("a"))
    issue(add.at(datetime(1970, 1, 2, tzinfo=UTC)).send("a"))
    issue(add.send("a"))
    assert [delay for _, _, delay in caller.asked] == [
        Delay(after_us=900_000_000),
        Delay(after_us=1_500_000),
        Delay(after_us=0),
        Delay(at_us=86_400_000_000),
        None,
    ]


def test_options_may_come_before_or_after_the_delay(caller: RecordingCaller) -> None:
    add = caller.object(Cart, "mary").add_ticket
    issue(add.options(idempotency_key="k", timeout=5, headers={"a": "b"}).after(minutes=15).send("a"))
    issue(add.after(minutes=15).options(idempotency_key="k", timeout=5).options(headers={"a": "b"}).send("a"))
    (before, after) = [
        (outgoing.idempotency_key, outgoing.timeout_us, outgoing.headers, delay) for _, outgoing, delay in caller.asked
    ]
    assert before == after == ("k", 5_000_000, {"a": "b"}, Delay(after_us=900_000_000))


def test_a_delayed_handler_cannot_be_called(caller: RecordingCaller) -> None:
    delayed: Any = caller.object(Cart, "mary").add_ticket.after(5)
    with pytest.raises(TypeError, match=r"CartObject/mary/addTicket .* Put \.send before the arguments"):
        delayed("a")


def test_attaching_needs_to_know_to_what(caller: RecordingCaller) -> None:
    with pytest.raises(TypeError, match=r"options\(idempotency_key=\.\.\.\)\.attach\(\)"):
        issue(caller.object(Cart, "mary").peek.attach())
    issue(caller.object(Cart, "mary").peek.options(idempotency_key="k").attach())
    assert caller.asked[0][1].idempotency_key == "k"


def test_an_invocation_is_a_handle(caller: RecordingCaller) -> None:
    invocation = caller.invocation("inv_1", list[int])
    issue(invocation.result())
    assert "invocation.result()" in line_of_call(caller)
    issue(invocation.status())
    assert [(what, id) for what, id, _ in caller.asked] == [
        ("result", "inv_1"),
        ("status", "inv_1"),
    ]
    assert caller.asked[0][2](b"[1]") == [1]
    assert repr(invocation) == "<invocation inv_1>"
    issue(caller.invocation("inv_2").result())
    assert caller.asked[2][2](b'{"a":[1]}') == {"a": [1]}


def test_by_name_bytes_pass_as_they_are(caller: RecordingCaller) -> None:
    issue(caller.call("CartObject", "addTicket", b'"2B"', key="mary", headers={"A": "b"}, idempotency_key="k"))
    issue(caller.send("Checkout", "handle", after=timedelta(seconds=2)))
    issue(caller.send("Checkout", "handle"))
    (_, called, _), (_, sent, delay), (_, _, none) = caller.asked
    assert (called.service, called.key, called.handler, called.argument) == ("CartObject", "mary", "addTicket", b'"2B"')
    assert (called.wire, called.headers, called.idempotency_key) == (True, {"a": "b"}, "k")
    assert called.decode(b"raw") == b"raw"
    assert (sent.key, sent.argument, delay, none) == (None, b"", Delay(after_us=2_000_000), None)


def test_wrong_arguments_raise_before_anything_is_asked(caller: RecordingCaller) -> None:
    cart: Any = caller.object(Cart, "mary")
    with pytest.raises(TypeError, match="missing a required argument: 'ticket'"):
        cart.add_ticket()
    with pytest.raises(UnencodableError, match="The argument 'count' of handler 'addTicket'"):
        cart.add_ticket("a", "b")
    with pytest.raises(TypeError, match="Headers are Unicode text"):
        cart.peek.options(headers={"a": 1})
    with pytest.raises(TypeError, match="An idempotency key is Unicode text"):
        cart.peek.options(idempotency_key="")
    anything: Any = "text"
    with pytest.raises(TypeError, match="body of a message by name is bytes"):
        issue(caller.call("A", "b", anything))
    assert caller.asked == []


@pytest.mark.parametrize("key", ["", None, 5])
def test_a_key_is_a_string_that_is_not_empty(caller: RecordingCaller, key: Any) -> None:
    with pytest.raises(TypeError, match="The key of CartObject is a string that is not empty"):
        caller.object(Cart, key)


def test_an_empty_key_is_an_error_400_as_other_keys_that_no_store_can_keep(caller: RecordingCaller) -> None:
    with pytest.raises(InvalidKeyError) as refused:
        caller.object(Cart, "")
    assert refused.value.code == 400


def test_the_wrong_kind_of_class_is_named(caller: RecordingCaller) -> None:
    anything: Any = caller
    with pytest.raises(TypeError, match=r"Cart is a VirtualObject, and each has a key. Write object\(Cart, key\)"):
        anything.service(Cart)
    with pytest.raises(TypeError, match=r"Checkout is a Service, and has no key. Write service\(Checkout\)"):
        anything.object(Checkout, "k")
    with pytest.raises(TypeError, match="not a class of actors"):
        anything.object(int, "k")


def test_a_reference_has_handlers_and_nothing_else_of_the_object(caller: RecordingCaller) -> None:
    cart: Any = caller.object(Cart, "mary")
    assert isinstance(cart, Cart)
    assert (cart.key, cart.LIMIT, repr(cart)) == ("mary", 3, "<reference to CartObject/mary>")
    assert repr(cart.peek) == "<handler CartObject/mary/peek>"
    with pytest.raises(AttributeError, match=r"'tickets' is state of <reference .* Its handlers: add_ticket, peek\."):
        _ = cart.tickets
    for name in ("total", "empty", "unknown"):
        with pytest.raises(AttributeError, match=f"has no handler '{name}'. Its handlers: add_ticket, peek"):
            getattr(cart, name)
    with pytest.raises(AttributeError, match="Let one of its handlers do it"):
        cart.tickets = []


def test_references_are_equal_where_they_lead_to_the_same(caller: RecordingCaller) -> None:
    assert caller.object(Cart, "mary") == caller.object(Cart, "mary")
    assert caller.object(Cart, "mary") != caller.object(Cart, "joe")
    assert len({caller.object(Cart, "mary"), caller.object(Cart, "mary")}) == 1


def test_a_contract_is_called_by_its_name(caller: RecordingCaller) -> None:
    class Contract(VirtualObject, name="Cart2", abstract=True):
        @handler
        async def run(self, ctx: ObjectContext) -> int:
            raise NotImplementedError

    class Mixin(VirtualObject, abstract=True):
        @handler
        async def run(self, ctx: ObjectContext) -> int:
            raise NotImplementedError

    issue(caller.object(Contract, "k").run())
    assert caller.asked[0][1].service == "Cart2"
    with pytest.raises(TypeError, match="Mixin is abstract and has no name"):
        caller.object(Mixin, "k")


def test_an_inherited_class_has_references_of_its_own(caller: RecordingCaller) -> None:
    class Bigger(Cart):
        @handler
        async def more(self, ctx: ObjectContext) -> int:
            return 1

    issue(caller.object(Cart, "k").peek())
    issue(caller.object(Bigger, "k").more())
    issue(caller.object(Bigger, "k").peek())
    assert [outgoing.service for _, outgoing, _ in caller.asked] == ["CartObject", "Bigger", "Bigger"]


def test_a_handler_is_not_called_on_self() -> None:
    cart = bind(Cart, {}).instance("mary", FakePort(), writable=True)
    assert isinstance(cart, Cart)
    with pytest.raises(HandlerMistakeError, match=r"`await ctx\.object\(Cart, self\.key\)\.peek\(\.\.\.\)`"):
        issue(cart.peek())
    checkout = bind(Checkout, {}).instance("", FakePort(), writable=True)
    assert isinstance(checkout, Checkout)
    with pytest.raises(HandlerMistakeError, match=r"`await ctx\.service\(Checkout\)\.handle\(\.\.\.\)`"):
        issue(checkout.handle("mary"))


def test_the_class_gives_the_definition() -> None:
    assert repr(Cart.add_ticket) == "<handler Cart.add_ticket>"
    assert Cart.add_ticket.name == "addTicket"
