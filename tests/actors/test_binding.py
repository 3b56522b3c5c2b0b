from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from durably.actors import (
    Context,
    ObjectContext,
    RetryPolicy,
    Service,
    SharedContext,
    VirtualObject,
    handler,
    shared,
    state,
)
from durably.actors.context import Request, make_context
from durably.actors.definition.binding import bind
from durably.errors import DefinitionError
from tests.actors.port import FakePort, finished

if TYPE_CHECKING:
    from collections.abc import Sized as OnlyForTypeCheckers


any_handler: Callable[..., Callable[..., Any]] = handler


class Payments:
    pass


class Mail:
    pass


@dataclass(frozen=True)
class Later:
    """Named before it is defined, by the class below."""

    number: int


class Checkout(
    Service, name="CheckoutService", retry=RetryPolicy(max_attempts=3), private=True, metadata={"team": "a"}
):
    def __init__(self, payments: Payments, mail: Mail | None = None, *, retries: int = 3) -> None:
        self.payments = payments
        self.mail = mail
        self.retries = retries

    @handler(metadata={"tier": "1"}, retention=5)
    async def run(self, ctx: Context, later: Later) -> Later:
        """Runs."""
        return Later(later.number + self.retries)

    @handler(retry=RetryPolicy(max_attempts=1))
    async def once(self, ctx: Context) -> None: ...


class Counter(VirtualObject, suspend_after=2):
    count: int = state(default=0)

    @handler(atomic=True)
    async def add(self, ctx: ObjectContext, amount: int = 1) -> int:
        self.count += amount
        return self.count

    @shared
    async def get(self, ctx: SharedContext) -> int:
        return self.count


def request() -> Request:
    return Request(id="inv_1", headers={}, body=b"{}", idempotency_key=None, deadline=None, attempt=1)


def test_a_bound_handler_knows_what_the_machine_needs() -> None:
    bound = bind(Checkout, {Payments: Payments()})
    run, once = bound.handlers["run"], bound.handlers["once"]
    assert (run.service, run.name, run.kind, run.atomic, run.private) == (
        "CheckoutService",
        "run",
        "service",
        False,
        True,
    )
    assert run.retry is not None
    assert once.retry is not None
    assert (run.retry.max_attempts, once.retry.max_attempts) == (3, 1)
    assert (run.retention_us, once.retention_us, run.timeout_us) == (5_000_000, None, None)
    assert run.documentation == "Runs."
    assert run.info.parameters == {"later": Later}
    assert run.info.returns is Later
    assert run.info.metadata == {"team": "a", "tier": "1"}
    assert run.info.actor is Checkout
    counter = bind(Counter, {})
    assert {name: one.kind for name, one in counter.handlers.items()} == {"add": "exclusive", "get": "shared"}
    assert counter.handlers["add"].atomic
    assert counter.handlers["add"].suspend_after_us == 2_000_000


def test_the_constructor_gets_its_dependencies_by_annotation() -> None:
    payments, mail = Payments(), Mail()
    made = bind(Checkout, {Payments: payments, Mail | None: mail}).instance("inv", FakePort(), writable=True)
    assert isinstance(made, Checkout)
    assert (made.payments, made.mail, made.retries) == (payments, mail, 3)


def test_an_optional_dependency_is_found_too() -> None:
    mail = Mail()
    made = bind(Checkout, {Payments: Payments(), Mail: mail}).instance("inv", FakePort(), writable=True)
    assert isinstance(made, Checkout)
    assert made.mail is mail


def test_the_constructor_runs_once() -> None:
    calls: list[int] = []

    class Counted(Service):
        def __init__(self) -> None:
            calls.append(1)

    bound = bind(Counted, {})
    assert bound.instance("a", FakePort(), writable=True) is not bound.instance("b", FakePort(), writable=True)
    assert calls == [1]


def test_a_handler_runs_on_an_instance() -> None:
    port = FakePort()
    bound = bind(Counter, {})
    add = bound.handlers["add"]
    instance = bound.instance("c", port, writable=True)
    context = make_context("exclusive", port, add.info, "c")
    assert finished(add.start(instance, context, b'{"amount":3}')) == 3
    assert finished(add.start(instance, context, b"{}")) == 4
    assert port.state == {"count": b"4"}


def test_a_missing_dependency_is_named() -> None:
    with pytest.raises(DefinitionError) as caught:
        bind(Checkout, {Mail: Mail()})
    assert str(caught.value) == (
        "The constructor of Checkout asks for payments: Payments, and dependencies= has Mail. "
        "Write Runtime(..., dependencies={Payments: ...})."
    )


