"""What Restate cannot keep is refused when the application is made, with a sentence that says what to do instead."""

# pyright: reportUnusedClass=false

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

import durably.restate
from durably import (
    Context,
    DefinitionError,
    DurableList,
    Limit,
    ObjectContext,
    RetryPolicy,
    Service,
    VirtualObject,
    factory,
    handler,
    state,
)
from durably.actors.protocol.commands import Attach, Cancel, GetStatus, Sleep
from durably.errors import HandlerMistakeError
from durably.events import subscribe
from durably.restate.refusals import REFUSED_COMMANDS, UNKNOWN_ID, refuse_command
from examples.orders.app import Orders


@dataclass
class Happened:
    """An event."""

    what: str


class Seat(VirtualObject):
    is_free: bool = state(default=True)

    @handler
    async def reserve(self, ctx: ObjectContext) -> bool:
        return self.is_free


def _refused(*actors: Any, **options: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        durably.restate.app(*actors, **options)
    return str(caught.value)


def test_an_application_says_what_it_serves() -> None:
    assert list(durably.restate.app(Seat).actors) == ["Seat"]
    assert repr(durably.restate.app(Seat)) == "<deployment of Seat>"


def test_an_application_needs_classes_of_different_names() -> None:
    class Other(VirtualObject, name="Seat"):
        @handler
        async def reserve(self, ctx: ObjectContext) -> bool:
            return True

    assert "was given no class" in _refused()
    assert "have the same name on the wire, 'Seat'" in _refused(Seat, Other)


def test_a_time_to_live_is_refused() -> None:
    class Forgetful(VirtualObject, ttl=60):
        @handler
        async def go(self, ctx: ObjectContext) -> None:
            pass

    assert "Forgetful has ttl=, and Restate forgets no state by itself." in _refused(Forgetful)


def test_models_are_refused() -> None:
    assert "is a model. Models are queried in durably's own store." in _refused(Orders)


def test_a_durable_collection_is_refused() -> None:
    class Log(VirtualObject):
        lines: DurableList[str] = state()

        @handler
        async def go(self, ctx: ObjectContext) -> None:
            pass

    assert "Log has the field 'lines', which is not loaded with its object." in _refused(Log)


def test_a_limit_is_refused() -> None:
    class Limited(Service):
        @handler(limit=Limit(at_once=2))
        async def go(self, ctx: Context) -> None:
            pass

    assert "Limited/go has limit=" in _refused(Limited)


def test_a_subscription_is_refused() -> None:
    class Listener(Service):
        @subscribe(Happened)
        async def heard(self, ctx: Context, event: Happened) -> None:
            pass

    assert "Listener/heard subscribes to events." in _refused(Listener)


def test_a_dependency_is_made_for_a_process_and_not_for_an_activation() -> None:
    class Mail:
        pass

    class Sender(VirtualObject):
        def __init__(self, mail: Mail) -> None:
            self.mail = mail

        @handler
        async def go(self, ctx: ObjectContext) -> None:
            pass

    assert "needs a dependency that is made for each activation" in _refused(
        Sender, dependencies={Mail: factory(Mail, scope="activation")}
    )
    for given in (Mail(), factory(Mail)):
        assert list(durably.restate.app(Sender, dependencies={Mail: given}).actors) == ["Sender"]


async def test_factories_are_called_at_the_start_and_again_where_that_fails() -> None:
    class Mail:
        pass

    class Sender(Service):
        def __init__(self, mail: Mail) -> None:
            self.mail = mail

        @handler
        async def go(self, ctx: Context) -> None:
            pass

    told = list[str]()

    async def make() -> AsyncGenerator[Mail]:
        told.append("made")
        if len(told) == 1:
            raise ConnectionRefusedError("no line")
        yield Mail()
        told.append("gone")

    def lifespan(*said: str) -> Callable[[], Awaitable[dict[str, str]]]:
        left = [*said]

        async def receive() -> dict[str, str]:
            return {"type": f"lifespan.{left.pop(0)}"}

        return receive

    answers = list[dict[str, str]]()

    async def send(message: dict[str, str]) -> None:
        answers.append(message)

    app = durably.restate.app(Sender, dependencies={Mail: factory(make)})
    await app({"type": "lifespan"}, lifespan("startup"), send)
    assert answers[0]["type"] == "lifespan.startup.failed"
    assert "no line" in answers[0]["message"]
    await app({"type": "lifespan"}, lifespan("startup", "shutdown"), send)
    assert [one["type"] for one in answers[1:]] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    await app.start()
    await asyncio.gather(app.start(), app.start())
    await app.stop()
    await app.stop()
    assert told == ["made", "made", "gone", "made", "gone"]


def test_a_policy_that_counts_time_is_refused_for_invocations() -> None:
    class Patient(Service, retry=RetryPolicy(max_duration=60)):
        @handler
        async def go(self, ctx: Context) -> None:
            pass

    assert "Patient/go has a retry policy with max_duration" in _refused(Patient)
    assert "restate.app(retry=...) has a retry policy" in _refused(Seat, retry=RetryPolicy(max_duration=60))


def test_verbs_that_a_handler_uses_on_its_context_are_refused_with_their_line() -> None:
    class Asks(VirtualObject):
        @handler
        async def wait(self, ctx: ObjectContext) -> None:
            async def inner() -> None:
                await ctx.signal("go")

            await inner()

    class Goes(VirtualObject):
        @handler
        async def on(self, context: ObjectContext) -> None:
            context.continue_as_new(Goes.on)

    class Changed(Service):
        @handler
        async def go(self, ctx: Context) -> None:
            if ctx.patched("new"):
                await ctx.sleep(1)

    class Tells(Service):
        @handler
        async def go(self, ctx: Context) -> None:
            await ctx.publish(1)

    assert f"uses ctx.signal in line {_line_of('await ctx.signal')}." in _refused(Asks)
    assert "Goes/on uses ctx.continue_as_new in line" in _refused(Goes)
    assert "Changed/go uses ctx.patched in line" in _refused(Changed)
    assert "Tells/go uses ctx.publish in line" in _refused(Tells)


def test_the_same_words_on_something_else_are_not_refused() -> None:
    class Lamp:
        def signal(self, name: str) -> None:
            pass

    class Keeper(Service):
        def __init__(self, lamp: Lamp) -> None:
            self.lamp = lamp

        @handler
        async def go(self, ctx: Context) -> None:
            self.lamp.signal("red")
            signal = ctx.sleep
            await signal(0)

    assert list(durably.restate.app(Keeper, dependencies={Lamp: Lamp()}).actors) == ["Keeper"]


def test_options_that_make_no_sense_are_refused() -> None:
    assert "engine=...) is 'public' or 'vm', not 'fast'" in _refused(Seat, engine="fast")
    assert "is a list: write identity_keys=['publickeyv1_x']" in _refused(Seat, identity_keys="publickeyv1_x")
    assert "takes public keys of Restate" in _refused(Seat, identity_keys=["nonsense"])


def test_commands_that_hide_from_the_reader_are_refused_where_they_are_issued() -> None:
    for kind, why in REFUSED_COMMANDS.items():
        assert why.endswith(".")
        assert isinstance(kind, type)
    with pytest.raises(HandlerMistakeError, match=r"On Restate: status\(\) was used"):
        refuse_command(GetStatus("inv_1x"))
    with pytest.raises(HandlerMistakeError, match=r"On Restate: attach\(\) was used in a handler"):
        refuse_command(Attach(None, "Cart", "mary", "add", "key"))
    with pytest.raises(HandlerMistakeError, match="whose id is not known"):
        refuse_command(Cancel(UNKNOWN_ID))
    refuse_command(Attach("inv_1x"))
    refuse_command(Sleep(1))


def _line_of(text: str) -> int:
    with open(__file__) as file:
        return next(number for number, line in enumerate(file, 1) if text in line)
