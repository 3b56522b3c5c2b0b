"""`Supervisor`: keeps an engine running on a store, through failures of the store.

A failed commit ends the incarnation: half-open states do not exist. The store is opened again with backoff, a new
engine recovers from it, and callers that wait outside find their invocations again (rule X3). When somebody else has
taken the store over, or it is not the same store any more, the supervisor stops for good (rules X4 and X9).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from typing import Any

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.definition.dependencies import Dependencies
from durably.errors import RuntimeStoppedError, StoreInUseError, StoreLostError, StoreUnavailableError
from durably.runtime.actions.actions import Actions
from durably.runtime.clock import Cancellable
from durably.runtime.commit.thread_yielding import ThreadYielding
from durably.runtime.dependencies.made_dependencies import MadeDependencies
from durably.runtime.engine.assembly import Surroundings
from durably.runtime.engine.engine import Engine
from durably.runtime.environment import Environment
from durably.runtime.gateway.gateway import Gateway
from durably.runtime.gateway.pending_requests import unknown_outcome
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.lifecycle.subscriptions import is_fed
from durably.runtime.messaging.event_feeds import EventFeeds
from durably.runtime.supervision.advance_watch import AdvanceWatch
from durably.runtime.supervision.garbage_collection import CollectionWatch
from durably.sources import Feed
from durably.storage.codec_marker import encoded_error
from durably.storage.records import STREAMS, SUBSCRIPTIONS, Opened, OpenMessages, Owner, PlaceRecord
from durably.storage.store import Store

_HOPELESS_FAILURES = 3
"""After so many incarnations without a single commit, callers are told that the outcome is unknown."""


_SUSPECTS_KEPT = 1

CRASH_PATIENCE_SECONDS = 1.0
"""How long a crash for tests waits for actions that ignore their cancellation: nothing outlives a real one."""
_TEAR_DOWN_US = 1_000_000
"""How long the tear-down of dependencies has at least, even if the rest of a stop used up its time."""
_AT_ONCE_US = 1_000_000
"""How long a stop that is cut short may take to commit the last batch and to let the store go."""


class Supervisor:
    """Owns the engine of the moment."""

    def __init__(
        self,
        *,
        store: Store,
        actors: Mapping[str, BoundActor],
        dependencies: Dependencies,
        environment: Environment,
        sources: Sequence[tuple[Feed, BoundActorHandler]] = (),
    ) -> None:
        settings = environment.settings
        self.gateway = Gateway(self._refusal, environment.entropy, environment.settings.slice_bytes)
        self.engine: Engine | None = None
        self.feeds = EventFeeds(store)
        self.store_id = ""
        """Which store it is; known once it is open."""
        self.incarnations = 0
        self._store = store
        self._is_store_open = False
        """We have opened it at least once, and so have to close it."""
        self._actors = actors
        self._sources = sources
        self._clock = environment.clock
        self._entropy = environment.entropy
        self._settings = settings
        self._observer = environment.observer
        self.made = MadeDependencies(dependencies, self._observer.tear_down_failed)
        self._thread_yielding = ThreadYielding(self._clock, settings.give_way_us)
        self.actions = self._new_actions()
        self._collections = CollectionWatch(
            self._observer,
            clock=self._clock,
            slow_collection_us=settings.slow_collection_us,
            waiting=lambda: len(self.gateway.pending),
        )
        self._advances = AdvanceWatch(
            self._observer,
            lambda: self.engine,
            lambda: self.actions.loop_watch,
            clock=self._clock,
            slow_us=settings.slow_advance_us,
            blocked_us=settings.blocked_advance_us,
        )
        self._identity = Owner(host=socket.gethostname(), process_id=os.getpid(), since=self._clock.now())
        self._failure: BaseException | None = None
        self._newest_failure: BaseException | None = None
        """The same, or why the store could not be opened again since."""
        self._final: BaseException | None = None
        self._reopening: asyncio.Task[None] | None = None
        self._patience: Cancellable | None = None
        self._closing = False
        self._suspects: list[str] = []
        """The invocations that were being advanced when the last incarnations ended; empty for none."""
        self._failures = 0
        """Incarnations that have ended since the last batch that became durable."""
        self._reopen_delay_us = 0
        self._waits_for_time = False
        self._left: set[asyncio.Task[Any]] = set()
        """What a stop has not waited for to its end."""

    async def start(self) -> None:
        """Open the store, make the dependencies and recover.

        Nothing is made for a store that another process owns: a standby tries again and again.

        Raises:
            StoreInUseError, StoreUnavailableError: as the store says.
            Any error that a factory of a dependency raises.
        """
        try:
            opened = await self._open_store()
            await self.made.open()
            await self._begin_on(opened)
        except BaseException:
            if self._is_store_open:  # What was read next could not be read. Otherwise another runtime may have it.
                await self._store.close()
            await self.made.close()
            raise
        self._collections.begin()
        self._advances.begin()

    async def stop(self, *, interrupted: bool = False) -> KeyboardInterrupt | None:
        """Let what runs come to a rest, commit the last batch, tell who still waits, and let the store go (rule T4).

        What has not come about by then is left: no caller hears that it is durable, and the next start goes on from
        what the store holds. Being cancelled cuts the waiting short, not the rest. `interrupted`: somebody pressed
        Ctrl-C, and may do so again. If that comes while this very task runs, it is returned: raised here, it would end
        the event loop before the task of the host had ended.
        """
        self._collections.end()
        self._advances.end()
        self.feeds.close()
        engine = self.engine
        cut_short: asyncio.CancelledError | None = None
        ctrl_c: KeyboardInterrupt | None = None
        if engine is not None:
            engine.incarnation.stopping = True
            self.gateway.close()
            try:
                await self._drain(engine, interrupted)
            except asyncio.CancelledError as error:
                cut_short = error
                self._observer.stops_at_once()
            except KeyboardInterrupt as error:
                ctrl_c = error
                self._observer.stops_at_once()
        self._closing = True
        stop_us = self._settings.stop_us
        is_at_once = cut_short is not None or ctrl_c is not None
        left = await self._end(min(stop_us, _AT_ONCE_US) if is_at_once else stop_us)
        if left:
            self._observer.left_behind(left)
        if cut_short is not None:
            raise cut_short
        return ctrl_c

    async def _drain(self, engine: Engine, interrupted: bool) -> None:
        actions = self._actions_under_way(engine)
        if actions:
            self._observer.waits_for_actions(actions, self._settings.drain_us, interrupted)
        await self._in_time(self._settings.drain_us, engine.parts.idleness.until_idle())

    def _actions_under_way(self, engine: Engine) -> list[str]:
        """As `'charge' (CheckoutService/handle)`."""
        told: list[str] = []
        for attempted in self.actions.under_way():
            if attempted.is_wanted:
                invocation = engine.parts.registry.live.get(attempted.key[0])
                told.append(repr(attempted.name) + ("" if invocation is None else f" ({invocation.target})"))
        return told

    async def crash(self) -> None:
        """For tests: drop everything that is not durable, actions included, and recover."""
        await self._stop_reopening()
        engine, self.engine = self.engine, None
        self.gateway.close()
        if engine is not None:
            engine.kill()
            await engine.finish()
        self.actions.stop()
        await self.actions.ended(real_seconds=CRASH_PATIENCE_SECONDS)
        self.made.leave_all(())
        self.actions = self._new_actions()
        await self._store.close()
        await self._incarnate()
        self.gateway.reattach()

    @property
    def accepts_requests(self) -> bool:
        """The store is there, and no stop has been asked for."""
        return self.gateway.is_open

    def engine_in_charge(self) -> Engine:
        """The engine of the moment.

        Raises:
            StoreUnavailableError, RuntimeStoppedError: there is none.
        """
        if self.engine is None or not self.gateway.is_open:
            raise self._refusal()
        return self.engine

    async def until_durable(self) -> None:
        """Wait until all that is in the log now is on disk and the store is known to be ours.

        What introspection tells is an exit too (rules X1 and X9): wait before reading the store, and after it.
        """
        try:
            await self.engine_in_charge().until_durable()
        except StoreUnavailableError as error:
            raise self._final or error from None

    # ------------------------------------------------------------------ what incarnations report

    def _incarnation_failed(self, incarnation: Incarnation, error: BaseException) -> None:
        engine = self.engine
        if engine is None or engine.incarnation is not incarnation:
            return
        self.engine = None
        self.gateway.close()
        self._failure = self._newest_failure = self.gateway.pending.failure = error
        self._failures += 1
        self._suspects = [*self._suspects[-_SUSPECTS_KEPT:], incarnation.suspect]
        engine.kill()
        self.made.leave_all(self.actions.tasks())
        self.gateway.refuse_unaccepted()
        if isinstance(error, StoreInUseError | StoreLostError):
            self._give_up(error)
        else:
            self._observer.incarnation_failed(error)
        if self._final is not None or self._closing:
            return
        if self._patience is None:
            self._patience = self._clock.call_later(self._settings.outcome_unknown_after_us, self._lose_patience)
        self._reopening = asyncio.get_running_loop().create_task(self._reopen(engine))

    def _progressed(self) -> None:
        self._failures = 0
        self._reopen_delay_us = 0
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    # ------------------------------------------------------------------ inside

    def _refusal(self) -> BaseException:
        """Why no request is served now."""
        if self._final is not None:
            return self._final
        if self._failure is not None and not self._closing:
            return StoreUnavailableError(
                f"The store failed and is being opened again: {self._newest_failure} Nothing was accepted.",
                nothing_accepted=True,
            )
        return RuntimeStoppedError(
            "The runtime is not running: use it inside `async with runtime:`. Nothing was accepted."
        )

    def _new_actions(self) -> Actions:
        settings = self._settings
        return Actions(
            self._clock,
            settings.action_threads,
            self._thread_yielding,
            self._observer,
            settings.around_attempt,
            settings.action_thread_wait_us,
            settings.slow_advance_us,
        )

    async def _incarnate(self) -> None:
        await self._begin_on(await self._open_store())

    async def _open_store(self) -> Opened:
        opened = await self._store.open(self._identity)
        self._is_store_open = True
        if opened.is_encoded:  # Rule V8: what a codec has written is refused here, and not where it is first read.
            await self._store.close()
            raise encoded_error(self._store.describe())
        return opened

    async def _begin_on(self, opened: Opened) -> None:
        places = await self._places() if opened.has_places else []
        subscriptions = await self._store.load([SUBSCRIPTIONS], pending_limit=0) if opened.has_subscriptions else []
        shortened = await self._store.load([STREAMS], pending_limit=0) if self._has_beginners() else []
        left = await self._left_messages() if opened.last_position else {}
        tables = [actor.table for actor in self._actors.values() if actor.table is not None]
        if tables:
            await self._store.lay_tables(tables)
        self.incarnations += 1
        self.store_id = opened.store_id
        self.engine = Engine(
            Incarnation(self._incarnation_failed, self._progressed),
            Surroundings(
                actions=self.actions,
                actors=self._actors,
                clock=self._clock,
                entropy=self._entropy,
                last_position=opened.last_position,
                made=self.made,
                observer=self._observer,
                feeds=self.feeds,
                has_events=opened.has_events,
                has_schedules=opened.has_schedules,
                sources=self._sources,
                left=left,
                subscriptions=subscriptions[0].state if subscriptions else {},
                shortened=shortened[0].state if shortened else {},
                failure=self._failure,
                places=places,
                poisoned=self._poisoned(),
                settings=self._settings,
                store=self._store,
                thread_yielding=self._thread_yielding,
            ),
        )
        self.gateway.open(self.engine)
        self._failure = None
        self.actions.on_rest = self.engine.parts.idleness.changed
        self.engine.start()
        self.feeds.reopened()

    def _has_beginners(self) -> bool:
        """Some subscriptions begin with the oldest event, where they are new."""
        handlers = (handler for actor in self._actors.values() for handler in actor.handlers.values())
        return any(one.subscription is not None and one.subscription.start == "beginning" for one in handlers)

    async def _places(self) -> list[PlaceRecord]:
        """Who holds places of limits: known before anything starts (rule C9)."""
        portion = self._settings.recovery_portion
        places = await self._store.places(portion)
        while len(places) % portion == 0:
            more = await self._store.places(portion, after=places[-1].order)
            if not more:
                break
            places += more
        return places

    async def _left_messages(self) -> dict[BoundActorHandler, Sequence[OpenMessages]]:
        """What events and records became and has not ended: known before anything of it goes on (rules P2, P7)."""
        handlers = [one for actor in self._actors.values() for one in actor.handlers.values() if is_fed(one)]
        handlers += [handler for _, handler in self._sources]
        return {one: await self._store.open_messages(one.service, one.name) for one in handlers}

    async def _reopen(self, dead: Engine) -> None:
        """Try until the store is back; the longer it has been failing, the more slowly."""
        await dead.finish()
        while True:
            await self._pause_before_reopening()
            try:
                await self._incarnate()
                break
            except (StoreInUseError, StoreLostError) as error:
                self._give_up(error)
                return
            except Exception as error:
                self._newest_failure = self.gateway.pending.failure = error
                self._observer.reopen_failed(error, self._reopen_delay_us)
        self._reopening = None
        self._observer.recovered()
        self.gateway.reattach()

    def _poisoned(self) -> str:
        """The invocation that ended the last two incarnations, if one did: it is paused and not tried a third time."""
        suspects = set(self._suspects) if len(self._suspects) > _SUSPECTS_KEPT else {""}
        return suspects.pop() if len(suspects) == 1 else ""

    async def _pause_before_reopening(self) -> None:
        delay, settings = self._reopen_delay_us, self._settings
        self._reopen_delay_us = min(max(delay * 2, settings.reopen_first_us), settings.reopen_last_us)
        if delay:
            self._waits_for_time = True
            await self._clock.sleep(delay)
            self._waits_for_time = False

    async def _stop_reopening(self) -> None:
        reopening, self._reopening = self._reopening, None
        self._waits_for_time = False
        self._progressed()
        if reopening is not None:
            reopening.cancel()
            await asyncio.wait([reopening])

    def is_idle(self) -> bool:
        """Nothing can happen here unless time passes or somebody asks."""
        return self._waits_for_time if self.engine is None else self.engine.parts.idleness.is_idle()

    def own_tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that the runtime itself runs and waits in."""
        tasks = self.actions.tasks()
        if self._reopening is not None:
            tasks.add(self._reopening)
        return tasks

    def _lose_patience(self) -> None:
        self._patience = None
        error = self.gateway.pending.failure
        if self.engine is not None and self._failures < _HOPELESS_FAILURES:
            return  # It is back; nothing has had to be written yet.
        self.gateway.pending.refuse_all(partial(unknown_outcome, error))

    def _give_up(self, error: BaseException) -> None:
        self._final = error
        self._observer.stopped_for_good(error)
        self.gateway.pending.refuse_all(partial(unknown_outcome, error))
        # Another runtime goes on with these invocations: no side effect of ours may be started or tried again.
        self.actions.stop()

    async def _end(self, stop_us: int) -> list[str]:
        """What comes after the draining, in bounded time; returns what has not ended in it.

        The last commit gets half of the time. A store that is busy is closed all the same, which ends that commit.
        """
        clock = self._clock
        deadline = clock.monotonic() + stop_us
        self.actions.stop()
        engine = self.engine
        is_durable = engine is not None and await self._in_time(stop_us // 2, engine.until_durable())
        self.engine = None
        self.gateway.close()
        if engine is not None:
            engine.kill()
        if not is_durable:
            self.gateway.pending.refuse_all(partial(unknown_outcome, self.gateway.pending.failure))
        self.gateway.pending.refuse_all(stopped_error)
        left = [] if is_durable or engine is None else ["the last batch, of which it is unknown whether it is durable"]
        if not await self._in_time(deadline - clock.monotonic(), self._let_go(engine, is_durable)):
            left.append("the store, which stays locked")
        await self._in_time(deadline - clock.monotonic(), self.actions.ended())
        if not await self._in_time(max(deadline - clock.monotonic(), _TEAR_DOWN_US), self.made.close()):
            left.append("the tear-down of dependencies")
        return left + [f"the action {name!r}" for name in self.actions.left()]

    async def _let_go(self, engine: Engine | None, is_durable: bool) -> None:
        if engine is not None and is_durable:
            await engine.finish()
        await self._stop_reopening()
        await self._store.close()
        if engine is not None:
            await engine.finish()

    async def _in_time(self, limit_us: int, ending: Coroutine[Any, Any, Any]) -> bool:
        """Whether something has ended by then, and the store has not failed meanwhile. If not, it is left to itself."""
        task = asyncio.get_running_loop().create_task(ending)
        patience: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._clock.call_later(max(limit_us, 0), _lose, patience)
        try:
            await asyncio.wait([task, patience], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            timer.cancel()
            patience.cancel()
        if not task.done():
            self._left.add(task)
            task.add_done_callback(self._ended_by_itself)
            return False
        with contextlib.suppress(StoreUnavailableError):
            task.result()
            return True
        return False

    def _ended_by_itself(self, task: asyncio.Task[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()  # It is of no interest any more.


def _lose(patience: asyncio.Future[None]) -> None:
    if not patience.done():
        patience.set_result(None)


def stopped_error(id: str) -> RuntimeStoppedError:
    """What callers hear who still wait when the runtime stops (rule T4)."""
    if not id:
        return RuntimeStoppedError("The runtime stopped. Nothing was accepted.")
    return RuntimeStoppedError(
        f"The runtime stopped while {id} was under way; it will continue at the next start.", id=id
    )