def test_a_constructor_parameter_without_annotation_is_named() -> None:
    class Loose(Service):
        def __init__(self, payments) -> None:  # type: ignore[no-untyped-def] # noqa: ANN001
            self.payments = payments  # pyright: ignore[reportUnknownMemberType]

    with pytest.raises(DefinitionError, match="'payments' of the constructor of Loose has no annotation"):
        bind(Loose, {})


def test_classes_in_a_function_may_name_each_other_in_any_order() -> None:
    class First(VirtualObject):
        seen: list[Local] = state(default=[])

        @handler
        async def run(self, ctx: ObjectContext, value: Local) -> list[Local]:
            return [value]

    @dataclass
    class Local:
        number: int

    class Second(Service):
        def __init__(self, dependency: Local) -> None:
            self.number = dependency.number

    assert bind(First, {}).handlers["run"].signature.parameters == {"value": "Local"}
    assert bind(Second, {Local: Local(3)}).instance("", FakePort(), writable=True).__dict__["number"] == 3


def test_after_binding_the_defining_function_is_let_go() -> None:
    class Big:
        pass

    def define() -> tuple[type[Service], weakref.ref[Big]]:
        big = Big()

        @dataclass
        class Local:
            number: int

        class Kept(Service):
            @handler
            async def run(self, ctx: Context, value: Local) -> None: ...

        return Kept, weakref.ref(big)

    kept, big = define()
    assert bind(kept, {}).handlers["run"].admit(b'{"number": 1}')
    gc.collect()
    assert big() is None
    assert bind(kept, {}).handlers["run"].admit(b'{"number": 1}')


def test_an_inherited_handler_finds_the_names_of_its_own_class() -> None:
    def contract() -> type[Service]:
        @dataclass
        class Local:
            number: int

        class Base(Service, abstract=True):
            def __init__(self, local: Local) -> None:
                self.local = local

            @handler
            async def run(self, ctx: Context, value: Local) -> None: ...

        Base.__init__.__annotations__["local"] = Payments
        return Base

    class Derived(contract()):  # type: ignore[misc]
        pass

    assert bind(Derived, {Payments: Payments()}).handlers["run"].admit(b'{"number": 1}')


def test_an_unknown_name_in_an_annotation_is_told_with_its_likely_cause() -> None:
    class Wrong(Service):
        @handler
        async def run(self, ctx: Context, value: OnlyForTypeCheckers) -> None: ...

    with pytest.raises(
        DefinitionError, match=r"'OnlyForTypeCheckers' of 'value' in handler 'run' .* import it at run time"
    ):
        bind(Wrong, {})


def test_a_context_may_be_imported_for_type_checkers_only() -> None:
    class Right(Service):
        @any_handler
        async def run(self, ctx: OnlyForTypeCheckers) -> None: ...

    assert "run" in bind(Right, {}).handlers


def test_a_type_that_cannot_be_sent_is_named_with_its_place() -> None:
    class Wrong(Service):
        @handler
        async def run(self, ctx: Context, value: Payments) -> None: ...

    with pytest.raises(
        DefinitionError, match="The type of the parameter 'value' of handler 'run' does not work: Payments cannot"
    ):
        bind(Wrong, {})

    class WrongResult(Service):
        @handler
        async def run(self, ctx: Context) -> Payments:
            return Payments()

    with pytest.raises(DefinitionError, match="the result of handler 'run'"):
        bind(WrongResult, {})

    class WrongState(VirtualObject):
        payments: Payments = state()

    with pytest.raises(DefinitionError, match=r"The type of the state WrongState\.payments does not work"):
        bind(WrongState, {})


def test_a_default_that_does_not_fit_its_type_is_named() -> None:
    class Wrong(VirtualObject):
        count: list[int] = state(default=["a"])  # type: ignore[list-item]  # pyright: ignore[reportAssignmentType]

    with pytest.raises(DefinitionError, match=r"The default of the state Wrong\.count does not fit its type"):
        bind(Wrong, {})


def test_an_abstract_class_is_not_bound() -> None:
    class Promise(Service, abstract=True, name="P"): ...

    with pytest.raises(DefinitionError, match="Promise is abstract"):
        bind(Promise, {})


def test_state_declared_in_a_base_is_found() -> None:
    class Base(VirtualObject, abstract=True):
        count: int = state(default=5)

    class Derived(Base):
        pass

    made = bind(Derived, {}).instance("d", FakePort(), writable=True)
    assert isinstance(made, Derived)
    assert made.count == 5


def test_a_service_has_no_key() -> None:
    made: Any = bind(Checkout, {Payments: Payments()}).instance("inv_1", FakePort(), writable=True)
    assert not hasattr(made, "key")
