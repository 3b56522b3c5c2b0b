"""Soaking: many simulated runs of workloads in parallel processes, until time is up or one of them fails."""

from __future__ import annotations
