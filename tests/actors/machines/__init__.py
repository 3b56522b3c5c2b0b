"""Tests of `durably.actors`, against a port that only records."""
