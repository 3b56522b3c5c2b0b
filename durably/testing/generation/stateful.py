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
from durably.actors.definition.definition import AnyHandler, definition_of
from durably.actors.retry import RetryPolicy
from durably.actors.values.durations import Duration
from durably.errors import DefinitionError, TerminalError
from durably.testing import report as reports
from durably.testing.generation.strategies import (
    ActorCall,
    Overrides,
    calls,
    keys_of,
    parameter_strategies,
    public_handlers,
)
from durably.testing.harness.harness import ONE_ATTEMPT
from durably.testing.simulation import Faults, Simulation, Snapshots

LAST_SEED = 2**16 - 1
_PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)
"""Which lines only failing programs run says nothing of a machine whose order of things is another each time."""
TAKEN_NAMES = ("key", "target", "targets")
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
    `at_once` have several calls under way. A rule that you define yourself under such a name takes its place; other
    rules, invariants and bundles of hypothesis stand beside. They find the world in `self.sim`, and do something in it
    with `self.sim.run(...)`, or `self.ask(...)`.

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
    leave_out: ClassVar[tuple[AnyHandler, ...]] = ()
    """Public handlers that nobody outside should call."""
    models: ClassVar[Mapping[type[VirtualObject], Callable[[], Any]]] = {}
    """Makers of plain objects like which the virtual ones have to behave; see `Simulation.linearizable`."""
    faults: ClassVar[Faults] = Faults.none()
    """What goes wrong besides the rules, as the seed decides."""
    seconds: ClassVar[Sequence[float]] = (0.001, 0.02, 1, 60, 900, 3_600, 86_400)
    """How long `pass_time` may let time pass."""
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
        self._outer_error = sys.exc_info()[1]

    # ------------------------------------------------------------------ for users

    def dependencies(self) -> Mapping[Any, Any]:
        """What the actors depend on, made anew for each program; it survives crashes, as the world outside does."""
        return {}

    def prepare(self) -> None:
        """Called when the process is up and nobody has asked for anything."""

    def check(self, snapshots: Snapshots) -> None:
        """Called after each commit: raise where the durable state of the objects is wrong, whatever is under way."""

    def check_at_rest(self, snapshots: Snapshots) -> None:
        """Called when everything asked for is done, after `settle` and at the end: raise where something is wrong."""

    def answered(self, call: ActorCall, answer: Any) -> None:
        """Called with what somebody outside gets for a call: the result, or the TerminalError. Raise if it is wrong."""

    def ask(self, *calls: ActorCall) -> None:
        """Make calls at the same time, wait for all answers, and hand them to `answered`."""
        self._step(repr(calls), self._ask_all(calls))

    def any_call(self) -> st.SearchStrategy[ActorCall]:
        """Calls that somebody outside could make at the moment."""
        strategy = self._calls.get(self.running)
        if strategy is None:
            strategy = calls(*self.running, keys=self.keys, overrides=self.overrides, leave_out=self.leave_out)
            self._calls[self.running] = strategy
        return strategy

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
        """Nobody may be waiting: what goes wrong fails the step in which it does."""
        try:
            try:
                answer = await call.on(self.sim)
            except TerminalError as error:
                answer = error
            self.answered(call, answer)
        except Exception as error:
            self.sim.fail(error)

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


def _handler_rule(machine: type[ActorStateMachine], actor: type[Actor], handler: AnyHandler, name: str) -> Any:
    strategies = parameter_strategies(handler, machine.overrides)
    names = {one: f"{one}_" if one in TAKEN_NAMES else one for one in strategies}
    has_key = definition_of(actor).kind != "service"
    drawn: dict[str, st.SearchStrategy[Any]] = {"key": keys_of(actor, machine.keys)} if has_key else {}
    for one in handler.signature.types.parameters:
        strategy = strategies[one.name]
        drawn[names[one.name]] = strategy if one.required else st.just(one.default) | strategy

    def step(self: ActorStateMachine, **given: Any) -> None:
        arguments = {one: given[written] for one, written in names.items()}
        self.ask(ActorCall(actor, given.get("key") if has_key else None, handler.attribute, arguments))

    step.__name__ = name
    step.__qualname__ = f"{machine.__qualname__}.{name}"
    make_rule = cast("Callable[..., Callable[[Callable[..., None]], Callable[..., None]]]", rule)
    return precondition(lambda self: actor in self.running)(make_rule(**drawn)(step))
