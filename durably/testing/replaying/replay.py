"""`replay_journals`: today's code against journals that a store held; what would pause in production fails the test.

Each journal is replayed as a runtime would after a restart, by the same code. Nothing but handlers runs: actions, calls
and sleeps are answered from the journal. A replay compares every step, so it proves each prefix of the journal too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durably.actors.actor import Actor
from durably.actors.definition.binding import BY_MACHINE, BoundActor, bind
from durably.actors.definition.dependencies import Dependencies
from durably.actors.events.subscribing import with_companions
from durably.actors.middleware import MiddlewareGiven
from durably.actors.retry import RetryPolicy
from durably.errors import DurablyError, InvalidArgumentError, NonDeterminismError
from durably.ids import InvocationStatus
from durably.runtime.execution.execution import Execution
from durably.runtime.execution.step import Delivery
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.invocations.journal import version_at
from durably.runtime.settings import Settings
from durably.testing.replaying.journals import ExportedJournal, JournalFileError, read_journals, this_python
from durably.testing.replaying.stand_ins import stand_in_for

_SETTINGS = Settings(retry=RetryPolicy(), suspend_after_us=0, passivate_after_us=0, retention_us=0, drain_us=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """What was replayed, all of it with the recorded result."""

    journals: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFailure:
    """A journal that today's code does not follow, and why."""

    journal: ExportedJournal
    reason: str
    step: int | None = None
    """The index of the step that differs, where a step does."""
    recorded: Sequence[str] = ()
    """What the step holds, a line each."""
    attempted: Sequence[str] = ()
    """What the code did instead."""

    def __str__(self) -> str:
        journal = self.journal
        where = "" if journal.path is None else f", {journal.path}"
        return f"{journal.target} ({journal.id}, {journal.status}{where}):\n{self.reason}"


class ReplayError(DurablyError, AssertionError):
    """Invocations that are under way would not go on with this code.

    `failures` has all of them.
    """

    failures: tuple[ReplayFailure, ...]

    def __init__(self, failures: Sequence[ReplayFailure], journals: int) -> None:
        told = "\n\n".join(str(failure) for failure in failures)
        super().__init__(f"{len(failures)} of {journals} journals do not replay with this code.\n\n{told}")
        self.failures = tuple(failures)


def replay_journals(
    journals: str | Path | Iterable[ExportedJournal | str | Path],
    *actors: type[Actor],
    dependencies: Mapping[Any, Any] | None = None,
    middleware: Sequence[MiddlewareGiven] = (),
) -> ReplayReport:
    """Replay journals with these classes: a file, a folder, or several of them, or what `read_journals` gave.

    Dependencies that a constructor asks for and that are not given get a stand-in, since nothing calls them on replay;
    what would call them raises. Give those that handlers themselves look at (settings, say). Nothing is made by a
    `factory`: it counts as not given. `middleware` is the runtime's. An invocation that has not
    begun is checked too: its handler is there and takes its argument. Journals of exclusive handlers that have ended
    are passed by, since the state that their steps saw has gone.

    Raises:
        ReplayError: some do not replay; it tells of all of them, each with recorded against attempted.
        JournalFileError: a file holds no journal, or a folder no file with one.
        DefinitionError: a class cannot work.
    """
    __tracebackhide__ = True  # pytest shows the test's own line and the account.
    given = Dependencies({} if dependencies is None else dependencies, stand_in_for)
    several = (bind(actor, given, middleware=middleware) for actor in with_companions(actors))
    bound = {one.definition.name: one for one in several}
    read = [
        journal
        for journal in _read(journals)
        if journal.handler not in BY_MACHINE and not has_lost_its_state(journal, bound)
    ]
    failures: list[ReplayFailure] = []
    versions = CodeVersions()
    for journal in read:
        failure = failure_of(journal, bound, versions)
        if failure is not None:
            failures.append(failure)
    if failures:
        raise ReplayError(failures, len(read))
    return ReplayReport(journals=len(read), steps=sum(len(journal.steps) for journal in read))


def _read(journals: str | Path | Iterable[ExportedJournal | str | Path]) -> list[ExportedJournal]:
    several = [journals] if isinstance(journals, str | Path) else journals
    read: list[ExportedJournal] = []
    for one in several:
        if isinstance(one, ExportedJournal):
            read.append(one)
        else:
            found = read_journals(one)
            if not found:
                raise JournalFileError(
                    f"There is no journal in the folder {one}, so nothing is proven: `durably export-journals` writes "
                    "journals as .json files. Name the folder that it wrote to. Where nothing may be under way, write "
                    f'replay_journals(read_journals("{one}"), ...); that is in durably.testing.replaying.journals.'
                )
            read.extend(found)
    return read


