from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from durably.actors import Context, ObjectContext, SharedContext, VirtualObject, handler, state
from durably.actors.context import HandlerInfo, Request, make_context
from durably.actors.definition.binding import bind
from durably.actors.protocol.commands import Attach, Call, GetStatus, Send, Sleep, StatusAnswer
from durably.actors.values.msgpack_serde import MsgpackSerde
from durably.actors.values.serde import BytesSerde, JsonSerde, Serde
from durably.errors import SharedStateError, UndecodableError, UnencodableError, WrongContextError
from durably.ids import InvocationStatus
from tests.actors.port import FakePort, finished, issue


class Cart(VirtualObject):
    tickets: list[str] = state(default=[])

    @handler
    async def add(self, ctx: ObjectContext, ticket: str) -> bool:
        return True


BOUND = bind(Cart, {})
INFO = BOUND.handlers["add"].info
REQUEST = Request(id="inv_1", headers={"a": "b"}, body=b"{}", idempotency_key=None, deadline=None, attempt=1)


def object_context(port: FakePort) -> ObjectContext:
    made = make_context("exclusive", port, INFO, "mary")
    assert isinstance(made, ObjectContext)
    return made


def test_each_kind_of_handler_has_its_context() -> None:
    port = FakePort()
    assert type(make_context("service", port, INFO, "x")) is Context
    shared = make_context("shared", port, INFO, "mary")
    assert type(shared) is SharedContext
    assert shared.key == "mary"
    with pytest.raises(SharedStateError, match=r"ctx\.set was used in a shared handler"):
        _ = shared.set  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType, reportUnknownVariableType]
    with pytest.raises(AttributeError):
        shared.note = 1  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert (shared.request, shared.handler) == (REQUEST, INFO)
    assert isinstance(shared.handler, HandlerInfo)


def test_time_chance_and_ids_come_from_the_execution() -> None:
    ctx = object_context(FakePort())
    assert ctx.now() == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert ctx.random().random() == ctx.random().random()
    assert isinstance(ctx.uuid(), UUID)
    assert ctx.uuid().version == 4


def test_a_sleep_ends_at_a_time() -> None:
    port = FakePort()
    port.answers[0] = b""
    assert finished(object_context(port).sleep(timedelta(seconds=2))) is None
    issue(object_context(port).sleep(minutes=5, seconds=1))
    issue(object_context(port).sleep(0.5))
    assert port.commands == [Sleep(port.now + wait_us) for wait_us in (2_000_000, 301_000_000, 500_000)]
    with pytest.raises(ValueError, match=r"The delay of sleep\(\.\.\.\) cannot be negative"):
        issue(object_context(port).sleep(-1))
    wrong: Any = object_context(port)
    with pytest.raises(TypeError, match="one duration or named parts"):
        issue(wrong.sleep(5, minutes=1))


def test_calls_and_sends_are_commands() -> None:
    port = FakePort()
    port.answers[0] = b"true"
    ctx = object_context(port)
    cart = ctx.object(Cart, "joe")
    assert finished(cart.add.options(idempotency_key="k", headers={"a": "b"}, timeout=1)("2B")) is True
    sent = finished(cart.add.after(2).send("2B"))
    assert sent.id == "inv_callee1"
    finished(cart.add.at(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)).send("2B"))
    finished(cart.add.send("2B"))
    issue(ctx.call("Any", "thing", b"raw", key="k"))
    assert port.commands == [
        Call("Cart", "joe", "add", b'{"ticket":"2B"}', {"a": "b"}, "k", 1_000_000),
        Send("Cart", "joe", "add", b'{"ticket":"2B"}', {}, None, None, port.now + 2_000_000),
        Send("Cart", "joe", "add", b'{"ticket":"2B"}', {}, None, None, 1_000_000),
        Send("Cart", "joe", "add", b'{"ticket":"2B"}', {}, None, None, None),
        Call("Any", "k", "thing", b"raw", {}, None, None, wire=True),
    ]
    assert [str(what) for what in port.whats[:2]] == ["Cart/add", "send to Cart/add"]
    assert all(site.filename == __file__ for site in port.sites)


def test_what_was_sent_can_be_asked_for() -> None:
    port = FakePort()
    port.answers = {1: b"true", 2: b'{"status":"running"}', 3: b"false"}
    ctx = object_context(port)
    sent = finished(ctx.object(Cart, "joe").add.send("2B"))
    assert finished(sent.result()) is True
    assert finished(sent.status()) is InvocationStatus.RUNNING
    assert finished(ctx.object(Cart, "joe").add.options(idempotency_key="k").attach()) is False
    assert port.commands[1:] == [
        Attach("inv_callee0"),
        GetStatus("inv_callee0"),
        Attach(None, "Cart", "joe", "add", "k"),
    ]
    assert StatusAnswer(InvocationStatus.RUNNING).status == "running"


def test_log_lines_go_through_the_port() -> None:
    port = FakePort()
    log = object_context(port).log
    log.debug("a")
    log.info("b", seat="2B")
    log.warning("c")
    log.error("d")
    assert port.lines == [("debug", "a", {}), ("info", "b", {"seat": "2B"}), ("warning", "c", {}), ("error", "d", {})]


