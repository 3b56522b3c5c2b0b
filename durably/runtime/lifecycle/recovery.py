"""`Recovery`: an incarnation goes on with what the store holds.

It goes in bounded portions beside the requests from outside, which are served meanwhile through the same loads (rule
T3). It only makes activations; loading one takes up what is in it, so there is no second code path.
"""

from __future__ import annotations

from collections.abc import Mapping

from durably.actors.definition.binding import BoundActor
from durably.ids import Address
from durably.runtime.activations.activations import Activations
from durably.runtime.incarnation.background import Background
from durably.runtime.incarnation.incarnation import Incarnation
from durably.runtime.lifecycle.deadlocks import Deadlocks
from durably.runtime.lifecycle.obedience import Obedience
from durably.runtime.limits.named_limits import NamedLimits
from durably.runtime.observation.observer import Observer
from durably.runtime.settings import Settings
from durably.storage.store import Store


class Recovery:
    """Runs once, in the background."""

    def __init__(
        self,
        incarnation: Incarnation,
        *,
        activations: Activations,
        actors: Mapping[str, BoundActor],
        background: Background,
        deadlocks: Deadlocks,
        last_position: int,
        named_limits: NamedLimits,
        obedience: Obedience,
        observer: Observer,
        settings: Settings,
        store: Store,
    ) -> None:
        """`last_position` is that of the log when the store was opened."""
        self._incarnation = incarnation
        self._activations = activations
        self._actors = actors
        self._background = background
        self._deadlocks = deadlocks
        self._named_limits = named_limits
        self._obedience = obedience
        self._observer = observer
        self._portion = settings.recovery_portion
        self._store = store
        self._until = last_position

    def start(self) -> None:
        self._background.spawn(self._recover())

    async def _recover(self) -> None:
        """Activate every object that has something to run, in order of acceptance."""
        after = 0
        while not self._incarnation.dead:
            found = await self._store.recoverable(after, self._portion)
            self._activate(found)
            await self._activations.settle()
            if len(found) < self._portion:
                break
            after = max(number for number, _ in found)
        if not self._incarnation.dead:
            self._named_limits.open()  # Rule C9: those who waited before the crash come before those who came after.
        await self._look_for_deadlocks()
        await self._carry_out_orders()
        paused = await self._store.paused(self._portion)
        if paused:
            self._observer.waiting_for_people(len(paused), paused[0])

    async def _look_for_deadlocks(self) -> None:
        """Rule E4: the process may have died between the last call of a circle and the look at it."""
        after = 0
        while self._deadlocks.is_on and not self._incarnation.dead:
            found = await self._store.held_up(after, self._portion)
            self._look_at(found)
            await self._activations.settle()
            if len(found) < self._portion:
                return
            after = max(number for number, _ in found)

    def _look_at(self, found: list[tuple[int, Address]]) -> None:
        for _, address in found:
            if self._incarnation.dead:
                return
            if address.service in self._actors:
                self._activations.with_loaded(address, self._deadlocks.object_recovered)

    async def _carry_out_orders(self) -> None:
        """Those of earlier lives; this one has looked up its own."""
        after = 0
        while not self._incarnation.dead:
            orders = await self._store.orders(after, self._portion)
            for order in orders:
                if order.position <= self._until:
                    self._obedience.look_up(order)
            if len(orders) < self._portion or orders[-1].position > self._until:
                break
            after = orders[-1].position

    def _activate(self, found: list[tuple[int, Address]]) -> None:
        for _, address in found:
            if self._incarnation.dead:
                return
            if address.service in self._actors:
                self._activations.activation(address)
            else:
                self._observer.nobody_home(address)
