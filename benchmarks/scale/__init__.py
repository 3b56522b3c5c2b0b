"""`python -m benchmarks --scale`: how time and memory grow, from a tenth of the full size to all of it."""

from __future__ import annotations
