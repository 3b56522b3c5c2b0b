"""Each transition of a machine is a rule, made from its declaration; a history that it does not allow is found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from durably import TerminalError
from durably.errors import DefinitionError
from durably.models import Applied, Transition
from durably.testing import Harness, InvariantError
from durably.testing.generation import ActorCall, arguments, calls
from durably.testing.generation.stateful import ActorStateMachine
from durably.testing.generation.transitions import check_history
from tests.models.shop import Carrier, Created, DeliveryBooked, Heard, Order, Orders


class OrderMachine(ActorStateMachine):
    """Orders, as the test of consumers has them."""

    actors = (Orders,)
    overrides = {Orders.create: {"amount": st.integers(0, 2)}, str: st.just("ref")}  # noqa: RUF012
    leave_out = (Orders.book_delivery,)
    """The consumer's: another caller would let it fail for good, which these programs find in no time."""
    answers: dict[str, set[type[Any]]] = {}  # noqa: RUF012
    """What each transition has been answered with, over all programs."""

    def dependencies(self) -> Mapping[Any, Any]:
        return {Carrier: Carrier(), Heard: Heard()}

    def answered(self, call: ActorCall, answer: Any) -> None:
        self.answers.setdefault(call.handler, set()).add(answer.__class__)


class SlyMachine(OrderMachine):
    """Somebody says that an order may be paid for nothing."""

    def answered(self, call: ActorCall, answer: Any) -> None:
        assert call.handler != "raise_price" or isinstance(answer, TerminalError)


def run(machine: type[ActorStateMachine], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            derandomize=True,
            database=None,
            deadline=None,
            max_examples=examples,
            stateful_step_count=8,
            phases=[Phase.generate],
        ),
    )


def test_each_transition_is_a_rule_with_the_arguments_of_its_declaration() -> None:
    rules = {name for name in vars(OrderMachine) if name.startswith("Orders_")}
    assert rules == {f"Orders_{one}" for one in ("create", "pay", "raise_price")}
    OrderMachine.answers.clear()
    run(OrderMachine, 15)
    assert all(Applied in OrderMachine.answers[one] for one in ("create", "pay", "raise_price"))
    assert TerminalError in OrderMachine.answers["create"], "an amount of 0 is refused"


def test_a_wrong_expectation_is_told_as_a_program() -> None:
    with pytest.raises(AssertionError) as found:
        run(SlyMachine, 20)
    told = "\n".join(found.value.__notes__)
    assert "raise_price(" in told


ID = "order_01gqjyp438r30j3g28jt78cx23"


def happened(name: str, source: str | None, target: str) -> Transition:
    return Transition(
        id="tsn_1", name=name, object_id=ID, source=source, target=target, at=datetime.now(UTC), note=None,
        arguments={}, invocation_id="inv_1", triggered_by="",
    )  # fmt: skip


MADE, PAID = happened("create", None, "created"), happened("pay", "created", "paid")
BOOKED = happened("bookDelivery", "paid", "deliveryBooked")


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ([MADE, PAID], "is deliveryBooked, and its history says"),
        ([MADE, BOOKED], "was created when bookDelivery led it from paid"),
        ([MADE, PAID, PAID, BOOKED], "was paid when pay led it from created"),
        ([happened("pay", None, "paid"), BOOKED], "was not there when pay led it"),
        ([MADE, happened("pay", "created", "deliveryBooked")], "when pay led it from created to deliveryBooked"),
        ([], "its history says: nothing"),
    ],
)
def test_a_history_that_the_declaration_does_not_allow_is_told(history: list[Transition], told: str) -> None:
    fields = {"amount": 1, "paymentReference": "a", "trackingNumber": "b"}
    booked = msgspec.convert({"state": "deliveryBooked", "id": ID, **fields}, DeliveryBooked)
    check_history([Orders], booked, [BOOKED, PAID, MADE])
    with pytest.raises(InvariantError, match=told):
        check_history([Orders], booked, history[::-1])


@pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")
async def test_strategies_give_calls_of_transitions_too() -> None:
    assert arguments(Orders.raise_price, by=st.just(3)).example() in ({}, {"by": 3})
    without_objects = calls(Orders, overrides={Orders.create: {"amount": st.just(7)}})
    with_one = calls(Orders, keys={Orders: [ID]}, leave_out=[Orders.create, Orders.pay])
    async with Harness(Orders, dependencies={Carrier: Carrier(), Heard: Heard()}) as app:
        call = without_objects.example()
        assert repr(call) == "Orders().create(amount=7)"
        applied: tuple[Order, Transition] = await call.on(app)
        assert isinstance(applied[0], Created)
        assert with_one.example().key == ID
        with pytest.raises(DefinitionError, match="is a transition, which cannot be sent"):
            await call.send_on(app)
