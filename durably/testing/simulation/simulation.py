"""`Simulation`: one run of the real runtime in a world made of a seed.

The world is an event loop with virtual time, a disk, a network with clients, a clock and a process, all of which go
wrong as `Faults` say. Everything random in it comes from one seed, so the same seed gives the same run, to the letter.
The models are the simulators of FoundationDB (Zhou and others, 2021) and of TigerBeetle.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from random import Random
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar, Unpack

from durably.actors.actor import Actor, Service, StateMachine, VirtualObject, Workflow
from durably.actors.definition.definition import definition_of
from durably.actors.protocol.entries import in_words, name_of_entry
from durably.actors.protocol.operations import HostOperation
from durably.actors.transport import Invocation as InvocationHandle
from durably.actors.values.durations import Duration, delay_us, duration_us, shown_duration
from durably.actors.values.error_envelopes import decode_failure
from durably.actors.values.type_checks import is_int
from durably.errors import ForgottenAwaitError, PausedInvocationError, StoreInUseError
from durably.ids import Address, InvocationStatus
from durably.runtime.commands.entry_commands import query_of
from durably.runtime.execution.step import Delivery
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import unrecorded_reads
from durably.storage.memory import LOAD_LIMIT_BYTES, ContradictionError, MemoryStore
from durably.storage.records import Batch, Owner, StoredInvocation
from durably.testing.harness.conditions import Condition, Conditions, InTheEnd, InvariantError, holds, name_of, plain
from durably.testing.harness.guard import ClockGuard
from durably.testing.harness.harness import ONE_ATTEMPT
from durably.testing.histories.linearizability import check_linearizable
from durably.testing.replaying.export import journal_of, read_answers
from durably.testing.replaying.replay import ReplayError, replay_journals
from durably.testing.report import Report
from durably.testing.simulation.clients import SimulatedClient
from durably.testing.simulation.clock import SimulatedClock
from durably.testing.simulation.concerned import events_of_concern
from durably.testing.simulation.disk import SimulatedDisk
from durably.testing.simulation.faults import Faults, Place
from durably.testing.simulation.guarantees import GuaranteeError, Guarantees, MachineError
from durably.testing.simulation.history import History
from durably.testing.simulation.injection import Injection, Strike
from durably.testing.simulation.latencies import Latencies
from durably.testing.simulation.loop import SimulatedLoop
from durably.testing.simulation.options import (
    MAILBOX_MESSAGES,
    NOTHING_KNOWN,
    Dependencies,
    Known,
    Options,
    check_options,
)
from durably.testing.simulation.polls import MOST_EQUAL_ANSWERS, Polls
from durably.testing.simulation.process import Program, SimulatedProcess, Tuning
from durably.testing.simulation.process_memory import ProcessMemory
from durably.testing.simulation.processes import LONGEST_STEP_US, SETTLE_US, Processes, wait_us
from durably.testing.simulation.schedule import Schedule, Shuffles, ready_queues
from durably.testing.simulation.trace import Entry, Trace, shown, shown_id, tail
from durably.testing.stores.snapshots import Snapshots

T = TypeVar("T")
ServiceT = TypeVar("ServiceT", bound=Service)
MachineT = TypeVar("MachineT", bound=StateMachine)
ObjectT = TypeVar("ObjectT", bound=VirtualObject)
WorkflowT = TypeVar("WorkflowT", bound=Workflow)

TEN_YEARS = 10 * 365 * 86_400.0
UNTIL_US = 1_000
ACTION_PATIENCE_US = 3_600_000_000
SHOWN_EVENTS = 40


class Attempted(NamedTuple):
    """An attempt of an action."""

    name: str
    by_owner: bool
    """The process had the store, as far as can be known."""


class Simulation:
    """One run: the actors in a simulated process, and the clients who ask them.

        with Simulation(Ticket, Cart, seed=7, faults=Faults.crash()) as sim:
            sim.run(program(sim))

    Usually `simulate` makes many of them. `object` and `service` ask as an ordinary client does who insists until there
    is an answer; `client(name)` gives others, and calls by name and bytes. `dependencies` may be a function that makes
    them, so that each run has its own; they are the world outside and survive crashes. By default each invocation gets
    one attempt, so that a bug in a handler ends the run, as in a `Harness`; as there, handlers that read a clock or
    roll dice past their context are found out, but for the modules in `allow`. Durations are timedeltas or seconds.
    """

    def __init__(
        self,
        *actors: type[Actor],
        seed: int = 0,
        faults: Faults | None = None,
        order: str | None = None,
        known: Known = NOTHING_KNOWN,
        **options: Unpack[Options],
    ) -> None:
        """`order` is None for what the seed wants, `"fifo"`, or `"fifo but 17, 23"` with the numbers of some shuffles.

        `known` is what a campaign has found out about the program.
        """
        if not isinstance(faults, Faults | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"faults= takes a value such as Faults.crash() | Faults.slow(), not {faults!r}.")
        check_options(options)
        if not is_int(seed):
            raise TypeError(f"seed= is a whole number, not {seed!r} ({type(seed).__name__}).")
        self.seed = seed
        self.random = Random(seed)
        schedule = Schedule.drawn(Random(f"{seed} schedule"))
        if order is not None:
            schedule = schedule.ordered(order)
        self.shuffles = Shuffles(seed, schedule)
        self.loop = SimulatedLoop(
            Random(self.random.getrandbits(64)),
            shuffle=self.shuffles,
            longest_us=duration_us(options.get("longest", TEN_YEARS), "Simulation(longest=...)"),
            most_callbacks=options.get("most_callbacks"),
        )
        self.polls = Polls(self.loop, options.get("most_polls", MOST_EQUAL_ANSWERS), self.fail)
        self.loop.tell_busiest = self.polls.busiest
        self.loop.tell_unanswered = self._unanswered
        self.identities = Random(self.random.getrandbits(64))
        self.travelling = 0
        self.latencies = Latencies(Random(self.random.getrandbits(64)), schedule.latencies)
        chosen = (Faults.none() if faults is None else faults).chosen(Random(f"{seed} chosen faults"), known.extent)
        self.injection = Injection(seed, chosen)
        self.clock = SimulatedClock(self.loop)
        self.disk = SimulatedDisk()
        self.trace = Trace(self.loop)
        self.history = History()
        self.conditions = Conditions(self.disk, self.fail, lambda: self.snapshots)
        self.guarantees = Guarantees(
            self.disk, self.history, self.clock, self.fail,
            retry=options.get("retry", ONE_ATTEMPT), mailbox_messages=options.get("mailbox_messages", MAILBOX_MESSAGES),
        )  # fmt: skip
        self.outcomes: Counter[str] = Counter()
        """How often each handler ended in each way: `Seat.reserve -> NotFreeError`."""
        self.ledger: list[Attempted] = []
        self.failed_attempts: Counter[str] = Counter()
        """Attempts of actions that failed because of a fault, by name."""
        self.dependencies: Mapping[Any, Any] = _made(options.get("dependencies"))
        """What the actors depend on: the world outside."""
        suspend_after = options.get("suspend_after")
        program = Program(
            actors=actors,
            dependencies=self.dependencies,
            middleware=options.get("middleware", ()),
            sources=options.get("sources"),
            retry=options.get("retry", ONE_ATTEMPT),
            limits=options.get("limits", {}),
            mailbox_messages=options.get("mailbox_messages", MAILBOX_MESSAGES),
            suspend_after_us=None
            if suspend_after is None
            else duration_us(suspend_after, "Simulation(suspend_after=...)"),
            tuning=Tuning(self.random, Random(f"{seed} codec")),
            ready_queue=ready_queues(schedule, Random(f"{seed} priorities")),
            watch=ClockGuard(options.get("allow", ())),
        )
        self._processes = Processes(self, program)
        self._processes.memory = known.memory
        self._models: dict[str, Callable[[], Any]] = {}
        self._failure: BaseException | None = None
        self._may_pause = False
        self._taken: tuple[int, Snapshots] | None = None
        """The last snapshots that were asked for, and in which callback."""
        self._had = chosen
        self._dice = Random(f"{seed} dice").getstate()
        self._requests: dict[str, int] = {}
        self._issued: list[HostOperation[Any]] = []
        self._default = SimulatedClient(self, "somebody")
        self.loop.on_time_passing = self._processes.check_at_rest
        self.loop.on_error = self.fail

    # ------------------------------------------------------------------ its life

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()

    def run(self, program: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
        """Run a program of the world outside to its end, and check what has to be true while it runs.

        Raises:
            GuaranteeError: durably broke a promise.
            InvariantError: something of `invariant` or `eventually` does not hold.
            PausedInvocationError: a handler failed with what is no outcome; its error is the cause.
            Any error that the program raises.
        """
        __tracebackhide__ = True
        processes = self._processes
        if processes.memory is None:
            processes.memory = ProcessMemory(
                processes.program.actors, (program,), self.dependencies, processes.program.middleware
            )
        is_first = not processes.lives and asyncio._get_running_loop() is None
        if is_first:
            processes.memory.begin_run()
            processes.begin_life()
        before = random.getstate()
        random.setstate(self._dice)
        try:
            if is_first and not self.faults.kinds:
                self._start_undisturbed(program)
            return self.loop.run_until_complete(program)
        except BaseException as error:
            if self._failure is None or self._failure is error:
                raise
            raise self._failure from self._failure.__cause__
        finally:
            self._dice = random.getstate()
            random.setstate(before)

    def finish(self) -> None:
        """End the run: let all happen that can without time passing, and check what must be true then.

        No more faults but those at chosen points.

        Raises:
            As `run` does.
        """
        self.faults = self.faults.at_points
        self.run(self._end())

    @property
    def faults(self) -> Faults:
        """What goes wrong from now on."""
        return self.injection.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self.injection.faults = faults

    def close(self) -> None:
        """Throw everything away."""
        self._processes.close()
        self.loop.close()

    @property
    def process(self) -> SimulatedProcess | None:
        """The process that has the store, or is about to open it; None: it is down."""
        return self._processes.current

    @property
    def lives(self) -> int:
        """Processes that were started."""
        return self._processes.lives

    @property
    def crashes(self) -> int:
        """Processes that were killed."""
        return self._processes.crashes

    def roll_anew(self, what: str) -> None:
        """From here on, chance depends on the seed and on this text, and no more on what has been rolled so far."""
        self.random.seed(f"{self.seed} {what}")
        self.loop.random.seed(f"{self.seed} {what} in executors")
        self.shuffles.roll_anew(f"{self.seed} {what} in order")
        self.latencies.roll_anew(f"{self.seed} {what} taking time")
        self.injection.roll_anew(f"{self.seed} {what} going wrong")

    def report(self) -> Report:
        """What was done so far."""
        return Report(
            runs=1,
            crashes=self.crashes,
            commits=self.disk.commits,
            actions=len(self.ledger),
            virtual_us=self.loop.elapsed_us,
            faults=dict(self.injection.times),
            outcomes=dict(self.outcomes),
            sometimes=self.conditions.met(),
            largest_bytes=self.conditions.largest,
            globals_changed=self._processes.globals_changed,
        )

    def account(self, error: BaseException | None = None) -> str:
        """What went wrong in the world, and the last things that happened, a line each.

        Of an error, what happened to the objects that it concerns.
        """
        entries: Sequence[Entry] = self.trace.entries
        if error is not None:
            entries = events_of_concern(
                entries, named_in=str(error), read=self._read_by(error), known=self.disk.addresses()
            )
        left_out = len(self.trace.entries) - len(entries)
        others = f" ({left_out} events of other objects are left out)" if left_out else ""
        times = "once" if self.crashes == 1 else f"{self.crashes} times"
        crashed = f"; it was killed {times}" if self.crashes else ""
        return f"What happened last, with {self._had!r}{crashed}{others}:\n{tail(entries, SHOWN_EVENTS)}"

    # ------------------------------------------------------------------ for programs

    def object(self, actor: type[ObjectT], key: str, /) -> ObjectT:
        """A reference to a virtual object, for somebody outside who insists until there is an answer."""
        return self._default.object(actor, key)

    def workflow(self, actor: type[WorkflowT], id: str, /) -> WorkflowT:
        """A reference to a workflow, for somebody outside who insists until there is an answer.

        A call of its `run` is not repeated, since the second one is refused: send it, and attach.
        """
        return self._default.workflow(actor, id)

    def service(self, actor: type[ServiceT], /) -> ServiceT:
        """A reference to a service, for somebody outside who insists until there is an answer."""
        return self._default.service(actor)

    def machine(self, machine: type[MachineT], /) -> MachineT:
        """The transitions and questions of a model, for somebody outside who insists until there is an answer."""
        return self._default.machine(machine)

    def publish(
        self, *events: Any, key: str | None = None, stream: str | None = None, idempotency_key: str | None = None
    ) -> Coroutine[Any, Any, None]:
        """Publish events, as somebody outside who insists until there is an answer."""
        return self._default.publish(*events, key=key, stream=stream, idempotency_key=idempotency_key)

    def invocation(self, id: str, returns: type[T], /) -> InvocationHandle[T]:
        """A handle on an invocation."""
        return self._default.invocation(id, returns)

    def client(self, name: str, *, insists: bool = True) -> SimulatedClient:
        """Somebody outside. One who does not insist hears of lost connections, and does not send idempotency keys."""
        return SimulatedClient(self, name, insists=insists)

    def actions(self, name: str | None = None, *, of_owners: bool = False) -> Sequence[str]:
        """The ledger of `ctx.run`: the name of each attempt of an action, in order; of one name, if given.

        `of_owners` leaves out the attempts of a process that had been superseded and did not know it yet.
        """
        ledger = [entry.name for entry in self.ledger if entry.by_owner or not of_owners]
        return [entry for entry in ledger if name is None or entry == name]

    @property
    def snapshots(self) -> Snapshots:
        """The state of all objects as it is on the disk."""
        taken = Snapshots(self.disk, self._processes.bound)
        self._taken = (self.loop.callbacks, taken)
        return taken

    async def advance(
        self, *delay: Duration, days: float = 0, hours: float = 0, minutes: float = 0, seconds: float = 0
    ) -> None:
        """Let virtual time pass. A bare number is seconds."""
        await wait_us(delay_us("advance", delay, days, hours, minutes, seconds))

    async def settle(self) -> None:
        """Wait until nothing can happen unless more time passes or somebody asks.

        Side effects are waited for, but not longer than an hour of virtual time.
        """
        quiet, step_us = 0, SETTLE_US
        patience_until = self.loop.elapsed_us + ACTION_PATIENCE_US
        while quiet < 3:
            await wait_us(step_us)
            is_patient = self.loop.elapsed_us <= patience_until
            if not self.travelling and self._processes.is_at_rest(but_for_actions=not is_patient):
                quiet, step_us = quiet + 1, SETTLE_US
            else:
                quiet, step_us = 0, min(2 * step_us, LONGEST_STEP_US)

    async def crash(self) -> None:
        """Kill the process, as `kill -9` does; it is started again at once."""
        await self._processes.crash()

    async def passivate(self) -> None:
        """Throw out of memory what the runtime may throw out: idle objects, and attempts that wait; nothing is lost."""
        await self._processes.passivate()

    async def restart(self, *actors: type[Actor]) -> None:
        """Stop the process gracefully and start it again, with other code if classes are given."""
        await self._processes.restart(*actors)

    def allow_pauses(self) -> None:
        """From now on a paused invocation does not end the run: its callers hear of it, and an operator resumes it."""
        self._may_pause = True

    @property
    def paused(self) -> Sequence[str]:
        """The ids of the invocations that are paused, as the disk says."""
        records = self.disk.records()
        return [record.id for record in records if record.status is InvocationStatus.PAUSED]

    async def resume(self, id: str, /) -> Sequence[str]:
        """Let a paused invocation try again, as an operator does with `Runtime.resume`. The ids of what was paused."""
        return await self._default.resume(id)

    def invariant(self, condition: Condition, /) -> None:
        """Something that is true of the durable state now, after every commit from now on, and at the end."""
        self.conditions.always(condition)

    def eventually(self, condition: Condition, /, *, within: Duration = 0) -> None:
        """Something that is true of the durable state at the end, when `within` more time has passed without faults."""
        within_us = duration_us(within, "eventually(within=...)")
        self.conditions.in_the_end.append(InTheEnd(plain(condition), within_us))

    def sometimes(self, name: str, condition: Condition | bool, /) -> None:
        """Something that is true in one run of a campaign at least; if it never is, the campaign fails.

        A bool is what is so at this moment. A function of the snapshots is asked after every commit from now on. It
        tells that a test reaches what it is about: that a seat was sold, that two people did meet.
        """
        self.conditions.sometimes(name, condition)

    def bounded(self, actor: type[VirtualObject] | type[Workflow], /, *, bytes: int) -> None:
        """The durable state of no object of this class is ever larger, however long it lives."""
        self.conditions.bounded(self._known(actor), bytes)

    async def until(self, condition: Condition, /, *, within: Duration = 60.0) -> None:
        """Let virtual time pass until something is true of the durable state.

        Raises:
            InvariantError: it is not, when `within` has passed.
        """
        plain(condition)
        deadline_us = self.loop.elapsed_us + duration_us(within, "until(within=...)")
        step_us = UNTIL_US
        while not holds(condition, self.snapshots):
            left_us = deadline_us - self.loop.elapsed_us
            if left_us <= 0:
                raise InvariantError(
                    f"{name_of(condition)} did not come true within {shown_duration(within)} of virtual time."
                )
            await wait_us(min(step_us, left_us))
            step_us = min(2 * step_us, LONGEST_STEP_US)

    def linearizable(self, actor: type[VirtualObject], model: Callable[[], Any], /) -> None:
        """Each object of this class answers every caller as one plain Python object that `model` makes would.

        Checked at the end of the run, for calls from outside and from other objects alike; see `check_linearizable`. A
        shared handler sees what an exclusive one has changed so far: where that one waits in the middle of its changes,
        only a model that knows such states can explain it.
        """
        self._models[self._known(actor)] = model

    # ------------------------------------------------------------------ what goes wrong (World)

    def note(self, what: str, /) -> None:
        self.trace.note("the world", what)

    def next_request(self, client: str, /) -> int:
        self._requests[client] = self._requests.get(client, 0) + 1
        return self._requests[client]

    def issued(self, operation: HostOperation[Any], /) -> None:
        self._issued.append(operation)

    def reached(self) -> SimulatedProcess | None:
        return self._processes.reached()

    def crash_by(self, strike: Strike, /) -> bool:
        return self._processes.kill_by(strike)

    def may_be_superseded(self, place: Place, /) -> None:
        strike = self.injection.strikes("superseded", place)
        if strike is not None:
            self._processes.supersede(strike)

    def refused(self, error: ContradictionError, /) -> None:
        self.fail(MachineError(str(error)))

    def superseded_owner_committed(self, name: str, /) -> None:
        self.guarantees.superseded_owner_answers(name, "committed a batch")

    def clock_may_jump(self) -> None:
        strike = self.injection.strikes("clock_jumps", "after_commit")
        if strike is not None:
            by_us = strike.dice.randrange(-strike.fault.for_us, strike.fault.for_us + 1)
            self.note(f"the wall clock jumps by {by_us / 1_000_000:.3f} s")
            self.clock.jump(by_us)

    def committed(self, batch: Batch, /) -> None:
        if batch.state or batch.entries or batch.entries_cleared:
            self.polls.state_changed()
        for record in batch.state:
            service, key = record.address
            value = "unset" if record.value is None else record.value.decode(errors="replace")
            self.trace.note("the disk", f"{service}/{key}: {record.field} = {value}")
        for (service, key), field in batch.entries_cleared:
            self.trace.note("the disk", f"{service}/{key}: {field} is empty")
        for entry in batch.entries:
            service, key = entry.address
            value = "removed" if entry.value is None else entry.value.decode(errors="replace")
            name = in_words(name_of_entry(entry.field, entry.key))
            self.trace.note("the disk", f"{service}/{key}: {name} = {value}")
        self.guarantees.committed(batch)
        self.conditions.after_commit(batch, self.snapshots)

    def opened(self, process: SimulatedProcess, /) -> None:
        self._processes.opened(process)
        self.guarantees.incarnation_begins()
        if process.starting is not None:
            self.guarantees.in_flight.process_begins(*process.starting.fed)

    def action_begins(self, name: str, id: str = "", /) -> None:
        process = self.loop.owner
        by_owner = not isinstance(process, SimulatedProcess) or process.superseded_at_us is None
        self.ledger.append(Attempted(name, by_owner))
        self.injection.passes("before_action")
        self.trace.note("an action", f"{name!r}{_of(id)} begins")
        self._may_crash("before_action")

    def action_failed(self, name: str, what: str, /) -> None:
        self.failed_attempts[name] += 1
        self.trace.note("an action", f"{name!r} {what}")

    def action_ended(self, name: str, id: str = "", /) -> None:
        self.trace.note("an action", f"{name!r}{_of(id)} has ended")
        self._may_crash("after_action")

    def pause_durable(self, invocation: InvocationRun, error: BaseException, /) -> None:
        if self._may_pause:
            return
        told = PausedInvocationError(invocation.id, f"{shown(invocation)}: {error!r}")
        told.__cause__ = error
        self.fail(told)

    def invocation_ended(self, invocation: InvocationRun, /) -> None:
        outcome = invocation.outcome
        assert outcome is not None
        ended = type(decode_failure(outcome.value)).__name__ if outcome.failed else "result"
        self.outcomes[f"{invocation.address.service}.{invocation.handler.name} -> {ended}"] += 1

    def fail(self, error: BaseException, /) -> None:
        """End the run with an error; the first one counts."""
        if self._failure is None:
            self._failure = error
            self.loop.stop_with(error)

    # ------------------------------------------------------------------ inside

    def _start_undisturbed(self, program: Awaitable[Any]) -> None:
        """Without faults the process is up before the program begins, so each client finds it."""
        try:
            self.loop.run_until_complete(self._processes.first_up())
        except BaseException:
            if isinstance(program, Coroutine):
                program.close()
            raise

    def _read_by(self, error: BaseException) -> Iterable[Address]:
        """The objects whose state led to an error: of a condition, or of the program at its end."""
        if isinstance(error, InvariantError):
            return error.read
        is_of_program = self._taken is not None and self._taken[0] == self.loop.callbacks
        return self._taken[1].read if is_of_program and self._taken is not None else ()

    def _unanswered(self) -> str:
        return ", ".join(f"the {operation.what}" for operation in self._issued if not operation.done())

    def _known(self, actor: type[VirtualObject] | type[Workflow]) -> str:
        """The name of a class that is simulated."""
        name = definition_of(actor).name
        if name not in self._processes.bound:
            raise ValueError(f"The simulation does not run {name}. Give {actor.__name__} to it after the program.")
        return name

    def _may_crash(self, place: Place) -> None:
        strike = self.injection.strikes("crash", place)
        if strike is not None:
            self.crash_by(strike)

    async def _end(self) -> None:
        await self._processes.up()
        await self.settle()
        for expected in self.conditions.in_the_end:
            if expected.within_us:
                await wait_us(expected.within_us)
                await self.settle()
            self.conditions.check(expected.condition, self.snapshots, "in the end")
        self.conditions.at_the_end()
        self.guarantees.at_the_end()
        self._check_forgotten()
        self.check_journals()
        for service, model in self._models.items():
            for key, calls in self.history.calls(service).items():
                check_linearizable(calls, model, name=f"{service}/{key}")
        await self._check_second_runtime()

    def _check_forgotten(self) -> None:
        """Fail for operations that were not awaited, and for errors that no code has looked at."""
        for operation in self._issued:
            if not operation.taken:
                self.fail(
                    ForgottenAwaitError(
                        f"{operation.what} was never awaited, at {operation.site}. It was asked for all the same; "
                        "write `await` before it."
                    )
                )
        for error in self.loop.unheard_errors():
            self.fail(error)

    def check_journals(self) -> None:
        """Guarantee 6, for what would be replayed if the process died now."""
        processes = self._processes
        if processes.has_old_journals:
            return
        loaded = [self.disk.load(address, 0, LOAD_LIMIT_BYTES) for address in self.disk.unfinished]
        journals = [
            journal_of(row, stored, self._read_again(row)) for stored in loaded for row in stored.started if row.steps
        ]
        if not journals:
            return
        try:
            program = processes.program
            replay_journals(journals, *program.actors, dependencies=self.dependencies, middleware=program.middleware)
        except ReplayError as error:
            self.fail(GuaranteeError(6, str(error)))

    def _read_again(self, row: StoredInvocation) -> Sequence[Delivery]:
        """What an invocation has read of entries, as it is on the disk."""
        reads = unrecorded_reads(row)
        queries = [query_of(row.record.address, command) for _, command in reads]
        return read_answers(reads, [self.disk.answer(query) for query in queries])

    async def _check_second_runtime(self) -> None:
        """Guarantee 8."""
        try:
            await MemoryStore(self.disk).open(Owner(host="another host", process_id=1, since=self.clock.now()))
        except StoreInUseError:
            return
        self.fail(GuaranteeError(8, "a second runtime could open the store."))


def _of(id: str) -> str:
    return f" of {shown_id(id)}" if id else ""


def _made(dependencies: Dependencies | None) -> Mapping[Any, Any]:
    if dependencies is None:
        return {}
    return dependencies() if callable(dependencies) else dependencies
