"""Finds invocations by id and by idempotency key, in memory and in the store."""
