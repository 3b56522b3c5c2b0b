"""The kit that users test their actors with."""

from __future__ import annotations

from durably.testing.durable import Durable as Durable
from durably.testing.harness import Harness as Harness
