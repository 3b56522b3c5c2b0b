"""What callers outside hear of a paused invocation."""

from __future__ import annotations

from durably.errors import PausedInvocationError
from durably.runtime.execution.failure_text import begin_in_user_code, describe_failure, known_attempt_failure
from durably.runtime.invocations.invocation import InvocationRun
from durably.storage.records import InvocationRecord


def pause_error(found: InvocationRun | InvocationRecord) -> PausedInvocationError:
    """Why an invocation is paused, with the handler's error as the cause where it is in memory."""
    if isinstance(found, InvocationRun) and found.paused_error is not None:
        told = PausedInvocationError(found.id, describe_failure(found.paused_error))
        told.__cause__ = begin_in_user_code(found.paused_error)
        return told
    known = known_attempt_failure(found.failure)
    return PausedInvocationError(found.id, f"{known.type}: {known.message}")
