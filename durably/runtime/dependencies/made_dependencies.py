"""`MadeDependencies`: what factories have made for one run of a runtime, and its tear-down, the last first.

It outlives incarnations, as running actions do, which use it: after a failed commit, what was made for activations is
torn down once the actions of that time have ended. Nothing of dishka is imported unless there is a factory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from durably.actors.definition.dependencies import Asked, Dependencies

if TYPE_CHECKING:
    from dishka import AsyncContainer

    from durably.runtime.dependencies.container import DependencyContainer

TearDownFailed = Callable[[BaseException], None]


class ActivationScope:
    """What was made for one activation, by parameter of its class's constructor."""

    __slots__ = ("container", "values")

    def __init__(self, container: AsyncContainer, values: Mapping[str, Any]) -> None:
        self.container = container
        self.values = values


class MadeDependencies:
    """Sets up and tears down. `failed` hears what tear-downs raise."""

    def __init__(self, dependencies: Dependencies, failed: TearDownFailed) -> None:
        self._dependencies = dependencies
        self._failed = failed
        self._container: DependencyContainer | None = None
        self._open: dict[ActivationScope, None] = {}
        """In the order in which they were set up."""
        self._tear_downs: set[asyncio.Task[None]] = set()

    @property
    def opened(self) -> AbstractSet[ActivationScope]:
        """What there is for activations."""
        return self._open.keys()

    async def open(self) -> None:
        """Make what the runtime's classes and middleware need; nothing of it stays if that fails."""
        if not self._dependencies.factories:
            return
        from durably.runtime.dependencies.container import DependencyContainer

        self._container = DependencyContainer(self._dependencies)
        try:
            for unmade in self._dependencies.unmade:
                unmade.make(await self._container.made(unmade.asked))
        except BaseException:
            await self.close()
            raise

    async def enter(self, asked: Asked, key: str) -> ActivationScope:
        """Make what an activation needs; nothing of it stays if that fails."""
        assert self._container is not None, "it is open while handlers run"
        container = await self._container.enter(key)
        try:
            values = await self._container.made(asked, container)
        except BaseException:
            await self._tear_down(container)
            raise
        scope = ActivationScope(container, values)
        self._open[scope] = None
        return scope

    def wait_for(self, task: asyncio.Task[None]) -> None:
        """This task enters a scope: what it leaves behind is torn down before the runtime's dependencies."""
        self._tear_downs.add(task)
        task.add_done_callback(self._tear_downs.discard)

    def leave(self, scope: ActivationScope) -> None:
        """The activation has left memory: tear down what was made for it."""
        if self._open.pop(scope, self) is None:
            self._begin(self._leave_all([scope], ()))

    def leave_all(self, running: Collection[asyncio.Task[Any]]) -> None:
        """All activations are void: tear down what was made for them, once these actions have ended."""
        scopes, self._open = [*reversed(self._open)], {}
        if scopes:
            self._begin(self._leave_all(scopes, running))

    async def close(self) -> None:
        """Tear everything down: of activations first, the last that was set up before the others."""
        self.leave_all(())
        while self._tear_downs:
            await asyncio.wait([*self._tear_downs])
        container, self._container = self._container, None
        if container is not None:
            await self._tear_down(container)

    # ------------------------------------------------------------------ inside

    def _begin(self, tear_down: Any) -> None:
        self.wait_for(asyncio.get_running_loop().create_task(tear_down))

    async def _leave_all(self, scopes: Collection[ActivationScope], running: Collection[asyncio.Task[Any]]) -> None:
        if running:
            await asyncio.wait(running)
        for scope in scopes:
            await self._tear_down(scope.container)

    async def _tear_down(self, container: AsyncContainer | DependencyContainer) -> None:
        try:
            await container.close()
        except ExceptionGroup as group:
            for error in group.exceptions:
                self._failed(error)
