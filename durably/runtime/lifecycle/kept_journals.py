"""`KeptJournals`: which journals stay after the end of their invocation, and for how long.

Those of keyed invocations and workflows stay for a day, or as `journal_retention` says, but no longer than the outcome:
a key that is free again leaves nothing. Those of other invocations stay only where `journal_retention` asks for it, and
the outcome stays with them. One that ended in its first step and asked for nothing has no journal: its row says it all.
"""

from __future__ import annotations

from msgspec.structs import replace

from durably.actors.definition.binding import BoundActorHandler
from durably.actors.values.durations import kept_until
from durably.runtime.clock import Clock
from durably.runtime.commit.transition import Transition
from durably.runtime.execution.step import Outcome, Step
from durably.runtime.invocations.code_versions import CodeVersions
from durably.runtime.invocations.invocation import InvocationRun
from durably.runtime.invocations.journal import Journal
from durably.runtime.messaging.targets import Targets
from durably.runtime.settings import Settings
from durably.storage.records import LEAVING, KeptJournalRecord

DAY_US = 86_400_000_000
"""How long the journal of a keyed invocation stays where neither the handler nor the runtime sets a retention."""


class KeptJournals:
    """Decides at the end of each invocation."""

    def __init__(self, *, clock: Clock, settings: Settings, targets: Targets, versions: CodeVersions) -> None:
        self._clock = clock
        self._portion = settings.expiry_portion_steps
        self._versions = versions
        self._asked_us = targets.asked_journal_retention_us
        self.is_asked = targets.asks_for_journals()
        """Journals of plain calls of some handler stay."""

    def are_asked_for(self, handler: BoundActorHandler) -> bool:
        """Those of plain calls of this handler stay, too."""
        return bool(self._asked_us(handler))

    def outcome_us(self, handler: BoundActorHandler, keep_us: int | None) -> int | None:
        """How long an outcome without a key stays that would be kept for `keep_us`: at least as long as its journal."""
        asked_us = self._asked_us(handler)
        if not asked_us:
            return keep_us
        return asked_us if keep_us is None else max(asked_us, keep_us)

    def take_last_step(self, transition: Transition, invocation: InvocationRun, last: Step) -> None:
        """The step that ends an invocation becomes part of a journal that stays. Its outcome stands in the row.

        Of one whose outcome was fixed before (rule E7), what the handler returned is dropped.
        """
        journal = invocation.journal
        if invocation.fixed is not None or not (last.commands or (journal is not None and journal.steps)):
            return
        if not self._is_kept(invocation):
            return
        if journal is None:
            journal = invocation.journal = Journal()
        outcome = None if last.outcome is None else Outcome(last.outcome.failed, b"")
        version = journal.note_version(self._versions.of(invocation.handler))
        transition.step(invocation, len(journal.steps), replace(last, outcome=outcome), version)
        journal.kept_last_step = True

    def of(self, invocation: InvocationRun, expires_at: int) -> KeptJournalRecord | None:
        """What is kept of an invocation whose row stays until `expires_at`."""
        journal, keep_us = invocation.journal, self._keep_us(invocation)
        if journal is None:
            return None
        if not keep_us:
            return KeptJournalRecord(invocation.number, LEAVING, len(journal.steps)) if self.is_long(journal) else None
        steps = len(journal.steps) + journal.kept_last_step
        if not steps:
            return None
        until = min(expires_at, kept_until(self._clock.now(), keep_us))
        return KeptJournalRecord(invocation.number, until, steps)

    def is_long(self, journal: Journal) -> bool:
        """It is too long to go in one transition: the cleaner removes it, and its row, when it has ended."""
        return max(len(journal.steps), len(journal.deliveries)) > self._portion

    def _is_kept(self, invocation: InvocationRun) -> bool:
        """The row stays: for its key, or because the journal is asked for; and so does the journal."""
        has_row = invocation.scope is None or invocation.keep_outcome_us != 0
        return has_row and bool(self._keep_us(invocation))

    def _keep_us(self, invocation: InvocationRun) -> int:
        asked_us = self._asked_us(invocation.handler)
        if asked_us is None:
            return 0 if invocation.scope is None else DAY_US
        return asked_us
