"""`Attempt`: one attempt of one invocation on Restate, from the request to its outcome.

It drives an `Execution` as a runtime does: advance with what is to be delivered, tell Restate what the handler did,
wait for the next notification. What it is not told by Restate's journal it does not know, so the next attempt, on
another node perhaps, comes to the same place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from typing import Final, TypeVar

import restate
from restate.exceptions import RetryableError, SdkInternalException

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.headers import Forwarding
from durably.actors.retry import RetryPolicy
from durably.actors.values.error_envelopes import asked_delays, encode_failure
from durably.errors import (
    CancelledInvocationError,
    DeadlineExceededError,
    NonDeterminismError,
    TerminalError,
)
from durably.ids import SEED_BYTES, Address, KeyScope
from durably.restate.failures import to_restate
from durably.restate.headers import OutgoingHeaders, deadline_of, incoming_headers
from durably.restate.hosted_execution import HostedExecution, HostedInvocation
from durably.restate.journal import TOO_LATE, Context, Journal, JournalMismatchError
from durably.restate.side_effects import SideEffects
from durably.runtime.actions.action_attempt import retry_delay
from durably.runtime.clock import SystemClock
from durably.runtime.execution.failure_text import describe_failure
from durably.runtime.execution.step import AttemptFailure, Delivery, Outcome, Step
from durably.runtime.observation.logs import RuntimeLogger
from durably.runtime.settings import Settings

R = TypeVar("R")
SEED_BITS: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all attempts of a deployment share."""

    settings: Settings
    forwarding: Forwarding | None
    logger: RuntimeLogger
    clock: SystemClock
    side_effects: SideEffects
    journal_class: type[Journal]
    execution_class: type[HostedExecution]


