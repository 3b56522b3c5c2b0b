"""Tests of `durably.graphs`."""
