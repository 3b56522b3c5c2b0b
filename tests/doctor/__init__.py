"""Tests of `durably.doctor`."""
