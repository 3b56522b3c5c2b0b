"""Histories of calls, and whether a sequential model explains them."""

from __future__ import annotations

from durably.testing.histories.calls import HistoryCall as HistoryCall
from durably.testing.histories.linearizability import LinearizabilityUnknownError as LinearizabilityUnknownError
from durably.testing.histories.linearizability import NotLinearizableError as NotLinearizableError
from durably.testing.histories.linearizability import check_linearizable as check_linearizable