class Attempt:
    """One attempt."""

    def __init__(self, ctx: Context, actor: BoundActor, handler: BoundActorHandler, surroundings: Surroundings) -> None:
        request = ctx.request()
        forwarding = handler.forwarding or surroundings.forwarding
        self._request = request
        self._actor = actor
        self._handler = handler
        self._surroundings = surroundings
        self._key = None if actor.definition.kind == "service" else ctx.key()
        self._headers = OutgoingHeaders(incoming_headers(request.headers), forwarding)
        self._journal = surroundings.journal_class(
            ctx, self._headers, clock=surroundings.clock, side_effects=surroundings.side_effects,
            is_atomic=handler.atomic, is_shared=handler.kind == "shared",
        )  # fmt: skip
        self._random = ctx.random().getrandbits(SEED_BITS)

    async def outcome(self, body: bytes) -> bytes:
        """The encoded result for this body.

        Raises:
            restate.TerminalError: the invocation failed.
            Exception: the attempt failed, and there is to be another one.
        """
        journal = self._journal
        try:
            argument = self._handler.admit(body)
        except TerminalError as error:
            raise to_restate(encode_failure(error)) from None
        try:
            snapshot = await self._state()
        except restate.TerminalError:  # Nothing that is read raises: it is a cancel.
            raise _cancelled() from None
        at = await journal.begin_step([])
        if journal.is_cancelled:
            raise _cancelled()
        invocation = self._invocation(argument)
        deadline = deadline_of(self._request.headers, self._handler.timeout_us, journal.now)
        if deadline is not None:
            if deadline <= journal.now():
                raise _too_late()
            invocation.deadline = self._headers.deadline = deadline
            journal.set_deadline(deadline)
        execution = self._surroundings.execution_class(
            self._actor, self._handler, invocation, snapshot, self._surroundings.logger, self._surroundings.settings,
            journal,
        )  # fmt: skip
        try:
            ended = await self._drive(execution, at)
        finally:
            journal.end()
            execution.close()
        if journal.deadline_has_passed:
            raise _too_late()
        if ended.failed:
            raise to_restate(ended.value)
        return ended.value

    async def _state(self) -> Mapping[str, bytes]:
        """The state that the handler begins with, as its class has it.

        Raises:
            UnreadableRecordError: it is of newer code, or cannot be migrated.
        """
        if self._key is None:
            return {}
        stored = await self._journal.read_state()
        try:
            return self._journal.at_version_of(self._actor, Address(self._handler.service, self._key), stored)
        except JournalMismatchError as error:
            raise NonDeterminismError(
                f"Restate's journal of {self._request.id} and the migrations of {self._handler.service} differ. Most "
                "likely they changed while the invocation was under way. Bring the old code back at this address, and "
                "register the new code at another one."
            ) from error.__cause__

    def _invocation(self, argument: bytes) -> HostedInvocation:
        request, service = self._request, self._handler.service
        idempotency_key = request.idempotency_key
        return HostedInvocation(
            id=request.id,
            address=Address(service, request.id if self._key is None else self._key),
            argument=argument,
            headers=incoming_headers(request.headers),
            scope=None
            if not idempotency_key
            else KeyScope(service, self._key or "", self._handler.name, idempotency_key),
            seed=blake2b(
                self._random.to_bytes(SEED_BITS // 8, "big") + request.id.encode(), digest_size=SEED_BYTES
            ).digest(),
        )

    async def _drive(self, execution: HostedExecution, at: int) -> Outcome:
        journal = self._journal
        deliveries: list[Delivery] = []
        while True:
            first = execution.next_command
            execution.replaying = journal.is_replaying()
            step = await _in_callback(partial(execution.advance, at, deliveries))
            journal.check()
            if isinstance(step, AttemptFailure):
                return self._after_failure(execution, step.error, deliveries)
            try:
                journal.emit(step, execution, first)
                await journal.settle()
                if step.outcome is not None:
                    return step.outcome
                deliveries = [await journal.next()]
                at = await journal.begin_step(deliveries)
            except JournalMismatchError as error:
                raise NonDeterminismError(self._differs(execution, step, first)) from error.__cause__
            except SdkInternalException:  # The core has told Restate what differs.
                self._surroundings.logger.warned(execution, self._differs(execution, step, first))
                raise

    def _differs(self, execution: HostedExecution, step: Step, first: int) -> str:
        asked = [
            f"{type(one).__name__} at {execution.where(number)}" for number, one in enumerate(step.commands, first)
        ]
        return (
            f"Restate's journal of {self._request.id} and the code of {self._handler.service}/{self._handler.name} "
            f"differ. In this step the code asked for: {', '.join(asked) or 'nothing'}. Most likely it changed while "
            "the invocation was under way. Bring the old code back at this address, and register the new code at "
            "another one."
        )

    def _after_failure(self, execution: HostedExecution, error: BaseException, deliveries: list[Delivery]) -> Outcome:
        """What an advance that failed means: another attempt, or an outcome.

        Raises:
            Exception: there is to be another attempt.
        """
        if any(one.command < 0 for one in deliveries):  # Rule E1 (e)
            told = f"The invocation was cancelled, and its handler failed as it was told: {describe_failure(error)}"
            return Outcome(True, encode_failure(CancelledInvocationError(told)))
        policy = self._handler.retry or self._surroundings.settings.retry
        if policy.gives_up_on(error):
            return Outcome(True, encode_failure(TerminalError(describe_failure(error))))
        raise _next_attempt(policy, error) from error


def _next_attempt(policy: RetryPolicy, error: BaseException) -> Exception:
    """What makes the SDK ask for another attempt."""
    if asked_delays(error):
        delay = timedelta(microseconds=retry_delay(policy, 1, error))
        return RetryableError(describe_failure(error), retry_after=delay)
    # The SDK would take some exceptions of a handler's for its own.
    return RuntimeError(describe_failure(error))


def _cancelled() -> restate.TerminalError:
    return to_restate(encode_failure(CancelledInvocationError()))


def _too_late() -> restate.TerminalError:
    return to_restate(encode_failure(DeadlineExceededError(TOO_LATE)))


async def _in_callback(function: Callable[[], R]) -> R:
    """Call it in a plain callback of the host's loop: never within one of its tasks."""
    loop = asyncio.get_running_loop()
    called: asyncio.Future[R] = loop.create_future()

    def call() -> None:
        if called.done():  # Restate has ended the attempt meanwhile.
            return
        try:
            result = function()
        except BaseException as error:
            called.set_exception(error)
        else:
            called.set_result(result)

    loop.call_soon(call)
    return await called