def test_state_by_name_tells_what_is_missing_from_a_stored_null() -> None:
    ctx = object_context(FakePort({"null": b"null", "n": b"3"}))
    assert ctx.get("n", int) == 3
    assert ctx.get("missing", int) is None
    assert ctx.get("missing", int, 7) == 7
    assert ctx.get("null", int, 7) is None
    assert ctx.get("null", int) is None
    assert ctx.keys() == ["n", "null"]


def test_state_by_name_is_written_and_cleared() -> None:
    port = FakePort({"a": b"1"})
    ctx = object_context(port)
    ctx.set("b", {"x": [1]})
    ctx.set("none", None)
    ctx.clear("a")
    assert port.state == {"b": b'{"x":[1]}', "none": b"null"}
    ctx.clear_all()
    assert port.state == {}


def test_state_by_name_that_does_not_fit_is_named() -> None:
    ctx = object_context(FakePort({"a": b'"x"'}))
    with pytest.raises(UndecodableError, match="The stored value of 'a': Expected int"):
        ctx.get("a", int)
    with pytest.raises(UnencodableError, match="The state 'b' cannot be given this value"):
        ctx.set("b", object())


def both(port: FakePort) -> tuple[Cart, ObjectContext]:
    """`self` and `ctx` of one attempt."""
    instance = BOUND.instance("mary", port, writable=True)
    ctx = BOUND.handlers["add"].context(instance, port, "mary")
    assert isinstance(instance, Cart)
    assert isinstance(ctx, ObjectContext)
    return instance, ctx


def test_what_changed_in_place_is_seen_by_name() -> None:
    cart, ctx = both(FakePort())
    cart.tickets.append("2B")
    assert ctx.get("tickets", list[str]) == ["2B"]
    assert ctx.keys() == ["tickets"]


def test_what_changed_by_name_is_seen_in_the_field() -> None:
    port = FakePort()
    cart, ctx = both(port)
    cart.tickets.append("2B")
    ctx.set("tickets", ["3C"])
    assert cart.tickets == ["3C"]
    cart.tickets.append("4D")
    ctx.clear("tickets")
    assert cart.tickets == []
    cart.tickets.append("5E")
    ctx.clear_all()
    assert cart.tickets == []
    assert port.flushed() == {}


@pytest.mark.parametrize(
    ("value", "serde"),
    [
        ("2B", None), ([2], None), ({"2B"}, None), (None, None), ([float("nan")], None),
        ("2B", JsonSerde(str)), (b"\xff", BytesSerde()), (["2B"], MsgpackSerde()),
    ],
)  # fmt: skip
def test_what_a_declared_field_could_not_read_again_is_not_written_by_name(
    value: Any, serde: Serde[Any] | None
) -> None:
    port = FakePort()
    cart, ctx = both(port)
    cart.tickets = ["1A"]
    with pytest.raises(UnencodableError, match="The state 'tickets' cannot be given this value"):
        ctx.set("tickets", value, serde=serde)
    assert cart.tickets == ["1A"]
    ctx.set("tickets", ["3C"], serde=serde and JsonSerde())
    assert cart.tickets == ["3C"]


def test_what_is_changed_by_name_wins_over_a_value_taken_before() -> None:
    port = FakePort()
    cart, ctx = both(port)
    changes: list[Callable[[], None]] = [
        lambda: ctx.set("tickets", ["3C"]),
        lambda: ctx.clear("tickets"),
        ctx.clear_all,
    ]
    for change in changes:
        taken = cart.tickets
        change()
        taken.append("2B")
        assert port.flushed() == {}


USES: dict[str, Callable[[ObjectContext], Any]] = {
    "now": lambda ctx: ctx.now(),
    "random": lambda ctx: ctx.random(),
    "uuid": lambda ctx: ctx.uuid(),
    "sleep": lambda ctx: ctx.sleep(1),
    "call": lambda ctx: ctx.object(Cart, "k").add("x"),
    "send": lambda ctx: ctx.object(Cart, "k").add.send("x"),
    "delayed": lambda ctx: ctx.object(Cart, "k").add.after(1).send("x"),
    "attach": lambda ctx: ctx.object(Cart, "k").add.options(idempotency_key="k").attach(),
    "result": lambda ctx: ctx.invocation("inv_1", int).result(),
    "status": lambda ctx: ctx.invocation("inv_1", int).status(),
    "run": lambda ctx: ctx.run("x", int),
    "get": lambda ctx: ctx.get("x", int),
    "keys": lambda ctx: ctx.keys(),
    "set": lambda ctx: ctx.set("x", 1),
    "clear": lambda ctx: ctx.clear("x"),
    "clear_all": lambda ctx: ctx.clear_all(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_a_context_is_refused_outside_its_handler(use: Callable[[ObjectContext], Any]) -> None:
    port = FakePort()
    ctx = object_context(port)
    port.closed = True
    with pytest.raises(WrongContextError):
        use(ctx)
    assert port.commands == []
