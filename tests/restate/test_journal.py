"""A side effect starts when what it may follow from is durable: the time of its step, and state that others change."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from durably.actors.protocol.commands import Run, Sleep
from durably.restate.headers import OutgoingHeaders
from durably.restate.side_effects import SideEffects
from durably.restate.vm_journal import VmJournal
from durably.runtime.clock import SystemClock
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Step
from durably.runtime.observation.logs import RuntimeLogger


class StateMachine:
    """What of restate-sdk's is used, without a server: each notification comes when it is waited for."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.notified: dict[int, Any] = {}
        self.proposed: dict[int, bytes] = {}
        self._handles = 0

    def is_replaying(self) -> bool:
        return False

    def is_completed(self, handle: int) -> bool:
        return handle in self.notified

    def take_notification(self, handle: int) -> Any:
        return self.notified.pop(handle)

    def sys_run(self, name: str) -> Any:
        self.told.append(f"run {name}")
        return SimpleNamespace(handle=self.new_handle(), replayed=False)

    def propose_run_completion_success(self, handle: int, value: bytes) -> None:
        self.proposed[handle] = value

    def new_handle(self) -> int:
        self._handles += 1
        return self._handles


class SdkContext:
    """The context that restate-sdk gives a handler, as far as a step of side effects and sleeps goes."""

    def __init__(self) -> None:
        self.vm = StateMachine()
        self.run_coros_to_execute: dict[int, object] = {}
        self.waits: list[list[int]] = []
        """The handles of each wait."""

    def state_keys(self) -> asyncio.Future[list[str]]:
        keys: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        keys.set_result([])
        return keys

    def run_typed(self, name: str, action: object, options: object) -> Any:
        handle = self.vm.sys_run(name).handle
        self.run_coros_to_execute[handle] = action
        return SimpleNamespace(handle=handle)

    def sleep(self, delay: object, name: object = None) -> Any:
        self.vm.told.append("sleep")
        return SimpleNamespace(handle=self.vm.new_handle())

    async def create_poll_or_cancel_coroutine(self, tree: Any) -> None:
        handles = [one.handle for one in tree.children]
        self.waits.append(handles)
        self.vm.notified[handles[0]] = self.vm.proposed.get(handles[0], b"")


def _journal(ctx: SdkContext, *, is_shared: bool) -> VmJournal:
    clock = SystemClock()
    return VmJournal(
        cast(Any, ctx), OutgoingHeaders({}, None), clock=clock, side_effects=SideEffects(clock, RuntimeLogger()),
        is_atomic=False, is_shared=is_shared,
    )  # fmt: skip


def _no_action(_number: int) -> None:
    """Nothing runs here."""


EXECUTION = cast(Execution, SimpleNamespace(action=_no_action, compensating=0))


async def _begun(ctx: SdkContext, *, is_shared: bool) -> VmJournal:
    journal = _journal(ctx, is_shared=is_shared)
    assert await journal.read_state() == {}
    await journal.begin_step([])
    return journal


async def test_a_side_effect_waits_until_the_time_that_was_looked_at_is_durable() -> None:
    ctx = SdkContext()
    journal = await _begun(ctx, is_shared=False)
    assert journal.now() == journal.now() > 0
    journal.emit(Step(0, commands=(Sleep(journal.now()), Run("charge"))), EXECUTION, 0)
    assert ctx.vm.told == ["run at", "sleep", "run charge"]
    await journal.settle()
    assert ctx.waits == [[1, 2]]  # The time and the sleep; what is not waited for does not start.
    await journal.next()
    assert ctx.waits[-1] == [2, 3]


async def test_a_side_effect_waits_until_the_state_that_others_change_is_durable() -> None:
    ctx = SdkContext()
    journal = await _begun(ctx, is_shared=True)
    journal.emit(Step(0, commands=(Run("charge"),)), EXECUTION, 0)
    assert ctx.vm.told == ["run at", "run charge"]
    await journal.settle()
    assert ctx.waits == [[1]]
    delivered = await journal.next()
    assert (delivered.command, ctx.waits[-1]) == (0, [2])
    await journal.begin_step([delivered])
    journal.emit(Step(0, commands=(Run("mail"),)), EXECUTION, 1)
    await journal.settle()
    assert ctx.vm.told[-2:] == ["run charge", "run mail"]  # Nothing was read since.


async def test_a_step_that_looks_at_no_clock_records_no_time() -> None:
    ctx = SdkContext()
    journal = await _begun(ctx, is_shared=False)
    journal.emit(Step(0, commands=(Run("charge"),)), EXECUTION, 0)
    await journal.settle()
    assert (ctx.vm.told, ctx.waits) == (["run charge"], [])
