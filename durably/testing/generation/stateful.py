"""`ActorStateMachine`: hypothesis looks for a short program that breaks your actors.

Its rules are the handlers, called and waited for or called at once with others; time that passes; crashes, also in the
middle of a commit; restarts, also with new code; and memory that is thrown out. All of it happens in one `Simulation`,
where durably's own guarantees are checked too. A failure is told as the shortest program that hypothesis finds, with
the account of what happened last. Needs the extra `durably[testing]`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from typing import Any, ClassVar, cast

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from durably.actors.actor import Actor, VirtualObject
from durably.actors.definition.definition import definition_of
from durably.actors.machines.definitions import Definition
from durably.actors.machines.info import info_of
from durably.actors.machines.machine import Machine
from durably.actors.machines.model import Model
from durably.actors.machines.transition import Applied
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.errors import DefinitionError, TerminalError
from durably.testing import report as reports
from durably.testing.generation.strategies import (
    ActorCall,
    Callee,
    Overrides,
    calls,
    keys_of,
    parameter_strategies,
    parameters_taken,
    public_handlers,
)
from durably.testing.generation.transitions import check_history, is_machine
from durably.testing.harness.harness import ONE_ATTEMPT
from durably.testing.simulation import Faults, Simulation, Snapshots

LAST_SEED = 2**16 - 1
_PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)
"""Which lines only failing programs run says nothing of a machine whose order of things is another each time."""
MOST_OBJECTS = 3
"""So many objects of a machine make transitions: few, so that calls meet."""
TAKEN_NAMES = ("key", "object", "target", "targets")
"""What a handler's parameter may be called, and a rule's may not, or not once more."""


class ActorStateMachine(RuleBasedStateMachine):
    """A world with your actors in it, whose rules are what can happen.

        class TicketMachine(ActorStateMachine):
            actors = (Ticket, Cart)
            keys = {Ticket: ("A", "B"), Cart: ("ann", "bob")}
            overrides = {Cart.add_ticket: {"ticket_id": st.sampled_from("AB")}}

            def check(self, snapshots: Snapshots) -> None:
                assert ...

        TestTickets = TicketMachine.TestCase

    Each public handler is a rule `Cart_add_ticket(key=..., ticket_id=...)`, which waits for the answer; `start` and
    `at_once` have several calls under way. Of a machine each transition is one, on the objects that have been made:
    `Orders_pay(object=0, payment_reference=...)`. At rest the history of each object has to lead from state to state as
    its transitions declare, and to end with the state that it is in. A rule that you define yourself under such a name
    takes its place; other rules, invariants and bundles of hypothesis stand beside. They find the world in `self.sim`,
    and do something in it with `self.sim.run(...)`, or `self.ask(...)`.

    That a handler fails with a TerminalError is an answer. What else goes wrong in a handler fails the step.
    """

    actors: ClassVar[tuple[type[Actor], ...]] = ()
    """What the process runs."""
    new_actors: ClassVar[tuple[type[Actor], ...]] = ()
    """New code, for `restart_with_new_code`: these take the place of those with the same name on the wire."""
    keys: ClassVar[Mapping[type[Actor], Sequence[str]]] = {}
    """The objects of each class that are called: few, so that calls meet. Otherwise `"a"` and `"b"`."""
    overrides: ClassVar[Overrides] = {}
    """Strategies by type, and for the parameters of handlers; see `durably.testing.generation.calls`."""
    leave_out: ClassVar[tuple[Callee, ...]] = ()
    """Public handlers and transitions that no caller outside should call."""
    models: ClassVar[Mapping[type[VirtualObject], Callable[[], Any]]] = {}
    """Makers of plain objects like which the virtual ones have to behave; see `Simulation.linearizable`."""
    faults: ClassVar[Faults] = Faults.none()
    """What goes wrong besides the rules, as the seed decides."""
    seconds: ClassVar[Sequence[float]] = (0.001, 0.02, 1, 60, 900, 3_600, 86_400)
    """How long `pass_time` may let time pass."""
    middleware: ClassVar[Sequence[MiddlewareGiven]] = ()
    """The runtime's, around all handlers."""
    retry: ClassVar[RetryPolicy] = ONE_ATTEMPT
    suspend_after: ClassVar[Duration | None] = None
    allow: ClassVar[Collection[str]] = ()
    """Modules that may read a clock or roll dice past their context; see `Simulation`."""
    _generated: ClassVar[frozenset[str]] = frozenset()
    """Names of rules that were made here."""
    _calls: ClassVar[dict[tuple[type[Actor], ...], st.SearchStrategy[ActorCall]]] = {}
    """Of each class of machines: any call, by what runs."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = (set(dir(cls)) - cls._generated) | vars(cls).keys()
        for name in cls._generated - own:
            setattr(cls, name, None)
        rules = dict(_handler_rules(cls))
        for name in rules.keys() - own:
            setattr(cls, name, rules[name])
        cls._generated = frozenset(rules.keys() - own)
        cls._calls = {}
        cls.TestCase.settings = settings(cls.TestCase.settings, phases=_PHASES)

    def __init__(self) -> None:
        super().__init__()
        if not self.actors:
            raise DefinitionError(f"{type(self).__name__} has no actors. Write `actors = (Ticket, Cart)` in it.")
        self.running: tuple[type[Actor], ...] = self.actors
        """The code of the moment."""
        self._sim: Simulation | None = None
        self._under_way: list[asyncio.Task[None]] = []
        self._made: dict[str, list[str]] = {}
        """The objects of each machine that somebody outside has made, by the machine's name on the wire."""
        self._calls_now: tuple[Mapping[type[Actor], tuple[str, ...]], st.SearchStrategy[ActorCall]] | None = None
        """Any call, where the objects that it may be on are these."""
        self._outer_error = sys.exc_info()[1]

    # ------------------------------------------------------------------ for users

    def dependencies(self) -> Mapping[Any, Any]:
        """What the actors depend on, made anew for each program; it survives crashes, as the world outside does."""
        return {}

    def prepare(self) -> None:
        """Called when the process is up, before the first request."""

    def check(self, snapshots: Snapshots) -> None:
        """Called after each commit: raise where the durable state of an object is wrong, even while calls run."""

    def check_at_rest(self, snapshots: Snapshots) -> None:
        """Called when everything asked for is done, after `settle` and at the end: raise where something is wrong."""

    def answered(self, call: ActorCall, answer: Any) -> None:
        """Called with what somebody outside gets for a call: the result, or the TerminalError. Raise if it is wrong."""

    def ask(self, *calls: ActorCall) -> None:
        """Make calls at the same time, wait for all answers, and hand them to `answered`."""
        self._step(repr(calls), self._ask_all(calls))

    def any_call(self) -> st.SearchStrategy[ActorCall]:
        """Calls that somebody outside could make at the moment."""
        if any(map(is_machine, self.running)):
            return self._any_call_with_objects()
        strategy = self._calls.get(self.running)
        if strategy is None:
            strategy = calls(*self.running, keys=self.keys, overrides=self.overrides, leave_out=self.leave_out)
            self._calls[self.running] = strategy
        return strategy

    def _any_call_with_objects(self) -> st.SearchStrategy[ActorCall]:
        made = {actor: tuple(self.objects_of(actor)) for actor in self.running if is_machine(actor)}
        if self._calls_now is None or self._calls_now[0] != made:
            strategy = calls(
                *self.running, keys={**self.keys, **made}, overrides=self.overrides, leave_out=self.leave_out
            )  # fmt: skip
            self._calls_now = (made, strategy)
        return self._calls_now[1]

    def objects_of(self, machine: type[Actor]) -> Sequence[str]:
        """The ids of the first objects of a machine that somebody outside has made."""
        return self._made.get(definition_of(machine).name, [])[:MOST_OBJECTS]

    @property
    def sim(self) -> Simulation:
        """The world."""
        if self._sim is None:
            raise RuntimeError(
                "The world begins with the step `begin`. What has to be there before others is made in prepare(), "
                "not in an @initialize rule."
            )
        return self._sim

    # ------------------------------------------------------------------ the rules

    @initialize(seed=st.integers(0, LAST_SEED))
    def begin(self, seed: int) -> None:
        """The seed decides the order of what happens together, and how long everything takes."""
        self._sim = sim = Simulation(
            *self.actors,
            seed=seed,
            faults=self.faults,
            dependencies=self.dependencies,
            middleware=self.middleware,
            retry=self.retry,
            suspend_after=self.suspend_after,
            allow=self.allow,
        )
        for actor, model in self.models.items():
            sim.linearizable(actor, model)
        sim.invariant(self.check)
        sim.run(sim.settle())
        self.prepare()

    @rule(call=st.runner().flatmap(lambda machine: machine.any_call()))
    def start(self, call: ActorCall) -> None:
        """Make a call, and go on while it is under way."""
        self._step(repr(call), self._start(call))

    @rule(calls=st.runner().flatmap(lambda machine: st.lists(machine.any_call(), min_size=1, max_size=4)))
    def at_once(self, calls: list[ActorCall]) -> None:
        """Make calls at the same time, and wait for all answers."""
        self.ask(*calls)

    @rule(seconds=st.runner().flatmap(lambda machine: st.sampled_from(machine.seconds)))
    def pass_time(self, seconds: float) -> None:
        """Let virtual time pass."""
        self._step(f"pass {seconds}", self.sim.advance(seconds))

    @rule()
    def settle(self) -> None:
        """Wait until everything asked for is answered, and nothing can happen unless more time passes."""
        self._step("settle", self._settled())
        for actor in self.running:
            if is_machine(actor):
                self.sim.run(self._check_histories(actor))
        self.check_at_rest(self.sim.snapshots)

    @rule()
    def crash(self) -> None:
        """Kill the process, as `kill -9` does; it is started again."""
        self._step("crash", self.sim.crash())

    @rule(when=st.sampled_from(("before", "after")))
    def crash_while_committing(self, when: str) -> None:
        """Kill the process at its next commit, right before or right after it becomes durable."""
        sim = self.sim
        sim.faults |= Faults.crash(at=f"{when}_commit:{sim.disk.commits + 1}", down=0)

    @rule()
    def passivate(self) -> None:
        """Throw idle objects and waiting attempts out of memory."""
        self._step("passivate", self.sim.passivate())

    @rule()
    def restart(self) -> None:
        """Stop the process gracefully and start it again."""
        self._step("restart", self.sim.restart())

    @precondition(lambda self: bool(self.new_actors) and self.running is self.actors)
    @rule()
    def restart_with_new_code(self) -> None:
        """Stop the process gracefully and start it again with `new_actors`."""
        by_name = {definition_of(actor).name: actor for actor in (*self.actors, *self.new_actors)}
        self.running = tuple(by_name.values())
        self._step("restart with new code", self.sim.restart(*self.running))

    def teardown(self) -> None:
        """End the program: see that all ends well, unless something went wrong before."""
        if self._sim is None:
            return
        error = sys.exc_info()[1]
        try:
            if error is None or error is self._outer_error:
                self._sim.faults = Faults.none()
                self.settle()
                self._sim.finish()
        except Exception as failure:
            failure.add_note(self._account())
            raise
        else:
            if isinstance(error, Exception) and error is not self._outer_error:
                error.add_note(self._account())
        finally:
            reports.TOTALS.add(self._sim.report())
            self._sim.close()

    # ------------------------------------------------------------------ inside

    def _step(self, what: str, coroutine: Coroutine[Any, Any, None]) -> None:
        """Steps draw from dice of their own, so a program can lose one of them and the others go on as they did."""
        self.sim.roll_anew(what)
        self.sim.run(coroutine)

    async def _settled(self) -> None:
        while self._under_way:
            await self._under_way.pop()
        await self.sim.settle()

    async def _ask(self, call: ActorCall) -> None:
        """No caller may be waiting, so an error fails the step in which it happens."""
        try:
            try:
                answer = await call.on(self.sim)
            except TerminalError as error:
                answer = error
            if is_machine(call.actor) and call.key is None and isinstance(answer, Applied):
                answer = cast("Applied[Model]", answer)
                self._made.setdefault(definition_of(call.actor).name, []).append(answer.object.id)
            self.answered(call, answer)
        except Exception as error:
            self.sim.fail(error)

    async def _check_histories(self, machine: type[Actor]) -> None:
        front, name = self.sim.machine(cast("type[Machine[Any]]", machine)), definition_of(machine).name
        code = [one for one in (*self.actors, *self.new_actors) if definition_of(one).name == name]
        for version in await front.find_all(info_of(machine).model):
            check_history(code, version, await front.get_object_transitions(version.id, limit=1_000))

    async def _ask_all(self, calls: Sequence[ActorCall]) -> None:
        await asyncio.gather(*map(self._ask, calls))

    async def _start(self, call: ActorCall) -> None:
        self._under_way.append(asyncio.get_running_loop().create_task(self._ask(call), name=repr(call)))
        await asyncio.sleep(0)  # It is on its way before the next step.

    def _account(self) -> str:
        assert self._sim is not None
        return self._sim.account()


