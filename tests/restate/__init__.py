"""Actors on a Restate cluster."""
