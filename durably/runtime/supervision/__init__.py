"""Keeps an engine alive on a store, through failures of that store, until the runtime stops."""
