"""Services that fail: for good, at first, or because their code does something else at each attempt.

What they count lives in the process, outside of what is durable: that is how a suite learns how often code ran.
"""

from __future__ import annotations

from collections import Counter as Tally
from datetime import timedelta

import msgspec

from durably import ObjectContext, RetryPolicy, TerminalError, VirtualObject, handler
from tests.conformance.state_services import Counter

SUCCESS_ATTEMPT = 4
OTHER_KEY = "the-other-failing-object"
ELSEWHERE = "abc"
NAP_SECONDS = 0.1
MILLISECOND = timedelta(milliseconds=1)


class FailureToPropagate(msgspec.Struct, frozen=True, rename="camel"):
    """What to fail with."""

    error_message: str
    metadata: dict[str, str] | None = None

    def error(self) -> TerminalError:
        return TerminalError(self.error_message, metadata=self.metadata)


class Executions:
    """How often code has run in this process."""

    def __init__(self) -> None:
        self.failing_calls = 0
        self.succeeding_actions = 0
        self.failing_actions = 0
        self.attempts: Tally[str] = Tally()
        """Of non-deterministic handlers, by key."""


executions = Executions()


class Failing(VirtualObject):
    """Fails."""

    @handler(name="terminallyFailingCall")
    async def terminally_failing_call(self, ctx: ObjectContext, failure: FailureToPropagate) -> None:
        raise failure.error()

    @handler(name="callTerminallyFailingCall")
    async def call_terminally_failing_call(self, ctx: ObjectContext, failure: FailureToPropagate) -> None:
        await ctx.object(Failing, OTHER_KEY).terminally_failing_call(failure)

    @handler(name="failingCallWithEventualSuccess")
    async def failing_call_with_eventual_success(self, ctx: ObjectContext) -> int:
        executions.failing_calls += 1
        if executions.failing_calls < SUCCESS_ATTEMPT:
            raise RuntimeError(f"Failed at attempt {executions.failing_calls}")
        executions.failing_calls = 0
        return SUCCESS_ATTEMPT

    @handler(name="terminallyFailingSideEffect")
    async def terminally_failing_side_effect(self, ctx: ObjectContext, failure: FailureToPropagate) -> None:
        def fail() -> None:
            raise failure.error()

        await ctx.run("fail", fail)

    @handler(name="sideEffectSucceedsAfterGivenAttempts")
    async def side_effect_succeeds_after_given_attempts(self, ctx: ObjectContext, minimum_attempts: int) -> int:
        async def succeed_at_last() -> int:
            executions.succeeding_actions += 1
            if executions.succeeding_actions < minimum_attempts:
                raise RuntimeError(f"Failed at attempt {executions.succeeding_actions}")
            return executions.succeeding_actions

        return await ctx.run.options(retry=_every_millisecond(None))("succeed at last", succeed_at_last)

    @handler(name="sideEffectFailsAfterGivenAttempts")
    async def side_effect_fails_after_given_attempts(self, ctx: ObjectContext, max_attempts: int) -> int:
        async def fail() -> None:
            executions.failing_actions += 1
            raise RuntimeError(f"Failed at attempt {executions.failing_actions}")

        try:
            await ctx.run.options(retry=_every_millisecond(max(1, max_attempts)))("fail", fail)
        except TerminalError:
            return executions.failing_actions
        raise AssertionError("the action did not fail")


def _every_millisecond(max_attempts: int | None) -> RetryPolicy:
    return RetryPolicy(initial=MILLISECOND, factor=1, maximum=MILLISECOND, max_attempts=max_attempts)


class NonDeterministic(VirtualObject, suspend_after=0):
    """Does one thing at odd attempts and another at even ones.

    It leaves memory at each wait, so that there is an even attempt without a crash: the replay, which finds that the
    code does not fit the journal. Such an invocation is paused, and the counter is never told.
    """

    @handler(name="eitherSleepOrCall")
    async def either_sleep_or_call(self, ctx: ObjectContext) -> None:
        if _is_odd_attempt(self.key):
            await ctx.sleep(NAP_SECONDS)
        else:
            await ctx.object(Counter, ELSEWHERE).get()
        await _nap_and_count(ctx)

    @handler(name="callDifferentMethod")
    async def call_different_method(self, ctx: ObjectContext) -> None:
        if _is_odd_attempt(self.key):
            await ctx.object(Counter, ELSEWHERE).get()
        else:
            await ctx.object(Counter, ELSEWHERE).reset()
        await _nap_and_count(ctx)

    @handler(name="backgroundInvokeWithDifferentTargets")
    async def background_invoke_with_different_targets(self, ctx: ObjectContext) -> None:
        if _is_odd_attempt(self.key):
            await ctx.object(Counter, ELSEWHERE).get.send()
        else:
            await ctx.object(Counter, ELSEWHERE).reset.send()
        await _nap_and_count(ctx)

    @handler(name="setDifferentKey")
    async def set_different_key(self, ctx: ObjectContext) -> None:
        ctx.set("a" if _is_odd_attempt(self.key) else "b", "my-state")
        await _nap_and_count(ctx)


def _is_odd_attempt(key: str) -> bool:
    executions.attempts[key] += 1
    return executions.attempts[key] % 2 == 1


async def _nap_and_count(ctx: ObjectContext) -> None:
    await ctx.sleep(NAP_SECONDS)
    await ctx.object(Counter, ctx.key).add.send(1)
