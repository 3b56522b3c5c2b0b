"""Tests of `durably.testing`."""