def _handler_rules(machine: type[ActorStateMachine]) -> Iterator[tuple[str, Any]]:
    """A rule for each handler of the code that runs, and of the new code, by name."""
    seen: set[str] = set()
    for actor in dict.fromkeys((*machine.actors, *machine.new_actors)):
        prefix = "new_" if actor.__name__ in seen else ""
        seen.add(actor.__name__)
        for handler in public_handlers(actor):
            if handler not in machine.leave_out:
                name = f"{prefix}{actor.__name__}_{handler.attribute}"
                yield name, _handler_rule(machine, actor, handler, name)


def _handler_rule(machine: type[ActorStateMachine], actor: type[Actor], handler: Callee, name: str) -> Any:
    if isinstance(handler, Definition):
        return _transition_rule(machine, actor, handler, name)
    strategies = parameter_strategies(handler, machine.overrides)
    names = {one: f"{one}_" if one in TAKEN_NAMES else one for one in strategies}
    has_key = definition_of(actor).kind != "service"
    drawn: dict[str, st.SearchStrategy[Any]] = {"key": keys_of(actor, machine.keys, handler)} if has_key else {}
    drawn |= _drawn(handler, strategies, names)

    def step(self: ActorStateMachine, **given: Any) -> None:
        arguments = {one: given[written] for one, written in names.items()}
        self.ask(ActorCall(actor, given.get("key") if has_key else None, handler.attribute, arguments))

    return precondition(lambda self: actor in self.running)(_rule(machine, name, drawn, step))


