"""Tests of `durably.model_files`."""
