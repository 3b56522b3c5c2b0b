"""`continue_journal`: the code of one invocation, along its journal and one advance further, for tests and debuggers.

It goes as far as the next attempt in production would go before it has to wait: the same code, the answers of the
journal, no action run and nothing sent. So what fails there fails here, with the traceback of the handler, and a
breakpoint may hold it up for as long as somebody looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from durably.actors.definition.binding import BoundActor
from durably.errors import NonDeterminismError
from durably.ids import InvocationStatus
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import AttemptFailure, Step
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.runtime import Runtime
from durably.testing.replaying.journals import ExportedJournal, read_journals
from durably.testing.replaying.replay import (
    ReplayError,
    ReplayFailure,
    answers_of,
    difference,
    execution_of,
    has_lost_its_state,
    why_not,
)
from durably.testing.replaying.stand_ins import stand_in_for

_NOT_STARTED = (InvocationStatus.SCHEDULED, InvocationStatus.PENDING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """How far the code came."""

    steps: int
    """Of its journal, all of which it followed."""
    is_over: bool
    """It has ended."""
    waits_for: tuple[str, ...] = ()
    """The lines of the code that issued what it waits for now."""


def continue_journal(journal: ExportedJournal | str | Path, runtime: Runtime) -> Continued:
    """Run an exported invocation with the code of a runtime, from its first line to where it has to wait next.

    The runtime is not started, and stays as it is. What its factories would make is stood in for; what it was given is
    used.

    Raises:
        ReplayError: the code does not follow the journal, or there is none to follow.
        JournalFileError: the file holds no journal.
        Exception: what the handler raises.
    """
    __tracebackhide__ = True  # pytest shows the handler's own line.
    one = journal if isinstance(journal, ExportedJournal) else read_journals(journal)[0]
    return continue_with(one, bound_actors(runtime))


def bound_actors(runtime: Runtime) -> Mapping[str, BoundActor]:
    """The classes of a runtime, which need nothing to run along a journal."""
    replaying = copy(runtime)
    replaying.use_stand_ins(stand_in_for)
    return replaying.actors


def continue_with(journal: ExportedJournal, actors: Mapping[str, BoundActor]) -> Continued:
    """The same with bound classes."""
    __tracebackhide__ = True
    reason = _nothing_to_follow(journal, actors) or why_not(journal, actors)
    if reason is not None:
        raise ReplayError([ReplayFailure(journal=journal, reason=reason)], 1)
    execution = execution_of(journal, actors)
    try:
        return _continued(journal, execution)
    except NonDeterminismError as error:
        raise ReplayError([difference(journal, actors, CodeVersions(), error)], 1) from error
    finally:
        execution.close()


def _nothing_to_follow(journal: ExportedJournal, actors: Mapping[str, BoundActor]) -> str | None:
    if journal.status in _NOT_STARTED:
        return "It has not begun, so there is no journal to follow yet."
    if has_lost_its_state(journal, actors):
        return "It has ended, and the state of its object that its steps saw has gone with that."
    return None


def _continued(journal: ExportedJournal, execution: Execution) -> Continued:
    __tracebackhide__ = True
    execution.replay(journal.steps, answers_of(journal))
    last = journal.steps[-1] if journal.steps else None
    taken = {number for step in journal.steps for number in step.deliveries}
    waiting = [one for one in journal.deliveries if one.command not in taken]
    if last is None or (not last.is_last and waiting):
        at, attempt = (journal.accepted_at, 1) if last is None else (last.at, last.attempt)
        found = execution.advance(at, waiting, attempt)
        if isinstance(found, AttemptFailure):
            raise found.error
        last = found
    return Continued(steps=len(journal.steps), is_over=last.is_last, waits_for=_waits_for(execution, last))


def _waits_for(execution: Execution, last: Step) -> tuple[str, ...]:
    return () if last.is_last else tuple(dict.fromkeys(execution.where(number) for number in execution.pending))
