"""Journals of what is under way in production, replayed with the code that is about to be deployed."""

from __future__ import annotations

from durably.testing.replaying.checking import CheckReport as CheckReport
from durably.testing.replaying.checking import Problem as Problem
from durably.testing.replaying.checking import check_store as check_store
from durably.testing.replaying.continuing import Continued as Continued
from durably.testing.replaying.continuing import continue_journal as continue_journal
from durably.testing.replaying.export import export_journals as export_journals
from durably.testing.replaying.export import journals_under_way as journals_under_way
from durably.testing.replaying.journals import ExportedJournal as ExportedJournal
from durably.testing.replaying.journals import JournalFileError as JournalFileError
from durably.testing.replaying.journals import read_journals as read_journals
from durably.testing.replaying.replay import ReplayError as ReplayError
from durably.testing.replaying.replay import ReplayReport as ReplayReport
from durably.testing.replaying.replay import replay_journals as replay_journals
