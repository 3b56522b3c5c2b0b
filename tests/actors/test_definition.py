# pyright: reportUnusedClass=false
# Classes here are refused while they are defined.

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from durably.actors import (
    BytesSerde,
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
from durably.actors.actor import Actor
from durably.actors.definition.definition import definition_of
from durably.errors import DefinitionError

any_handler: Callable[..., Callable[..., Any]] = handler
any_shared: Callable[..., Callable[..., Any]] = shared


class Seat(VirtualObject, name="SeatObject", private=True, metadata={"team": "hall"}, retention=60, suspend_after=1):
    """A seat.

    In a hall.
    """

    taken: bool = state(default=False, name="is_taken")

    @handler(name="takeIt", atomic=True, retry=RetryPolicy(max_attempts=2), timeout=5)
    async def take(self, ctx: ObjectContext) -> bool:
        """Takes it."""
        return True

    @shared
    async def peek(self, ctx: SharedContext) -> bool:
        return self.taken


def test_a_class_says_everything_about_itself() -> None:
    definition = definition_of(Seat)
    assert (definition.name, definition.kind, definition.actor) == ("SeatObject", "object", Seat)
    assert definition.documentation == "A seat.\n\nIn a hall."
    assert list(definition.handlers) == ["takeIt", "peek"]
    assert list(definition.fields) == ["is_taken"]
    assert definition.options.private
    assert definition.options.metadata == {"team": "hall"}
    assert definition.options.retention_us == 60_000_000
    assert definition.options.suspend_after_us == 1_000_000
    take = definition.handlers["takeIt"]
    assert (take.attribute, take.atomic, take.timeout_us, take.__doc__) == ("take", True, 5_000_000, "Takes it.")
    assert [definition.kind_of(one) for one in definition.handlers.values()] == ["exclusive", "shared"]


def test_the_name_is_the_class_s_own_if_it_is_given_none() -> None:
    class Plain(Service): ...

    assert definition_of(Plain).name == "Plain"


def test_a_subclass_has_the_handlers_of_its_base_and_a_name_of_its_own() -> None:
    class Base(Service, abstract=True):
        @handler
        async def first(self, ctx: Context) -> int:
            return 1

    class Derived(Base):
        @handler
        async def second(self, ctx: Context) -> int:
            return 2

    class Further(Derived):
        @handler
        async def first(self, ctx: Context) -> int:
            return 3

    assert definition_of(Derived).name == "Derived"
    assert list(definition_of(Derived).handlers) == ["first", "second"]
    assert definition_of(Further).name == "Further"
    assert definition_of(Further).handlers["first"] is Further.first


class Contract(VirtualObject, name="TicketObject", abstract=True):
    @handler(name="reserveIt")
    async def reserve(self, ctx: ObjectContext, seat: str, count: int = 1) -> bool:
        raise NotImplementedError

    @shared
    async def peek(self, ctx: SharedContext) -> str:
        raise NotImplementedError


def test_an_implementation_answers_to_the_name_of_its_contract() -> None:
    class Implementation(Contract):
        @handler(name="reserveIt")
        async def reserve(self, ctx: ObjectContext, seat: str, count: int = 1) -> bool:
            return True

        @shared
        async def peek(self, ctx: SharedContext) -> str:
            return "free"

        @handler
        async def more(self, ctx: ObjectContext) -> None: ...

    definition = definition_of(Implementation)
    assert definition.name == "TicketObject"
    assert list(definition.handlers) == ["reserveIt", "peek", "more"]
    assert not definition.is_contract
    assert definition_of(Contract).is_contract


def implementation(**members: object) -> type:
    """Made like this because type checkers refuse such classes too."""
    return type("Changed", (Contract,), dict(members))


async def peek_alone(self: Any, ctx: ObjectContext) -> str:
    return ""


async def reserve_one(self: Any, ctx: ObjectContext, seat: str) -> bool:
    return True


async def reserve_some(self: Any, ctx: ObjectContext, seat: str, count: int = 1) -> bool:
    return True


def test_an_implementation_may_not_change_the_kind_of_a_handler() -> None:
    with pytest.raises(DefinitionError, match=r"Changed\.peek is @handler, and Contract promises @shared"):
        implementation(peek=any_handler(name="peek")(peek_alone))


def test_an_implementation_may_not_change_the_parameters_of_a_handler() -> None:
    words = r"Changed\.reserve takes \(seat: str\), and Contract promises \(seat: str, count: int = 1\)"
    with pytest.raises(DefinitionError, match=words):
        implementation(reserve=any_handler(name="reserveIt")(reserve_one))


def test_an_implementation_may_not_rename_or_undecorate_a_handler() -> None:
    with pytest.raises(DefinitionError, match=r"Changed\.reserve is not a handler named 'reserveIt' any more"):
        implementation(reserve=any_handler(reserve_some))
    with pytest.raises(DefinitionError, match=r"Changed\.peek is not a handler named 'peek' any more"):
        implementation(peek=peek_alone)


def test_handlers_are_async_functions() -> None:
    with pytest.raises(DefinitionError, match=r"is a plain function. Write `async def plain\(self, ctx, ...\)`"):

        @any_handler
        def plain(self: Any, ctx: Any) -> None: ...

    with pytest.raises(DefinitionError, match="contains `yield`"):

        @any_handler
        async def generator(self: Any, ctx: Any) -> AsyncIterator[int]:
            yield 1

    with pytest.raises(DefinitionError, match="is not a function of the class"):
        any_handler(5)

    method: Any = staticmethod(test_handlers_are_async_functions)
    with pytest.raises(DefinitionError, match="Put the decorator directly on `async def`"):
        any_shared(method)


async def _nothing(self: Any) -> None: ...
async def _no_self() -> None: ...
async def _args(self: Any, ctx: Any, *seats: str) -> None: ...
async def _kwargs(self: Any, ctx: Any, **seats: str) -> None: ...
async def _positional(self: Any, ctx: Any, seat: str, /) -> None: ...
async def _default(self: Any, ctx: Any = None) -> None: ...
async def _keyword(self: Any, *, ctx: Any) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_nothing, "takes 1 of `self` and `ctx`. Write `async def _nothing"),
        (_no_self, "takes 0 of `self` and `ctx`"),
        (_keyword, "takes 1 of `self` and `ctx`"),
        (_args, r"takes '\*seats', and the arguments of a message have names and types"),
        (_kwargs, r"takes '\*\*seats'"),
        (_positional, "'seat' of handler '_positional' is positional-only"),
        (_default, "is its context, and needs no default"),
    ],
)
@pytest.mark.parametrize("decorator", [any_handler, any_shared])
def test_parameters_that_no_message_can_have_are_refused(decorator: Any, function: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        decorator(function)


@pytest.mark.parametrize("name", ["", "2nd", "_", "a-b", "a.b", "ü", "a b", "a/b", "a\n", 5])
def test_a_handler_s_name_must_fit_into_a_path(name: Any) -> None:
    async def method(self: Any, ctx: Any) -> None: ...

    with pytest.raises(DefinitionError, match="cannot stand in a path"):
        any_handler(name=name)(method)


@pytest.mark.parametrize("name", ["", "2nd", "_", "-a", ".a", "ü", "a b", "a/b", 5])
def test_a_class_s_name_must_fit_into_a_path(name: Any) -> None:
    with pytest.raises(DefinitionError, match="cannot stand in a path"):
        type("Odd", (Service,), {}, name=name)


@pytest.mark.parametrize("name", ["a.b-c_D9", "_9", "x"])
def test_names_may_have_dots_and_dashes(name: str) -> None:
    assert definition_of(type("Odd", (Service,), {}, name=name)).name == name


def test_the_names_of_the_http_surface_are_taken() -> None:
    with pytest.raises(DefinitionError, match="taken"):
        type("Odd", (Service,), {}, name="restate")
    assert definition_of(type("Odd", (Service,), {}, name="restated")).name == "restated"


def test_two_handlers_cannot_have_one_name() -> None:
    with pytest.raises(DefinitionError, match="two handlers named 'first': first and second"):

        class Twice(Service):
            @handler
            async def first(self, ctx: Context) -> None: ...

            @handler(name="first")
            async def second(self, ctx: Context) -> None: ...


def test_a_service_has_no_shared_handlers() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.look is @shared, and a Service has no state"):

        class Wrong(Service):
            @any_shared
            async def look(self, ctx: Context) -> None: ...


def test_a_service_has_no_atomic_handlers() -> None:
    with pytest.raises(DefinitionError, match="is atomic, and a Service has no state"):

        class Wrong(Service):
            @handler(atomic=True)
            async def run(self, ctx: Context) -> None: ...


def test_a_shared_handler_is_not_atomic() -> None:
    with pytest.raises(DefinitionError, match="atomic"):

        class Wrong(VirtualObject):
            @any_shared(atomic=True)
            async def look(self, ctx: SharedContext) -> None: ...


def test_a_service_has_no_state() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.count is state, and a Service has none"):

        class Wrong(Service):
            count: int = state(default=0)


def test_state_needs_a_type() -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.count has no type. Annotate it"):

        class Wrong(VirtualObject):
            count = state(default=0)


def test_two_fields_cannot_have_one_stored_name() -> None:
    with pytest.raises(DefinitionError, match="stores first and second under one name, 'first'"):

        class Wrong(VirtualObject):
            first: int = state(default=0)
            second: int = state(default=0, name="first")


def test_the_key_is_no_state() -> None:
    with pytest.raises(DefinitionError, match="is the object's key and cannot be state"):

        class Wrong(VirtualObject):
            key: str = state(default="")


@pytest.mark.parametrize(
    ("base", "decorator", "context", "words"),
    [
        (Service, any_handler, ObjectContext, "annotated ObjectContext, and a service gets Context"),
        (Service, any_handler, "durably.SharedContext", "annotated SharedContext, and a service gets Context"),
        (VirtualObject, any_shared, ObjectContext, "annotated ObjectContext, and a shared handler gets SharedContext"),
        (
            VirtualObject,
            any_shared,
            "ObjectContext",
            "annotated ObjectContext, and a shared handler gets SharedContext",
        ),
    ],
)
def test_the_annotation_of_the_context_fits_the_kind(
    base: type[Actor], decorator: Any, context: Any, words: str
) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__annotations__["ctx"] = context
    with pytest.raises(DefinitionError, match=words):
        type("Wrong", (base,), {"run": decorator(run)})


@pytest.mark.parametrize("context", [Context, SharedContext, ObjectContext, Any, "Caller", int | str])
def test_a_wider_context_may_be_annotated(context: Any) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__annotations__["ctx"] = context
    assert definition_of(type("Right", (VirtualObject,), {"run": any_handler(run)})).handlers


def test_a_handler_needs_an_actor_around_it() -> None:
    with pytest.raises((DefinitionError, RuntimeError)) as caught:

        class Wrong:
            @any_handler
            async def run(self, ctx: Context) -> None: ...

    error = caught.value if isinstance(caught.value, DefinitionError) else caught.value.__cause__
    assert "neither a Service nor a VirtualObject" in str(error)


def test_an_actor_is_a_service_or_a_virtual_object() -> None:
    with pytest.raises(DefinitionError, match="Subclass Service or VirtualObject"):

        class Wrong(Actor): ...


def test_what_is_no_actor_has_no_definition() -> None:
    for wrong in (int, Service, "Seat"):
        anything: Any = wrong
        with pytest.raises(DefinitionError, match="not a class of actors"):
            definition_of(anything)


def test_accepts_needs_one_parameter() -> None:
    async def run(self: Any, ctx: Any, left: bytes, right: bytes) -> None: ...

    with pytest.raises(DefinitionError, match="accepts=, which decodes one argument, and 2 parameters"):
        any_handler(accepts=BytesSerde())(run)


def test_a_duration_that_makes_no_sense_is_named() -> None:
    with pytest.raises(ValueError, match=r"retention= of .*Wrong"):

        class Wrong(Service, retention=-1): ...
