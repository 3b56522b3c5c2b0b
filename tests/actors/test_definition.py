# pyright: reportUnusedClass=false
# Classes here are refused while they are defined.

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import Annotated, Any, Generic, Protocol, TypeVar, cast, final

import pytest

from durably.actors import (
    BytesSerde,
    Caller,
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
from durably.actors.promises import promise
from durably.errors import DefinitionError, HandlerMistakeError

any_handler: Callable[..., Callable[..., Any]] = handler
any_shared: Callable[..., Callable[..., Any]] = shared
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
any_abstractmethod: Decorator = abstractmethod
any_final: Decorator = final


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


async def _right(self: Any, ctx: Any) -> None: ...
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


def test_a_handler_has_one_name() -> None:
    class Base(Service):
        @handler
        async def sell(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match="one handler under two names, sell and trade"):

        class Desk(Base):
            trade = Base.sell


@pytest.mark.parametrize("order", [(any_handler, any_abstractmethod), (any_abstractmethod, any_handler)])
def test_a_handler_is_written_where_the_class_is_not_abstract(order: tuple[Decorator, Decorator]) -> None:
    first, second = order

    class Base(Service, abstract=True):
        @first
        @second
        async def sell(self, ctx: Context) -> None: ...

    with pytest.raises(DefinitionError, match=r"Desk\.sell is an @abstractmethod"):

        class Desk(Base): ...

    with pytest.raises(DefinitionError, match=r"Shop\.sell is an @abstractmethod"):

        class Shop(Service):
            @first
            @second
            async def sell(self, ctx: Context) -> None: ...

    class Till(Base):
        @any_handler
        async def sell(self, ctx: Context) -> None: ...


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


async def _put(self: VirtualObject, ctx: ObjectContext, data: bytes) -> None: ...


@pytest.mark.parametrize("given", [BytesSerde, bytes, "json", 5])
@pytest.mark.parametrize("place", ["accepts", "returns", "state", "promise"])
def test_what_is_declared_with_a_serde_has_one(place: str, given: Any) -> None:
    def declare() -> None:
        match place:
            case "accepts":
                handler(accepts=given)(_put)
            case "returns":
                handler(returns=given)(_put)
            case "state":
                state(serde=given)
            case _:
                promise(serde=given)

    with pytest.raises(DefinitionError, match=r"is a Serde, with encode.* Give an instance, such as BytesSerde\(\)\.$"):
        declare()


@pytest.mark.parametrize("name", ["", "a\0", "\ud800", 5, b"a"])
def test_the_name_under_which_something_is_kept_is_text(name: Any) -> None:
    for declare in (state, promise):
        with pytest.raises(DefinitionError, match=r"The name of a (state|promise) is Unicode text without NUL"):
            declare(name=name)


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


@pytest.mark.parametrize("context", [Context, SharedContext, ObjectContext, Any, "Caller", ObjectContext | None])
def test_a_wider_context_may_be_annotated(context: Any) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__annotations__["ctx"] = context
    assert definition_of(type("Right", (VirtualObject,), {"run": any_handler(run)})).handlers


class OwnContext(ObjectContext):
    """A context with more in it, for type checkers."""


class HasNow(Protocol):
    def now(self) -> Any: ...


AnyContextT = TypeVar("AnyContextT", bound=Context)
Ctx = ObjectContext


@pytest.mark.parametrize("decorator", [any_handler, any_shared])
@pytest.mark.parametrize("annotation", [None, int, str, "str", "int | None", list[int], Enum, "Mapping[str, int]"])
def test_a_handler_without_a_context_is_refused(decorator: Any, annotation: Any) -> None:
    async def run(self: Any, seat: Any, n: int = 1) -> None: ...

    run.__annotations__["seat"] = annotation
    if annotation is None:
        del run.__annotations__["seat"]
    gets = "ObjectContext" if decorator is any_handler else "SharedContext"
    with pytest.raises(DefinitionError) as caught:
        type("Wrong", (VirtualObject,), {"run": decorator(run)})
    assert "Wrong.run has no context: its second parameter is `seat" in str(caught.value)
    assert f"Write `async def run(self, ctx: {gets}, ...)`" in str(caught.value)


@pytest.mark.parametrize("annotation", [int, "str", dict[str, int], int | str, list[ObjectContext]])
def test_a_context_that_is_annotated_as_something_else_is_refused(annotation: Any) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__annotations__["ctx"] = annotation
    with pytest.raises(DefinitionError, match="has no context: its second parameter is `ctx: "):
        type("Wrong", (VirtualObject,), {"run": any_handler(run)})


@pytest.mark.parametrize(
    "annotation",
    [
        "Ctx",
        Ctx,
        Caller,
        OwnContext,
        "OnlyForTypeCheckers",
        "durably.ObjectContext",
        HasNow,
        AnyContextT,
        Annotated[ObjectContext, "x"],
        "ObjectContext | None",
        object,
    ],
)
def test_a_context_may_be_annotated_in_many_ways(annotation: Any) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__annotations__["ctx"] = annotation
    assert definition_of(type("Right", (VirtualObject,), {"run": any_handler(run)})).handlers


def test_a_context_may_have_any_name_if_its_annotation_says_what_it_is() -> None:
    class Right(VirtualObject):
        @handler
        async def annotated(self, c: ObjectContext) -> None: ...

        @any_handler
        async def unused(self, _: Any) -> None: ...

        @any_handler
        async def named(self, _context: Any) -> None: ...

    assert len(definition_of(Right).handlers) == 3


@pytest.mark.parametrize("decorator", [any_handler, any_handler(name="run"), any_shared])
def test_a_handler_needs_an_actor_around_it(decorator: Decorator) -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.run is a handler, and Wrong is neither a Service nor a Virtual"):

        class Wrong(Generic[AnyContextT]):
            @decorator
            async def run(self, ctx: Context) -> None: ...


def hiding_with_wraps(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def call(*args: Any) -> Any:
        return await function(*args)

    return call


def hiding_without_wraps(function: Any) -> Any:
    def call(*args: Any) -> Any:
        return function(*args)

    return call


def losing(function: Any) -> Any:
    return None


@pytest.mark.parametrize(
    "above", [hiding_with_wraps, hiding_without_wraps, losing, staticmethod, classmethod, property, functools.partial]
)
@pytest.mark.parametrize("decorator", [any_handler, any_shared, any_handler(timeout=5)])
def test_a_decorator_above_that_hides_the_handler_is_refused(above: Decorator, decorator: Decorator) -> None:
    with pytest.raises(DefinitionError, match=r"Wrong\.run is decorated as a handler, and something hides that"):

        class Wrong(VirtualObject):
            @above
            @decorator
            async def run(self, ctx: ObjectContext) -> None: ...


def test_a_decorator_above_that_hides_nothing_is_fine() -> None:
    class Right(VirtualObject, abstract=True):
        @any_abstractmethod
        @any_handler
        async def run(self, ctx: ObjectContext) -> None: ...

        @any_final
        @any_handler
        async def stop(self, ctx: ObjectContext) -> None: ...

    assert list(definition_of(Right).handlers) == ["run", "stop"]
    assert "__durably_class_body__" not in vars(Right)


def test_a_decorator_below_may_wrap_with_functools() -> None:
    class Right(VirtualObject):
        @any_handler
        @hiding_with_wraps
        async def run(self, ctx: ObjectContext, seat: str) -> bool:
            return True

    signature = definition_of(Right).handlers["run"].signature
    assert (signature.parameters, signature.returns) == ({"seat": "str"}, "bool")


def test_a_decorator_below_that_makes_a_plain_function_says_what_to_write() -> None:
    def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any) -> Any:
            return function(*args)

        return call

    with pytest.raises(DefinitionError, match="Make the decorator's function `async def` too"):

        class Wrong(VirtualObject):
            @any_handler
            @plainly
            async def run(self, ctx: ObjectContext) -> None: ...


@pytest.mark.parametrize("decorator", [any_handler, any_shared, any_handler(name="fine")])
@pytest.mark.parametrize("name", ["handler", "shared"])
def test_a_method_named_like_a_decorator_is_refused(decorator: Any, name: str) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__name__ = run.__qualname__ = name
    with pytest.raises(DefinitionError, match=rf'has the name of a decorator.*write @handler\(name="{name}"\)'):
        decorator(run)


def test_a_field_named_like_a_decorator_says_so_where_that_is_used() -> None:
    with pytest.raises(DefinitionError, match="If its name is handler, shared or state, it hides what has that name"):

        class Wrong(VirtualObject):
            shared: Any = state(default=False)

            @cast("Decorator", shared)
            async def run(self, ctx: SharedContext) -> None: ...


def test_a_handler_that_is_called_on_the_class_says_what_to_write() -> None:
    class Right(VirtualObject):
        @handler
        async def run(self, ctx: ObjectContext) -> None: ...

    with pytest.raises(HandlerMistakeError, match=r"A handler is called through a reference: `await ctx\.object"):
        cast("Any", Right).run("mary")


@pytest.mark.parametrize("name", ["__init__", "__call__", "__aenter__"])
def test_a_name_of_python_s_own_is_no_handler(name: str) -> None:
    async def run(self: Any, ctx: Any) -> None: ...

    run.__name__ = name
    with pytest.raises(DefinitionError, match="has a name that Python itself uses"):
        any_handler(name="fine")(run)


def test_the_key_is_no_handler_of_an_object() -> None:
    async def key(self: Any, ctx: Any) -> None: ...

    with pytest.raises(DefinitionError, match=r"self\.key is the object's key\. Call the method something else"):
        type("Wrong", (VirtualObject,), {"key": any_handler(key)})
    assert definition_of(type("Right", (Service,), {"key": any_handler(key)})).handlers


def test_a_handler_and_a_field_have_names_of_their_own() -> None:
    class HasState(VirtualObject, abstract=True):
        count: int = state(default=0)

    class HasHandler(VirtualObject, abstract=True):
        @handler
        async def count(self, ctx: ObjectContext) -> None: ...

    async def count(self: Any, ctx: Any) -> None: ...

    twice = {"count": any_handler(count), "__annotations__": {"count": int}}
    for base, namespace, words in (
        (VirtualObject, twice, r"Wrong\.count is declared twice"),
        (HasState, {"count": any_handler(count)}, r"replaces the state HasState\.count"),
        (HasHandler, {"count": state(default=0)}, r"replaces the handler HasHandler\.count"),
    ):
        with pytest.raises(DefinitionError, match=words):
            type("Wrong", (base,), namespace)

    with pytest.raises(DefinitionError, match=r"Wrong\.run is decorated as a handler, and something hides that"):

        class Wrong(VirtualObject):
            @any_handler
            async def run(self, ctx: ObjectContext) -> None: ...

            vars()["run"] = state(default=0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (cast("Any", lambda: None), "A lambda cannot be a handler"),
        (property(lambda self: None), "A property is decorated as a handler, and is not a function"),
        (functools.partial(print), "A partial is decorated as a handler, and is not a function"),
        ("addTicket", r"'addTicket' is decorated as a handler.*with options in parentheses: @handler\(name=\.\.\.\)"),
        (any_handler(_right), "is decorated as a handler twice"),
        (dict, "dict is decorated as a handler, and is not a function"),
    ],
)
def test_what_is_no_function_is_told_what_to_write(given: Any, words: str) -> None:
    for decorator in (any_handler, any_shared):
        with pytest.raises(DefinitionError, match=words):
            decorator(given)


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


def test_a_handler_that_comes_after_its_class_is_told_where_to_stand() -> None:
    class Seat(VirtualObject):
        @handler
        async def free(self, ctx: ObjectContext) -> None: ...

    async def reserve(self: Seat, ctx: ObjectContext) -> None: ...

    for attribute in ("reserve", "free"):
        setattr(Seat, attribute, any_handler(reserve))
        late: Any = getattr(Seat, attribute)
        with pytest.raises(DefinitionError, match=r"reserve' is part of no class of actors.*the body of the class"):
            late.signature.check_types()
