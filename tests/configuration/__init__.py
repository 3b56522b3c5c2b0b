"""Tests of `durably.configuration`."""
