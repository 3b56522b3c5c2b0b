"""Journals of what is under way in production, replayed with the code that is about to be deployed."""

from __future__ import annotations

from durably.testing.replaying.export import export_journals as export_journals
from durably.testing.replaying.export import journals_under_way as journals_under_way
from durably.testing.replaying.journals import ExportedJournal as ExportedJournal
from durably.testing.replaying.journals import JournalFileError as JournalFileError
from durably.testing.replaying.journals import read_journals as read_journals
from durably.testing.replaying.replay import ReplayError as ReplayError
from durably.testing.replaying.replay import ReplayReport as ReplayReport
from durably.testing.replaying.replay import replay_journals as replay_journals
