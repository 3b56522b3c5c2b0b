"""Tests of `durably.cli.servers`."""
