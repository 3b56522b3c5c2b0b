"""The kit that users test their actors with."""

from __future__ import annotations

from durably.testing.harness import Harness as Harness
