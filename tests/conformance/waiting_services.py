"""Services that wait: for an awakeable, for a promise, for each other until they are cancelled or killed."""

from __future__ import annotations

import asyncio
from enum import StrEnum

from durably import (
    DurablePromise,
    ObjectContext,
    SharedWorkflowContext,
    TerminalError,
    VirtualObject,
    Workflow,
    WorkflowContext,
    handler,
    promise,
    shared,
    state,
)

CANCELLED = 409
NO_AWAKEABLE = "No awakeable is registered"


class AwakeableHolder(VirtualObject):
    """Keeps the id of an awakeable, and resolves it."""

    id: str | None = state(default=None)

    @handler
    async def hold(self, ctx: ObjectContext, id: str) -> None:
        self.id = id

    @handler(name="hasAwakeable")
    async def has_awakeable(self, ctx: ObjectContext) -> bool:
        return self.id is not None

    @handler
    async def unlock(self, ctx: ObjectContext, payload: str) -> None:
        if self.id is None:
            raise TerminalError(NO_AWAKEABLE)
        await ctx.resolve_awakeable(self.id, payload)


class BlockAndWaitWorkflow(Workflow):
    """Waits for a promise."""

    my_state: str | None = state(default=None, name="my-state")
    unblocked: DurablePromise[str] = promise(name="durable-promise")

    @handler
    async def run(self, ctx: WorkflowContext, text: str) -> str:
        self.my_state = text
        output = await self.unblocked
        if await self.unblocked.peek() is None:
            raise TerminalError("Durable promise should be completed")
        return output

    @shared
    async def unblock(self, ctx: SharedWorkflowContext, output: str) -> None:
        await self.unblocked.resolve(output)

    @shared(name="getState")
    async def get_state(self, ctx: SharedWorkflowContext) -> str | None:
        return self.my_state


class BlockingOperation(StrEnum):
    """How `block` blocks."""

    CALL = "CALL"
    SLEEP = "SLEEP"
    AWAKEABLE = "AWAKEABLE"


class CancelTestRunner(VirtualObject):
    """Notes that it was cancelled."""

    was_cancelled: bool = state(default=False, name="state")

    @handler(name="startTest")
    async def start_test(self, ctx: ObjectContext, operation: BlockingOperation) -> None:
        try:
            await ctx.object(CancelTestBlockingService, self.key).block(operation)
        except asyncio.CancelledError:  # This invocation was cancelled (rule E1).
            self.was_cancelled = True
        except TerminalError as error:  # The callee alone was.
            if error.code != CANCELLED:
                raise
            self.was_cancelled = True

    @handler(name="verifyTest")
    async def verify_test(self, ctx: ObjectContext) -> bool:
        return self.was_cancelled


class CancelTestBlockingService(VirtualObject):
    """Blocks for ever, once its first awakeable is resolved."""

    @handler
    async def block(self, ctx: ObjectContext, operation: BlockingOperation) -> None:
        awakeable = ctx.awakeable(str)
        await ctx.object(AwakeableHolder, self.key).hold(awakeable.id)
        await awakeable
        match operation:
            case BlockingOperation.CALL:
                await ctx.object(CancelTestBlockingService, self.key).block(operation)
            case BlockingOperation.SLEEP:
                await ctx.sleep(days=1024)
            case BlockingOperation.AWAKEABLE:
                await ctx.awakeable(str)

    @handler(name="isUnlocked")
    async def is_unlocked(self, ctx: ObjectContext) -> None: ...


class KillTestRunner(VirtualObject):
    """Starts a tree of calls that never ends."""

    @handler(name="startCallTree")
    async def start_call_tree(self, ctx: ObjectContext) -> None:
        await ctx.object(KillTestSingleton, self.key).recursive_call()


class KillTestSingleton(VirtualObject):
    """Calls itself, and so waits for itself."""

    @handler(name="recursiveCall")
    async def recursive_call(self, ctx: ObjectContext) -> None:
        awakeable = ctx.awakeable(str)
        await ctx.object(AwakeableHolder, self.key).hold.send(awakeable.id)
        await awakeable
        await ctx.object(KillTestSingleton, self.key).recursive_call()

    @handler(name="isUnlocked")
    async def is_unlocked(self, ctx: ObjectContext) -> None: ...