def has_lost_its_state(journal: ExportedJournal, actors: Mapping[str, BoundActor]) -> bool:
    """It has ended, and the state of its object that its steps saw has gone with that."""
    actor = actors.get(journal.service)
    handler = None if actor is None else actor.handlers.get(journal.handler)
    return journal.status is InvocationStatus.COMPLETED and handler is not None and handler.is_exclusive


def failure_of(
    journal: ExportedJournal, actors: Mapping[str, BoundActor], versions: CodeVersions
) -> ReplayFailure | None:
    """Why this journal does not replay, or None if it does. `versions` names the code that replays it."""
    reason = why_not(journal, actors)
    if reason is not None:
        return ReplayFailure(journal=journal, reason=reason)
    execution = execution_of(journal, actors)
    try:
        execution.replay(journal.steps, answers_of(journal))
    except NonDeterminismError as error:
        return difference(journal, actors, versions, error)
    finally:
        execution.close()
    return None


def difference(
    journal: ExportedJournal, actors: Mapping[str, BoundActor], versions: CodeVersions, error: NonDeterminismError
) -> ReplayFailure:
    """What code that does not follow a journal fails with."""
    handler = actors[journal.service].handlers[journal.handler]
    versions.tell(error, journal.versions, handler)
    made_by = version_at(journal.versions, error.step)
    is_told = made_by is not None and made_by.python != this_python()
    about_python = "" if is_told else _about_python(journal)
    return ReplayFailure(
        journal=journal,
        reason=f"{error}{about_python}",
        step=error.step,
        recorded=error.recorded,
        attempted=error.attempted,
    )


def why_not(journal: ExportedJournal, actors: Mapping[str, BoundActor]) -> str | None:
    """What keeps a journal from being replayed at all; None: nothing."""
    actor = actors.get(journal.service)
    if actor is None:
        return f"No class named {journal.service!r} was given; there are: {', '.join(actors) or 'none'}."
    handler = actor.handlers.get(journal.handler)
    if handler is None:
        return (
            f"{journal.service} has no handler {journal.handler!r}, and this invocation of it is under way; there are: "
            f"{', '.join(actor.handlers)}. Keep the handler until none is."
        )
    try:
        handler.check(journal.argument)
    except InvalidArgumentError as error:
        return f"The argument that it was accepted with does not fit the handler any more: {error}"
    answers = answers_of(journal)
    missing = [number for step in journal.steps for number in step.deliveries if number not in answers]
    if missing:
        return f"The journal is damaged: a step takes in the answer to command {missing[0]}, which is not there."
    has_state = journal.snapshot or any(step.changes for step in journal.steps)
    if handler.is_exclusive and journal.steps and has_state and journal.state_version != actor.state_version:
        return (
            f"It began when the state of its object had version {journal.state_version}, and the code has version "
            f"{actor.state_version}. State is migrated between invocations only, so it cannot go on with this code."
        )
    return None


def answers_of(journal: ExportedJournal) -> dict[int, Delivery]:
    """Its answers, by the commands that they are for."""
    return {delivery.command: delivery for delivery in journal.deliveries}


def execution_of(journal: ExportedJournal, actors: Mapping[str, BoundActor]) -> Execution:
    """A fresh execution of it, which tells nothing to anyone."""
    actor = actors[journal.service]
    return Execution(actor, actor.handlers[journal.handler], journal, journal.snapshot, _Silence(), _SETTINGS)


def _about_python(journal: ExportedJournal) -> str:
    here = this_python()
    if journal.python == here:
        return ""
    return (
        f"\nIt was exported with Python {journal.python} and replayed with {here}, which may be the whole difference: "
        "asyncio orders callbacks differently from one minor version to the next (rule S5). Replay with "
        f"{journal.python} to tell."
    )


class _Silence:
    """Hears what handlers log and what the machine warns of, and says nothing (rule S8)."""

    def handler_logged(self, execution: Execution, level: str, event: str, fields: Mapping[str, Any], /) -> None: ...

    def task_failed(self, execution: Execution, task: str, error: BaseException, /) -> None: ...
    def warned(self, execution: Execution, message: str, /) -> None: ...
