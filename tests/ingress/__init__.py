"""Tests of `durably.ingress`: over a runtime that only listens, and over a real one."""
