"""Advance, append, act: the steps of invocations, and what each kind of command does."""
