"""Tests of `durably.storage.transfer`."""
