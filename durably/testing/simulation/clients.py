"""`SimulatedClient`: somebody outside, who asks over a network that loses, repeats and delays.

It gives references like every `Caller`. A client that insists, as the ordinary one does, sends each call with an
idempotency key and repeats it until it is answered, so crashes and losses cost time and nothing else. One that does not
insist gets `ConnectionLostError`, as it would from HTTP, and knows no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Protocol, TypeVar, TypeVarTuple, cast

import msgspec

from durably.actors.actor import VirtualObject
from durably.actors.caller import Caller
from durably.actors.definition.definition import definition_of
from durably.actors.protocol.commands import CompleteAwakeable, Question, SendSignal
from durably.actors.protocol.operations import CallSite, HostOperation, frame_above
from durably.actors.sent_values import Sent
from durably.actors.transport import Delay, Invocation, Outgoing, message_of, no_call
from durably.actors.values.error_envelopes import decode_failure
from durably.errors import (
    DurablyError,
    InvocationStatusError,
    OverloadedError,
    RuntimeStoppedError,
    StoreInUseError,
    StoreUnavailableError,
    TerminalError,
    UnknownTargetError,
)
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.loop import is_in_a_handler
from durably.runtime.execution.step import Outcome
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.requests import Acceptance, Effect
from durably.runtime.lifecycle.restarts_as_new import TOO_EARLY
from durably.runtime.lifecycle.schedules import ScheduleStatus
from durably.runtime.lifecycle.state_edits import StateEdit
from durably.runtime.lifecycle.subscriptions import SubscriptionStatus
from durably.runtime.runtime import Runtime
from durably.testing.simulation.faults import Place
from durably.testing.simulation.history import History
from durably.testing.simulation.injection import Injection, Strike
from durably.testing.simulation.latencies import Latencies
from durably.testing.simulation.loop import SimulatedLoop, outside_context
from durably.testing.simulation.polls import Polls
from durably.testing.simulation.process import Ask, SimulatedProcess
from durably.testing.simulation.trace import Trace, shown_id

R = TypeVar("R")
Args = TypeVarTuple("Args")

TRAVEL_US = (50, 1_500)
LATE_US = 60_000_000
PATIENCE_US = (1_000_000, 30_000_000)
PAUSE_US = (10_000, 1_000_000)


ENDS_IT = (InvocationStatusError, UnknownTargetError)
_REFUSED_BECAUSE_OF_ITSELF: Mapping[Verb, tuple[type[TerminalError], ...]] = {
    Verb.PAUSE: (),
    Verb.PURGE: (UnknownTargetError,),
}
"""How an order is refused when it comes a second time and the first has done it; the others end the invocation."""


class ConnectionLostError(ConnectionError):
    """No answer came. The request may have arrived or not; with an idempotency key it is safe to ask again."""


class NobodyThereError(ConnectionLostError, ConnectionRefusedError):
    """There is no process to connect to: the kind of lost connection after which nothing was accepted."""


class World(Protocol):
    """The simulation, as its clients see it."""

    loop: SimulatedLoop
    random: Random
    injection: Injection
    latencies: Latencies
    trace: Trace
    history: History
    polls: Polls
    travelling: int
    """Messages on their way, in both directions."""

    def reached(self) -> SimulatedProcess | None:
        """The process that a request comes to."""
        ...

    def next_request(self, client: str, /) -> int:
        """Counts what a client has asked for."""
        ...

    def issued(self, operation: HostOperation[Any], /) -> None:
        """Somebody outside has asked for something."""
        ...


class _Exchange:
    """What became of one request on its way."""

    is_made_twice = False
    """The network delivers it twice; either may come first."""


class ClientOperation(HostOperation[R]):
    """What a client's call, send or question returns: an operation on the simulated loop, hashed by number."""

    def __init__(self, loop: SimulatedLoop, what: object, site: CallSite) -> None:
        self._number = loop.number()
        super().__init__(loop.create_future(), what, site)

    def __hash__(self) -> int:
        return self._number


