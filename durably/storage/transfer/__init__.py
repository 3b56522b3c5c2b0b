"""Whole stores: copied while they are in use (`backup`), and as files of text that any version reads (`dump`)."""
