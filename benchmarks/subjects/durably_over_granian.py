"""durably, served as in `durably_over_http`, behind granian."""

from __future__ import annotations

from benchmarks.subjects.durably_over_http import behind

subject = behind("granian")