class SimulatedClient(Caller):
    """One of those outside."""

    def __init__(self, world: World, name: str, *, insists: bool = True) -> None:
        self.name = name
        self.insists = insists
        self._world = world

    def __repr__(self) -> str:
        return f"<simulated client {self.name}>"

    # ------------------------------------------------------------------ for references (Transport)

    def _issue_call(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        outgoing = self._keyed(outgoing)
        keyed = outgoing.idempotency_key is not None
        arrives = self._asked_by(lambda process: process.call(outgoing))

        async def converse() -> R:
            return outgoing.decode(_value(await self._converse(f"calls {_asked(outgoing)}", arrives, keyed)))

        return self._issue(converse(), outgoing, site)

    def _issue_send(
        self, outgoing: Outgoing[R], delay: Delay | None, site: CallSite, /
    ) -> HostOperation[Invocation[R]]:
        outgoing = self._keyed(outgoing)
        arrives = self._asked_by(lambda process: process.send(outgoing, delay or Delay()))

        async def converse() -> Invocation[R]:
            acceptance: Acceptance = await self._converse(f"sends {_asked(outgoing)}", arrives, outgoing.may_join)
            return Invocation(self, acceptance.id, outgoing.decode, acceptance.previously_accepted)

        return self._issue(converse(), outgoing, site)

    def _issue_attach(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        async def converse() -> R:
            asked = f"attaches to {_asked(outgoing)}"
            return outgoing.decode(_value(await self._converse(asked, lambda process: process.attach(outgoing), True)))

        return self._issue(converse(), f"attach to {outgoing}", site)

    def _issue_output(self, outgoing: Outgoing[R], site: CallSite, /) -> HostOperation[R]:
        async def converse() -> R:
            asked = f"looks at the outcome of {_asked(outgoing)}"
            return outgoing.decode(_value(await self._converse(asked, lambda process: process.output(outgoing), True)))

        return self._issue(converse(), f"output of {outgoing}", site)

    def _issue_output_of(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        async def converse() -> R:
            asked = f"looks at the outcome of {id}"
            return decode(_value(await self._converse(asked, lambda process: process.output_of(id), True)))

        return self._issue(converse(), f"output of {id}", site)

    def _issue_result(self, id: str, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        async def converse() -> R:
            return decode(_value(await self._converse(f"awaits {id}", lambda process: process.result(id), True)))

        return self._issue(converse(), f"result of {id}", site)

    def _issue_status(self, id: str, site: CallSite, /) -> HostOperation[InvocationStatus]:
        async def converse() -> InvocationStatus:
            told: InvocationStatus = await self._converse(f"asks for {id}", lambda process: process.status(id), True)
            return told

        return self._issue(converse(), f"status of {id}", site)

    def _issue_identification(self, call: object, site: CallSite, /) -> HostOperation[Invocation[Any]]:
        """Asked by the idempotency key of the call, again until it has arrived."""
        message = message_of(call)
        under_way = cast("ClientOperation[Any]", call)
        if message is None or not message.may_join or not _is_of_a_client(call):
            raise no_call(call)

        async def converse() -> Invocation[Any]:
            while True:
                has_ended = under_way.done()
                try:
                    asked = f"asks for the id of {_asked(message)}"
                    id: str = await self._converse(asked, lambda process: process.identify(message), True)
                except UnknownTargetError:
                    if has_ended:
                        raise
                    await asyncio.sleep(self._world.random.randrange(*PAUSE_US) / 1_000_000)
                else:
                    return Invocation(self, id, message.decode)

        return self._issue(converse(), f"invocation of {message}", site)

    def _issue_completion(self, command: CompleteAwakeable, site: CallSite, /) -> HostOperation[None]:
        """Repeated until it is answered: the first one counts (rule E5)."""

        async def converse() -> None:
            await self._converse(f"completes {command.id}", lambda process: process.complete(command), True)

        return self._issue(converse(), f"completion of {command.id}", site)

    def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> HostOperation[None]:
        """Repeated until it is answered. A repeated one is another signal: it arrives once at least."""
        command = SendSignal(id, name, sent.failed, sent.value)

        async def converse() -> None:
            await self._order(f"signals {name!r} to {id}", lambda process: process.signal(command), None, ENDS_IT)

        return self._issue(converse(), f"signal {name!r} to {id}", site)

    def _issue_reading(self, question: Question, decode: Callable[[bytes], R], site: CallSite, /) -> HostOperation[R]:
        async def converse() -> R:
            return decode(await self._converse("asks the store", lambda process: process.ask(question), True))

        return self._issue(converse(), "a question to the store", site)

    def _moment_and_bits(self) -> tuple[int, int]:
        world = self._world
        return int(world.loop.time() * 1_000_000), world.random.getrandbits(128)

    def _issue_cancel(self, id: str, site: CallSite, /) -> HostOperation[None]:
        """Repeated until it is answered. A repeated one is a second cancel (rule E1 d)."""

        async def converse() -> None:
            await self._order(f"cancels {id}", lambda process: process.act(Verb.CANCEL, id), Effect.DONE, ENDS_IT)

        return self._issue(converse(), f"cancel of {id}", site)

    def act(self, verb: Verb, id: str) -> HostOperation[Effect]:
        """Do something to an invocation, as an operator: kill it, pause it, and so on. It may be done twice."""

        async def converse() -> Effect:
            own = _REFUSED_BECAUSE_OF_ITSELF.get(verb, ENDS_IT)
            asked: Ask = lambda process: process.act(verb, id)  # noqa: E731
            effect: Effect = await self._order(f"{verb}s {id}", asked, Effect.NOTHING, own)
            return effect

        return self._issue(converse(), f"{verb} of {id}", CallSite(frame_above(1)))

    def act_on_all(self, verb: Verb, target: str) -> HostOperation[Sequence[str]]:
        """The same to all invocations of a target, such as `Cart/mary`; the ids of those that it had an effect on."""

        async def converse() -> Sequence[str]:
            asked = f"{verb}s all of {target}"
            ids: Sequence[str] = await self._converse(asked, lambda process: process.act_on_all(verb, target), True)
            return ids

        return self._issue(converse(), f"{verb} of all of {target}", CallSite(frame_above(1)))

    def turn_schedule(self, name: str, status: ScheduleStatus) -> HostOperation[bool]:
        """Turn a schedule on, pause it or cancel it, as an operator does; whether that changed anything."""

        async def converse() -> bool:
            asked = f"lets {name} be {status}"
            changed: bool = await self._converse(asked, lambda process: process.act_on_schedule(name, status), True)
            return changed

        return self._issue(converse(), f"{name} {status}", CallSite(frame_above(1)))

    def turn_subscription(self, name: str, status: SubscriptionStatus) -> HostOperation[bool]:
        """Pause a subscription or let it go on, as an operator does; whether that changed anything."""

        def turn(runtime: Runtime) -> Awaitable[bool]:
            if status is SubscriptionStatus.ON:
                return runtime.resume_subscription(name)
            return runtime.pause_subscription(name)

        return self._ask_runtime(f"{name} {status}", turn)

    def retry_dead_letters(self, subscription: str) -> HostOperation[bool]:
        """Let all that a subscription has given up be tried again, as an operator does; whether there was anything."""

        async def retry(runtime: Runtime) -> bool:
            letters = [one.id async for one in runtime.dead_letters(subscription)]
            for id in letters:
                with suppress(UnknownTargetError):  # A retry whose answer was lost.
                    await runtime.retry_dead_letter(id)
            return bool(letters)

        return self._ask_runtime(f"the dead letters of {subscription} again", retry)

    def _ask_runtime(self, asked: str, ask: Callable[[Runtime], Awaitable[bool]]) -> HostOperation[bool]:
        async def converse() -> bool:
            changed: bool = await self._converse(asked, lambda process: process.ask_runtime(asked, ask), True)
            return changed

        return self._issue(converse(), asked, CallSite(frame_above(2)))

    def delete(self, actor: type[VirtualObject], key: str) -> HostOperation[str]:
        """Delete an object in its turn; the id of the message, once it is durable. It is not asked for again."""
        address = Address(definition_of(actor).name, key)

        async def converse() -> str:
            what = f"deletes {address.service}/{key}"
            accepted: Acceptance = await self._converse(what, lambda process: process.send_deletion(address), False)
            return accepted.id

        return self._issue(converse(), f"deletion of {address.service}/{key}", CallSite(frame_above(1)))

    def delete_and_wait(self, actor: type[VirtualObject], key: str) -> HostOperation[None]:
        """Delete an object; it is answered when that is done. It is not asked for again."""
        address = Address(definition_of(actor).name, key)

        async def converse() -> None:
            what = f"deletes {address.service}/{address.key} and waits"
            outcome: Outcome = await self._converse(what, lambda process: process.delete(address), False)
            _value(outcome)

        return self._issue(converse(), f"deletion of {address.service}/{key}", CallSite(frame_above(1)))

    def edit_state(
        self, actor: type[VirtualObject], key: str, state: Mapping[str, bytes], *, version: str | None = None
    ) -> HostOperation[str]:
        """Replace the state of an object in its turn; the id of the edit, once durable. It is not asked for again.

        An edit has no key, so the repetition of a lost request might undo what came after it.
        """
        address, edit = Address(definition_of(actor).name, key), StateEdit(dict(state), version)

        async def converse() -> str:
            what = f"edits {address.service}/{key}"
            accepted: Acceptance = await self._converse(what, lambda process: process.edit_state(address, edit), False)
            return accepted.id

        return self._issue(converse(), f"edit of {address.service}/{key}", CallSite(frame_above(1)))

    def restart_as_new(self, id: str, from_step: int = 0) -> HostOperation[str]:
        """Begin an invocation that has ended once more; the id of the new one. It is not asked for again."""

        async def converse() -> str:
            what = f"restarts {id} from step {from_step} as new"
            new_id: str = await self._converse(what, lambda process: process.restart_as_new(id, from_step), False)
            return new_id

        return self._issue(converse(), f"restart of {id}", CallSite(frame_above(1)))

    def lookup(self, which: str | KeyScope) -> HostOperation[str]:
        """The id of an invocation, given by id, idempotency key or workflow id."""

        async def converse() -> str:
            id: str = await self._converse(f"looks up {which}", lambda process: process.lookup(which), True)
            return id

        return self._issue(converse(), f"lookup of {which}", CallSite(frame_above(1)))

    async def resume(self, id: str) -> Sequence[str]:
        """Let a paused invocation try again, as an operator does; the ids of what was paused."""
        try:
            effect = await self.act(Verb.RESUME, id)
        except InvocationStatusError:  # The order came twice, and it has ended meanwhile.
            return []
        return [id] if effect is Effect.DONE else []

    async def restart(self, id: str, from_step: int = 0) -> Sequence[str]:
        """Let a paused invocation begin anew, as an operator does; the ids of what was paused."""

        async def converse() -> Effect:
            what = f"restarts {id} from step {from_step}"
            told: Effect = await self._converse(what, lambda process: process.restart(id, from_step), True)
            return told

        try:
            effect = await self._issue(converse(), f"restart of {id}", CallSite(frame_above(1)))
        except InvocationStatusError:  # The order came twice, it was resumed meanwhile, or cannot begin from there.
            return []
        return [id] if effect is Effect.DONE else []

    # ------------------------------------------------------------------ inside

    def _keyed(self, outgoing: Outgoing[R]) -> Outgoing[R]:
        """A client that insists may have to ask more than once. Of the `run` of a workflow there is one anyhow."""
        if not self.insists or outgoing.may_join:
            return outgoing
        number = self._world.next_request(self.name)
        return msgspec.structs.replace(outgoing, idempotency_key=f"{self.name}-{number}", may_join=True)

    def _asked_by(self, ask: Ask) -> Ask:
        def asked(process: SimulatedProcess) -> Any:
            operation = ask(process)

            def answered(_: asyncio.Future[Any]) -> None:
                self._world.history.asked(operation.id, self.name)

            operation.add_done_callback(answered)
            return operation

        return asked

    def _issue(self, conversation: Coroutine[Any, Any, R], what: object, site: CallSite) -> HostOperation[R]:
        if is_in_a_handler():
            conversation.close()
            raise RuntimeError(
                "A simulated client was used in a handler. It is outside; a handler uses its context: ctx.object(...)."
            )
        operation: ClientOperation[R] = ClientOperation(self._world.loop, what, site)
        task = self._world.loop.create_task(conversation, name=f"{self.name}: {what}")

        def ended(task: asyncio.Task[R]) -> None:
            if operation.done():
                return
            if task.cancelled():
                operation.cancel()
            elif (error := task.exception()) is not None:
                operation.future.set_exception(error)
            else:
                operation.future.set_result(task.result())

        task.add_done_callback(ended)

        def given_up(operation: asyncio.Future[R]) -> None:
            if operation.cancelled():
                task.cancel()

        operation.add_done_callback(given_up)
        operation.taken = False
        self._world.issued(operation)
        return operation

    async def _order(self, what: str, ask: Ask, done: object, own: tuple[type[TerminalError], ...]) -> Any:
        """Ask for something to be done, until there is an answer.

        If an earlier request may have arrived, an error of `own` may be its doing: the invocation has ended, or is no
        longer there. Then the answer is `done`, as a client that cannot know more would take it.
        """
        return await self._converse(what, ask, True, own=own, done=done)

    async def _converse(
        self,
        what: str,
        ask: Ask,
        repeatable: bool,
        *,
        own: tuple[type[TerminalError], ...] = (),
        done: object = None,
    ) -> Any:
        """Ask until there is an answer, or, if one may not ask again, until that is out of the question."""
        world = self._world
        world.trace.note(self.name, what)
        may_have_arrived = False
        while True:
            exchange = _Exchange()
            try:
                answer = await self._exchange(ask, repeatable, exchange)
            except (InvocationStatusError, UnknownTargetError) as error:
                world.polls.answered(self.name, what, repr(error))
                is_own = isinstance(error, own) and error.code != TOO_EARLY
                if not (self.insists and is_own and (may_have_arrived or exchange.is_made_twice)):
                    raise
                world.trace.note(self.name, f"{what}: takes it as done, because {error}")
                return done
            except (NobodyThereError, OverloadedError) as error:
                if not self.insists:
                    raise
                reason: BaseException = error
            except (ConnectionLostError, StoreUnavailableError, RuntimeStoppedError) as error:
                if not (self.insists and repeatable):
                    raise
                may_have_arrived = True
                reason = error
            except DurablyError as error:
                world.polls.answered(self.name, what, repr(error))
                raise
            else:
                world.trace.note(self.name, f"{what}: is answered {_shown(answer)}")
                world.polls.answered(self.name, what, _told(answer))
                return answer
            world.trace.note(self.name, f"{what}: asks again, because {reason}")
            await asyncio.sleep(world.random.randrange(*PAUSE_US) / 1_000_000)

    async def _exchange(self, ask: Ask, repeatable: bool, exchange: _Exchange) -> Any:
        """One request, and its answer."""
        world = self._world
        answer: asyncio.Future[Any] = world.loop.create_future()
        world.injection.passes("message")
        strike = world.injection.strikes("client_retries", "message")
        trouble = "" if strike is None else _trouble(strike, repeatable)
        late_us = 0 if strike is None else strike.dice.randrange(LATE_US)
        if trouble == "request lost":
            self._breaks(answer, PATIENCE_US)
        else:
            delay_us = late_us if trouble == "late" else self._travel_us()
            self._travels(delay_us, self._arrives, ask, answer, trouble == "reply lost")
        if trouble == "twice":
            exchange.is_made_twice = True
            again: asyncio.Future[Any] = world.loop.create_future()
            again.add_done_callback(_nobody_cares)
            self._travels(late_us, self._arrives, ask, again, True)
        return await answer

    def _travels(self, for_us: int, arrives: Callable[[*Args], object], *args: *Args) -> None:
        """A message is on its way."""
        world = self._world

        def has_travelled() -> None:
            world.travelling -= 1
            arrives(*args)

        world.travelling += 1
        world.loop.call_outside(for_us, has_travelled)

    def _arrives(self, ask: Ask, answer: asyncio.Future[Any], reply_lost: bool) -> None:
        """A request comes to where the process should be."""
        world = self._world
        process = world.reached()
        if process is None or not process.is_up:
            _ends_with(answer, NobodyThereError("There is no process to connect to. Nothing was accepted."))
            return
        process.connections[answer] = None
        if process.halted:  # The system takes the connection, and the process will find it.
            world.loop.call_soon(self._taken_in, process, ask, answer, reply_lost, context=process.context)
        else:
            process.context.run(self._taken_in, process, ask, answer, reply_lost)

    def _taken_in(self, process: SimulatedProcess, ask: Ask, answer: asyncio.Future[Any], reply_lost: bool) -> None:
        """The process reads the request; run in its context."""
        world = self._world
        operation = ask(process)

        def answered(operation: asyncio.Future[Any]) -> None:
            if process.connections.pop(answer, ...) is ... or answer.done():
                _nobody_cares(operation)
            elif reply_lost:
                _nobody_cares(operation)
                self._breaks(answer, PATIENCE_US)
            else:
                world.injection.passes("reply")
                self._travels(self._travel_us("reply"), _hand_over, operation, answer)

        operation.taken_over().add_done_callback(answered, context=outside_context())

    def _breaks(self, answer: asyncio.Future[Any], after_us: tuple[int, int]) -> None:
        error = ConnectionLostError("No answer came. The request may have arrived or not.")
        self._world.loop.call_outside(self._world.random.randrange(*after_us), _ends_with, answer, error)

    def _travel_us(self, place: Place = "message") -> int:
        slow = self._world.injection.strikes("slow", place)
        return self._world.latencies.one_of(TRAVEL_US) if slow is None else slow.lasts_us


def _is_of_a_client(operation: object) -> bool:
    return isinstance(operation, ClientOperation)


def _trouble(strike: Strike, repeatable: bool) -> str:
    return strike.dice.choice(("request lost", "reply lost", "late", "twice" if repeatable else "late"))


def break_connections(process: SimulatedProcess, loop: SimulatedLoop, random: Random) -> None:
    """The process is dead: clients that wait for an answer of it find that out."""
    error = ConnectionLostError("The process died. The request may have arrived or not.")
    for answer in process.connections:
        loop.call_outside(random.randrange(*TRAVEL_US), _ends_with, answer, error)
    process.connections.clear()


def _ends_with(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)


def _hand_over(operation: asyncio.Future[Any], answer: asyncio.Future[Any]) -> None:
    if answer.done() or operation.cancelled():
        return
    error = operation.exception()
    if error is None:
        answer.set_result(operation.result())
    elif isinstance(error, StoreInUseError):  # The process has stopped for good, and will be replaced.
        answer.set_exception(NobodyThereError(f"The process serves no callers any more: {error}"))
    else:
        answer.set_exception(error)


def _nobody_cares(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _value(outcome: Outcome) -> bytes:
    if outcome.failed:
        raise decode_failure(outcome.value)
    return outcome.value


def _asked(outgoing: Outgoing[Any]) -> str:
    """A message, for people: `Ticket/2B/reserve {"who":"ann"}`."""
    key = "" if outgoing.key is None else f"{outgoing.key}/"
    argument = "" if outgoing.argument in (b"", b"{}") else f" {outgoing.argument.decode(errors='replace')}"
    return f"{outgoing.service}/{key}{outgoing.handler}{argument}"


def _told(answer: Any) -> str:
    """An answer, to be compared with others; that a message is accepted is news each time."""
    return f"{_shown(answer)} ({answer.id})" if isinstance(answer, Acceptance) else _shown(answer)


def _shown(answer: Any) -> str:
    if isinstance(answer, Acceptance):
        return f"accepted as {shown_id(answer.id)}"
    if not isinstance(answer, Outcome):
        return str(answer)
    if answer.failed:
        return f"failed: {describe_failure(decode_failure(answer.value))}"
    return answer.value.decode(errors="replace") or "nothing"
