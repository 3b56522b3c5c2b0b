"""What callers outside hear of a paused invocation."""

from __future__ import annotations

from durably.errors import PausedInvocationError
from durably.runtime.execution.failure_text import begin_in_user_code, decode_attempt_failure, describe_failure
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.records import InvocationRecord


def pause_error(found: InvocationRun | InvocationRecord) -> PausedInvocationError:
    """Why an invocation is paused, with the handler's error as the cause where it is in memory."""
    if isinstance(found, InvocationRun) and found.paused_error is not None:
        told = PausedInvocationError(found.id, describe_failure(found.paused_error))
        told.__cause__ = begin_in_user_code(found.paused_error)
        return told
    return PausedInvocationError(found.id, _recorded_reason(found.failure))


def _recorded_reason(failure: bytes | None) -> str:
    if failure is None:
        return "nothing is recorded"
    known = decode_attempt_failure(failure)
    return f"{known.type}: {known.message}"
