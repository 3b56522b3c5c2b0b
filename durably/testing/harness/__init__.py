"""A runtime in memory with virtual time, and what watches over it in a test."""

from __future__ import annotations

from durably.testing.harness.durable import Durable as Durable
from durably.testing.harness.harness import Harness as Harness
from durably.testing.harness.standstill import StandstillError as StandstillError
