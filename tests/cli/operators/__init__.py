"""Tests of `durably.cli.operators`."""
