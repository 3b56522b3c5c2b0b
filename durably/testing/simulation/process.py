"""`SimulatedProcess`: one life of a program that embeds a runtime, from its start to its death.

The runtime is the real one. What the operating system would give it, it gets from the simulation: a clock, a disk,
randomness. Requests come in at the door as bytes and leave it as bytes; a killed process answers no request.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any, Protocol, Self, TypeVar

from durably.actors.actor import Actor
from durably.actors.definition.binding import BoundActorHandler
from durably.actors.limits import Limit
from durably.actors.middleware import MiddlewareGiven
from durably.actors.protocol.commands import CompleteAwakeable, Question, SendSignal
from durably.actors.retry import RetryPolicy
from durably.actors.transport import Delay, Outgoing
from durably.actors.values.slices import SLICE_BYTES
from durably.errors import NonDeterminismError, StoreInUseError, StoreUnavailableError
from durably.ids import Address, InvocationStatus, KeyScope
from durably.runtime.actions.actions import ActionKey
from durably.runtime.engine.engine import Engine
from durably.runtime.environment import Environment
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.gateway.control import Verb
from durably.runtime.gateway.pending_requests import (
    AcceptanceOperation,
    CompletionOperation,
    DecodedOperation,
    IdentificationOperation,
    OutcomeOperation,
    PendingRequest,
    PendingRequests,
    QuestionOperation,
)
from durably.runtime.gateway.requests import Acceptance, Effect
from durably.runtime.gateway.source_control import fed_handlers
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.lifecycle.schedules import ScheduleStatus
from durably.runtime.lifecycle.state_edits import StateEdit
from durably.runtime.observation.observer import Observer
from durably.runtime.runtime import Limits, PubSub, Runtime
from durably.runtime.settings import Settings, Watch
from durably.runtime.supervision.supervisor import Supervisor
from durably.sources import Feed
from durably.storage.introspection import InspectableStore
from durably.testing.harness.virtual import SeededEntropy
from durably.testing.simulation.action_faults import attempt_with_faults
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.coded import DecodingStore, ReversingCodec
from durably.testing.simulation.disk import SimulatedDisk, SimulatedStore
from durably.testing.simulation.disk import World as StoreWorld
from durably.testing.simulation.guarantees import Guarantees, MachineError
from durably.testing.simulation.loop import SimulatedLoop, outside_context, owner_variable
from durably.testing.simulation.options import Sources
from durably.testing.simulation.trace import Trace, TraceLog

R = TypeVar("R")

RESTART_US = 500_000
CODED = 1 / 6
"""The part of all runs whose runtime has a codec."""
_CENTURY_US = 100 * 365 * 86_400 * 1_000_000


class World(StoreWorld, Protocol):
    """The simulation, as its processes see it."""

    identities: Random
    """Where the randomness of each process comes from, apart from all other chance: ids must never come twice."""
    loop: SimulatedLoop
    clock: SimulatedClock
    disk: SimulatedDisk
    trace: Trace
    guarantees: Guarantees

    def pause_durable(self, invocation: InvocationRun, error: BaseException, /) -> None: ...
    def fail(self, error: BaseException, /) -> None: ...
    def action_begins(self, name: str, id: str = "", /) -> None: ...
    def action_ended(self, name: str, id: str = "", /) -> None: ...
    def action_failed(self, name: str, what: str, /) -> None: ...
    def invocation_ended(self, invocation: InvocationRun, /) -> None: ...


def _scope(outgoing: Outgoing[Any]) -> KeyScope:
    """What an idempotency key is unique in; without one, it is the `run` of a workflow."""
    return KeyScope(outgoing.service, outgoing.key or "", outgoing.handler, outgoing.idempotency_key or "")


class Tuning:
    """The numbers that a run's runtime runs by: small ones reach the corners of the machine sooner."""

    def __init__(self, random: Random, more: Random) -> None:
        """`more` makes the choices that have come later: a seed goes on meaning what it has meant."""
        self.suspend_after_us = random.choice((0, 0, 1_000, 1_000_000, None))
        self.passivate_after_us = random.choice((0, 10_000, 300_000_000))
        self.active_objects = random.choice((0, 2, 100_000))
        self.pending_in_memory = random.choice((1, 3, 1_000))
        self.batch_limit_transitions = random.choice((1, 5, 20_000))
        self.timer_window_us = random.choice((1_000_000, 60_000_000, _CENTURY_US))
        self.recovery_portion = random.choice((1, 3, 1_000))
        self.expiry_portion = random.choice((1, 1_000))
        self.pump_budget_us = random.choice((-1, 5_000))
        self.nothing_resident = random.choice((False, False, False, True))
        self.slice_bytes = random.choice((1, 16, SLICE_BYTES))
        self.waiting_attempts = random.choice((1, 2, 10_000))
        self.replayed_at_once = random.choice((1, 3, 200))
        self.codec = ReversingCodec() if more.random() < CODED else None
        self.limit_pools_kept = more.choice((0, 2, 1_024))
        self.long_journal_steps = more.choice((2, 8_192))
        self.large_changes_bytes = more.choice((16, 16 * 1024 * 1024))
        self.long_mailbox_percent = more.choice((0, 50))
        self.ready_at_once = more.choice((1, 2, 32))
        self.events_in_flight = more.choice((1, 2, 1_000))
        self.expiry_portion_steps = more.choice((1, 10_000))

    def settings(self, watch: Watch) -> Settings:
        """The numbers that no argument of a runtime sets."""
        return Settings(
            watch=watch,
            verify_replay=True,
            forgotten_await="error",
            give_way_us=None,
            slow_collection_us=None,
            blocked_advance_us=None,
            verify_every_us=None,
            pending_in_memory=self.pending_in_memory,
            batch_limit_transitions=self.batch_limit_transitions,
            timer_window_us=self.timer_window_us,
            recovery_portion=self.recovery_portion,
            expiry_portion=self.expiry_portion,
            expiry_portion_steps=self.expiry_portion_steps,
            pump_budget_us=self.pump_budget_us,
            nothing_resident=self.nothing_resident,
            slice_bytes=self.slice_bytes,
            replayed_at_once=self.replayed_at_once,
            limit_pools_kept=self.limit_pools_kept,
            long_journal_steps=self.long_journal_steps,
            large_changes_bytes=self.large_changes_bytes,
            long_mailbox_percent=self.long_mailbox_percent,
            ready_at_once=self.ready_at_once,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a process runs: the actors, what they depend on, and how."""

    actors: tuple[type[Actor], ...]
    dependencies: Mapping[Any, Any]
    middleware: Sequence[MiddlewareGiven]
    sources: Sources | None
    retry: RetryPolicy
    suspend_after_us: int | None
    limits: Mapping[str, Limit]
    """Those that handlers name."""
    mailbox_messages: int
    tuning: Tuning
    ready_queue: Callable[[], deque[InvocationRun]]
    watch: Watch

    def running(self, *actors: type[Actor]) -> Program:
        """The same with other code."""
        return replace(self, actors=actors)

    @property
    def suspend_after(self) -> timedelta | None:
        """How long an attempt waits in memory; None: while there is room."""
        after_us = self.tuning.suspend_after_us if self.suspend_after_us is None else self.suspend_after_us
        return None if after_us is None else timedelta(microseconds=after_us)


class SimulatedRuntime(Runtime):
    """The real runtime, in a simulated process."""

    def __init__(self, process: SimulatedProcess, program: Program, world: World) -> None:
        tuning = program.tuning
        super().__init__(
            _store_of(process, tuning, world),
            program.actors,
            dependencies=program.dependencies,
            middleware=program.middleware,
            sources=() if program.sources is None else program.sources(program.dependencies),
            retry=program.retry,
            suspend_after=program.suspend_after,
            passivate_after=timedelta(microseconds=tuning.passivate_after_us),
            limits=Limits(
                active_objects=tuning.active_objects,
                waiting_attempts=tuning.waiting_attempts,
                named=program.limits,
                mailbox_messages=program.mailbox_messages,
            ),
            pubsub=PubSub(in_flight=tuning.events_in_flight),
            codec=tuning.codec,
            environment=Environment(
                clock=world.clock,
                entropy=SeededEntropy(world.identities.getrandbits(64)),
                logger=partial(TraceLog, world.trace, process.name, process),
                observer=_ActionWatch(process, world),
                settings=replace(
                    tuning.settings(program.watch),
                    around_attempt=partial(attempt_with_faults, world),
                    ready_queue=program.ready_queue,
                ),
            ),
        )
        self._machine: Supervisor | None = None
        self._process = process
        process.starting = self

    def request_control(self, verb: Verb, id: str) -> Awaitable[Effect]:
        self._process.is_ordered(verb, id)
        return super().request_control(verb, id)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._machine = self._supervisor
        return self

    @property
    def fed(self) -> tuple[Sequence[BoundActorHandler], int, Sequence[tuple[Feed, BoundActorHandler]]]:
        """What gets events and records, and how many events of a subscription may be under way."""
        handlers = [handler for actor in self._actors.values() for handler in actor.handlers.values()]
        return handlers, self.pubsub.in_flight, fed_handlers(self._sources, self._actors)

    @property
    def supervisor(self) -> Supervisor:
        """What keeps it running, and still does while it stops."""
        assert self._machine is not None
        return self._machine

    @property
    def engine(self) -> Engine | None:
        """The incarnation of the moment."""
        return self.supervisor.engine

    @property
    def running_actions(self) -> set[ActionKey]:
        """The side effects under way, those that back off too."""
        return self.supervisor.actions.keys()


def _store_of(process: SimulatedProcess, tuning: Tuning, world: World) -> InspectableStore:
    store = SimulatedStore(world.disk, world, process)
    return store if tuning.codec is None else DecodingStore(store, tuning.codec)


class _ActionWatch(Observer):
    """Checks each start of a side effect, and tells the world of pauses."""

    def __init__(self, process: SimulatedProcess, world: World) -> None:
        self._process = process
        self._world = world

    def pause_durable(self, invocation: InvocationRun, error: BaseException, heard: bool) -> None:
        self._world.pause_durable(invocation, error)

    def tear_down_failed(self, error: BaseException) -> None:
        self._world.fail(error)

    def action_attempt_started(self, id: str, command: int, name: str) -> None:
        self._process.action_starts((id, command), name)
        self._world.action_begins(name, id)
        self._stop_if_dead()

    def action_attempt_ended(self, id: str, command: int, name: str) -> None:
        self._world.action_ended(name, id)
        self._stop_if_dead()

    def _stop_if_dead(self) -> None:
        """A process that was killed must not go on to the next line."""
        if self._process.dead:
            raise asyncio.CancelledError


class SimulatedProcess:
    """One life. `number` counts them from 1."""

    def __init__(self, world: World, program: Program, number: int) -> None:
        self.name = f"process {number}"
        self.number = number
        self.program = program
        self.dead = False
        self.halted = False
        """It is dead or stands still."""
        self.backlog: list[Any] = []
        """Callbacks that became ready while it stood still."""
        self.takes_over = False
        """Another process has the store, and does not stand in the way."""
        self.superseded_at_us: int | None = None
        """When another process had the store, or when it went on after that; None: it is the owner."""
        self.runtime: SimulatedRuntime | None = None
        """Once it has started."""
        self.starting: SimulatedRuntime | None = None
        """The same, also before it has."""
        self.connections: dict[asyncio.Future[Any], None] = {}
        """Requests that were taken in and not answered."""
        self._world = world
        self._actions: set[ActionKey] = set()
        """Side effects that were started."""
        self.started: asyncio.Future[None] = world.loop.create_future()
        """Done when it serves requests, or will not."""
        self.context = copy_context()
        self.context.run(owner_variable.set, self)

    @property
    def is_up(self) -> bool:
        return self.runtime is not None and not self.dead

    def start(self) -> None:
        """Begin to run; it may take a while until it is up."""
        self._world.trace.note(self.name, "starts")
        main = self._world.loop.create_task(self._main(), name=self.name, context=self.context)
        main.add_done_callback(lambda _: self.started.set_result(None), context=outside_context())

    async def stop(self) -> None:
        """Stop gracefully; run in the process's own context."""
        if self.runtime is not None:
            await self.runtime.__aexit__(None, None, None)
        self.die()

    def die(self) -> None:
        """Nothing of it runs any more."""
        self.dead = self.halted = True
        self.backlog.clear()

    async def _main(self) -> None:
        while True:
            runtime = SimulatedRuntime(self, self.program, self._world)
            try:
                await runtime.__aenter__()
            except StoreUnavailableError as error:
                self._world.trace.note(self.name, f"cannot start: {error}")
                await asyncio.sleep(RESTART_US / 1_000_000)
            except StoreInUseError as error:
                if self.superseded_at_us is None:
                    self._world.fail(error)
                else:
                    self._world.trace.note(self.name, f"gives up starting: {error}")
                return
            except Exception as error:
                self._world.fail(error)
                return
            else:
                self.runtime = runtime
                return

    # ------------------------------------------------------------------ the door

    def call(self, outgoing: Outgoing[Any]) -> PendingRequest[Outcome]:
        """Take a call in."""
        runtime = self._up()
        operation = _Call(runtime.supervisor.gateway.pending, f"call of {outgoing}", self, outgoing)
        runtime.supervisor.gateway.call(operation, outgoing, outgoing.argument, wire=outgoing.wire)
        return operation

    def send(self, outgoing: Outgoing[Any], delay: Delay) -> PendingRequest[Acceptance]:
        """Take a message in."""
        runtime = self._up()
        operation = _Send(runtime.supervisor.gateway.pending, f"send to {outgoing}", self)
        runtime.supervisor.gateway.send(operation, outgoing, outgoing.argument, delay, wire=outgoing.wire)
        return operation

    def attach(self, outgoing: Outgoing[Any]) -> PendingRequest[Outcome]:
        """Take in the question how an invocation with an idempotency key, or a workflow, ended."""
        runtime = self._up()
        operation = _Call(runtime.supervisor.gateway.pending, f"attach to {outgoing}", self)
        runtime.supervisor.gateway.result(operation, _scope(outgoing))
        return operation

    def identify(self, outgoing: Outgoing[Any]) -> PendingRequest[str]:
        """Take in the question which invocation a call has: one that is here, or by its key."""
        gateway = self._up().supervisor.gateway
        what = f"id of {outgoing}"
        call = next((one for one in gateway.pending if isinstance(one, _Call) and one.message is outgoing), None)
        if call is None:
            question = _Question(gateway.pending, what, self, self._has_told_id)
            gateway.lookup(question, _scope(outgoing))
            return question
        identification = _Identification(gateway.pending, what, call, self)
        gateway.identify(identification)
        return identification

    def _has_told_id(self, id: str) -> None:
        if self.superseded_at_us is None:
            self.guarantees.acknowledged(id)

    def output(self, outgoing: Outgoing[Any]) -> PendingRequest[Outcome]:
        """Take in the question how such an invocation has ended, if it has."""
        runtime = self._up()
        operation = _Call(runtime.supervisor.gateway.pending, f"output of {outgoing}", self)
        runtime.supervisor.gateway.output(operation, _scope(outgoing))
        return operation

    def output_of(self, id: str) -> PendingRequest[Outcome]:
        """Take in the question how an invocation has ended, if it has."""
        runtime = self._up()
        operation = _Call(runtime.supervisor.gateway.pending, f"output of {id}", self)
        runtime.supervisor.gateway.output(operation, id)
        return operation

    def result(self, id: str) -> PendingRequest[Outcome]:
        """Take in the question how an invocation ended."""
        runtime = self._up()
        operation = _Call(runtime.supervisor.gateway.pending, f"result of {id}", self)
        runtime.supervisor.gateway.result(operation, id)
        return operation

    def status(self, id: str) -> PendingRequest[InvocationStatus]:
        """Take in the question where an invocation stands."""
        gateway = self._up().supervisor.gateway
        operation = _Question(gateway.pending, f"status of {id}", self, partial(self.guarantees.told_status, id))
        gateway.status(operation, id)
        return operation

    def ask(self, question: Question) -> PendingRequest[bytes]:
        """Take in a question to the store."""
        gateway = self._up().supervisor.gateway
        operation: DecodedOperation[bytes] = DecodedOperation(gateway.pending, "a question to the store", None, bytes)
        gateway.ask(operation, question)
        return operation

    def complete(self, command: CompleteAwakeable) -> PendingRequest[None]:
        """Take in what an awakeable waits for."""
        runtime = self._up()
        operation = _Completion(runtime.supervisor.gateway.pending, command, self)
        runtime.supervisor.gateway.complete(operation)
        return operation

    def signal(self, command: SendSignal) -> PendingRequest[None]:
        """Take in a signal for an invocation."""
        runtime = self._up()
        operation = _Signal(runtime.supervisor.gateway.pending, command, self)
        runtime.supervisor.gateway.signal(operation, command)
        return operation

    def act(self, verb: Verb, id: str) -> PendingRequest[Effect]:
        """Take in what somebody wants done to an invocation."""
        gateway = self._up().supervisor.gateway
        self.is_ordered(verb, id)
        operation = _Question(gateway.pending, f"{verb} of {id}", self, partial(self.guarantees.told_effect, verb, id))
        gateway.act(operation, verb, id)
        return operation

    def is_ordered(self, verb: Verb, id: str) -> None:
        """The runtime is about to do something to an invocation."""
        if self.superseded_at_us is not None:
            return
        if verb in GOING_ON:
            self.guarantees.is_resumed(id)
        elif verb is Verb.PURGE_JOURNAL:
            self.guarantees.journal_is_unwanted(id)
        self.guarantees.is_ordered(id)

    def restart(self, id: str, from_step: int) -> PendingRequest[Effect]:
        """Take in that somebody wants a paused invocation to begin anew."""
        gateway = self._up().supervisor.gateway
        self.is_ordered(Verb.RESTART, id)
        told = partial(self.guarantees.told_effect, Verb.RESTART, id)
        operation = _Question(gateway.pending, f"restart of {id}", self, told)
        gateway.restart(operation, id, from_step)
        return operation

    def act_on_all(self, verb: Verb, target: str) -> PendingRequest[Sequence[str]]:
        """Take in what somebody wants done to all invocations of a target, which the program asks its runtime for."""
        runtime = self._up()
        asked = f"{verb} of {target}"
        told = partial(self.guarantees.told_effects, verb)
        operation = _Question(runtime.supervisor.gateway.pending, asked, self, told)
        verbs: Mapping[Verb, Callable[[str], Awaitable[Sequence[str]]]] = {
            Verb.CANCEL: runtime.cancel,
            Verb.KILL: runtime.kill,
            Verb.PAUSE: runtime.pause,
            Verb.RESUME: runtime.resume,
            Verb.PURGE: runtime.purge,
            Verb.PURGE_JOURNAL: runtime.purge_journal,
        }

        async def act() -> None:
            try:
                operation.finish(await verbs[verb](target))
            except Exception as error:
                operation.refuse(error)

        self._world.loop.create_task(act(), name=asked)
        return operation

    def act_on_schedule(self, name: str, status: ScheduleStatus) -> PendingRequest[bool]:
        """Take in that a schedule is to be turned on or off, which the program asks its runtime for."""

        def turn(runtime: Runtime) -> Awaitable[bool]:
            verbs: Mapping[ScheduleStatus, Callable[[str], Awaitable[bool]]] = {
                ScheduleStatus.ON: runtime.resume_schedule,
                ScheduleStatus.PAUSED: runtime.pause_schedule,
                ScheduleStatus.CANCELLED: runtime.cancel_schedule,
            }
            return verbs[status](name)

        return self.ask_runtime(f"{name} {status}", turn)

    def ask_runtime(self, asked: str, ask: Callable[[Runtime], Awaitable[bool]]) -> PendingRequest[bool]:
        """Take in something that the program asks its runtime for; whether that changed anything."""
        runtime = self._up()
        operation = _Question[bool](runtime.supervisor.gateway.pending, asked, self, _nothing_told)

        async def act() -> None:
            try:
                operation.finish(await ask(runtime))
            except Exception as error:
                operation.refuse(error)

        self._world.loop.create_task(act(), name=asked)
        return operation

    def delete(self, address: Address) -> PendingRequest[Outcome]:
        """Take in that an object is to be deleted, which somebody waits for."""
        gateway = self._up().supervisor.gateway
        operation = _Call(gateway.pending, f"deletion of {address.service}/{address.key}", self)
        self.guarantees.object_is_unwanted(operation)
        gateway.delete(operation, address)
        return operation

    def send_deletion(self, address: Address) -> PendingRequest[Acceptance]:
        """Take in that an object is to be deleted in its turn."""
        gateway = self._up().supervisor.gateway
        operation = _Send(gateway.pending, f"deletion of {address.service}/{address.key}", self)
        gateway.send_deletion(operation, address)
        return operation

    def edit_state(self, address: Address, edit: StateEdit) -> PendingRequest[Acceptance]:
        """Take in that the state of an object is to be replaced in its turn."""
        gateway = self._up().supervisor.gateway
        operation = _Send(gateway.pending, f"edit of {address.service}/{address.key}", self)
        gateway.edit_state(operation, address, edit)
        return operation

    def restart_as_new(self, id: str, from_step: int = 0) -> PendingRequest[str]:
        """Take in that an invocation which has ended is to begin once more."""
        gateway = self._up().supervisor.gateway
        operation = _Question(gateway.pending, f"restart of {id}", self, partial(self.guarantees.told_restarted, id))
        gateway.restart_as_new(operation, id, from_step)
        return operation

    def lookup(self, which: str | KeyScope) -> PendingRequest[str]:
        """Take in the question which invocation has an id, an idempotency key or a workflow id."""
        gateway = self._up().supervisor.gateway
        operation = _Question(gateway.pending, f"lookup of {which}", self, self.guarantees.told_id)
        gateway.lookup(operation, which)
        return operation

    def _up(self) -> SimulatedRuntime:
        assert self.runtime is not None
        return self.runtime

    # ------------------------------------------------------------------ what leaves it

    def answers(self, what: str, *, is_late: bool) -> bool:
        """Something leaves it; whether it has to be on the disk, as with all that the owner of the store lets out.

        `is_late`: it was asked for when the process had been superseded. What is let out at that very moment, and was
        asked for before, may follow from a commit or a check that ended right before it (rule X9).
        """
        since_us = self.superseded_at_us
        if since_us is not None and (is_late or self._world.loop.elapsed_us > since_us):
            self.guarantees.superseded_owner_answers(self.name, what)
        return since_us is None

    def action_starts(self, key: ActionKey, name: str) -> None:
        """A side effect is about to begin."""
        is_new = key not in self._actions
        self._actions.add(key)
        if self.superseded_at_us is None:
            self.guarantees.action_starts(key, name)
        elif is_new:
            self.answers(f"started the action {name!r}", is_late=False)

    @property
    def guarantees(self) -> Guarantees:
        return self._world.guarantees

    # ------------------------------------------------------------------ what its log tells (Watcher)

    def accepted(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.accepted(invocation)

    def attempted(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.attempted(invocation)

    def waits_for_limit(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.limits.waits(invocation)

    def given_place(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.limits.given(invocation)

    def stepped(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.stepped(invocation, self._position())

    def concluded(self, invocation: InvocationRun, last: Step, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.concluded(invocation, last, self._position())

    def ended(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is not None:  # It has not happened: nothing of it can become durable.
            return
        runtime = self.runtime
        engine = None if runtime is None else runtime.engine
        self._world.guarantees.ended(invocation, self._position(), None if engine is None else engine.parts.committer)
        self._world.invocation_ended(invocation)

    def deadlocked(self, invocation: InvocationRun, command: int, /) -> None:
        if self.superseded_at_us is not None:  # Its successor may have told it of the same one already.
            return
        engine = None if self.runtime is None else self.runtime.engine
        assert engine is not None
        parts = engine.parts
        self._world.guarantees.deadlocked(invocation, command, parts.registry.live.values(), parts.waiters.has)

    def killed(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.killed(invocation, self._position())

    def gave_up(self, error: BaseException, /) -> None:
        """A cancelled invocation ends even if its code fails; a replay that differs still fails the run."""
        if isinstance(error, NonDeterminismError):
            self._world.fail(error)

    def retries(self, invocation: InvocationRun, error: BaseException, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.retries(invocation, error)

    def paused(self, invocation: InvocationRun, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.paused(invocation)

    def delivered(self, subscription: str, event: int, position: int, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.deliveries.delivered(subscription, event, position)

    def taken(self, source: str, id: str, position: int, /) -> None:
        if self.superseded_at_us is None:
            self._world.guarantees.in_flight.taken(source, id, position)

    def incarnation_failed(self, error: BaseException, /) -> None:
        if not isinstance(error, StoreUnavailableError | StoreInUseError):
            told = MachineError(f"The runtime failed, and not because of the store: {error!r}")
            told.__cause__ = error
            self._world.fail(told)

    def _position(self) -> int:
        engine = None if self.runtime is None else self.runtime.engine
        return 0 if engine is None else engine.parts.committer.position


GOING_ON = (Verb.RESUME, Verb.RESTART)
"""What lets a paused invocation go on."""


class _Call(OutcomeOperation[Outcome]):
    """Answers with the outcome as bytes, and has every answer checked where it leaves."""

    def __init__(
        self,
        owner: PendingRequests,
        what: str,
        process: SimulatedProcess,
        message: Outgoing[Any] | None = None,
    ) -> None:
        super().__init__(owner, what, None)
        self.message = message
        """What is called; None: it waits for a call that was made before."""
        self._process = process
        self._is_late = process.superseded_at_us is not None

    def answer(self, outcome: Outcome, expires_at: int | None, cause: BaseException | None = None, /) -> None:
        is_owner = self._process.answers(f"answered the {self.what}", is_late=self._is_late)
        self._process.guarantees.answered(self.id, outcome, is_owner=is_owner)
        self.finish(outcome)


class _Identification(IdentificationOperation[str]):
    """Answers with the id of the invocation that a call has, and has that checked: it is durable."""

    def __init__(self, owner: PendingRequests, what: str, call: _Call, process: SimulatedProcess) -> None:
        super().__init__(owner, what, None, call, _first)
        self._process = process
        self._is_late = process.superseded_at_us is not None

    def finish(self, result: str) -> None:
        if self._process.answers(f"told the {self.what}", is_late=self._is_late):
            self._process.guarantees.acknowledged(result)
        super().finish(result)


class _Send(AcceptanceOperation[Acceptance]):
    """Answers when the message is durable, and has that checked."""

    def __init__(self, owner: PendingRequests, what: str, process: SimulatedProcess) -> None:
        super().__init__(owner, what, None, _itself)
        self._process = process
        self._is_late = process.superseded_at_us is not None

    def accepted(self, acceptance: Acceptance) -> None:
        if self._process.answers(f"acknowledged the {self.what}", is_late=self._is_late):
            self._process.guarantees.acknowledged(acceptance.id)
        super().accepted(acceptance)


class _Question(QuestionOperation[R]):
    """Answers a question, and has the answer checked."""

    def __init__(
        self, owner: PendingRequests, what: str, process: SimulatedProcess, check: Callable[[R], None]
    ) -> None:
        super().__init__(owner, what, None)
        self._check = check
        self._process = process
        self._is_late = process.superseded_at_us is not None

    def finish(self, result: R) -> None:
        if self._process.answers(f"answered the question for the {self.what}", is_late=self._is_late):
            self._check(result)
        super().finish(result)


class _Completion(CompletionOperation):
    """Answers when an awakeable is completed, and has that checked."""

    def __init__(self, owner: PendingRequests, command: CompleteAwakeable, process: SimulatedProcess) -> None:
        super().__init__(owner, f"completion of {command.id}", None, command)
        self._process = process

    def finish(self, result: None) -> None:
        self._process.guarantees.told_completed(self.command.id)
        super().finish(result)


class _Signal(QuestionOperation[None]):
    """Answers when an invocation has a signal, and has that checked."""

    def __init__(self, owner: PendingRequests, command: SendSignal, process: SimulatedProcess) -> None:
        super().__init__(owner, f"signal {command.name!r} to {command.invocation_id}", None)
        self._command = command
        self._process = process

    def finish(self, result: None) -> None:
        self._process.guarantees.told_signalled(self._command.invocation_id, self._command.name)
        super().finish(result)


def _nothing_told(_: bool) -> None:
    """Whether a verb changed anything says nothing that could be broken: somebody may ask twice."""


def _first(id: str, _joined: bool) -> str:
    return id


def _itself(acceptance: Acceptance) -> Acceptance:
    return acceptance


Ask = Callable[[SimulatedProcess], PendingRequest[Any]]
"""What a client wants of whichever process is there when the request arrives."""