def _transition_rule(
    machine: type[ActorStateMachine], actor: type[Actor], transition: Definition[Any, Any], name: str
) -> Any:
    strategies = parameter_strategies(transition, machine.overrides)
    names = {one: f"{one}_" if one in TAKEN_NAMES else one for one in strategies}
    needs_object = bool(transition.sources)
    drawn: dict[str, st.SearchStrategy[Any]] = {"object": st.integers(0, MOST_OBJECTS - 1)} if needs_object else {}
    drawn |= _drawn(transition, strategies, names)

    def step(self: ActorStateMachine, **given: Any) -> None:
        made = self.objects_of(actor)
        arguments = {one: given[written] for one, written in names.items()}
        key = made[int(given["object"]) % len(made)] if needs_object else None
        self.ask(ActorCall(actor, key, transition.attribute, arguments))

    def can_be(self: ActorStateMachine) -> bool:
        return actor in self.running and (not needs_object or bool(self.objects_of(actor)))

    return precondition(can_be)(_rule(machine, name, drawn, step))


def _drawn(
    handler: Callee, strategies: Mapping[str, st.SearchStrategy[Any]], names: Mapping[str, str]
) -> dict[str, st.SearchStrategy[Any]]:
    """A strategy for each parameter, by its name in the rule; a default is drawn as often as another value."""
    return {
        names[one.name]: strategies[one.name] if one.required else st.just(one.default) | strategies[one.name]
        for one in parameters_taken(handler)
    }


def _rule(
    machine: type[ActorStateMachine],
    name: str,
    drawn: Mapping[str, st.SearchStrategy[Any]],
    step: Callable[..., None],
) -> Callable[..., None]:
    step.__name__ = name
    step.__qualname__ = f"{machine.__qualname__}.{name}"
    make_rule = cast("Callable[..., Callable[[Callable[..., None]], Callable[..., None]]]", rule)
    return make_rule(**drawn)(step)
