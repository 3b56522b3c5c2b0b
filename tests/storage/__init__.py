"""Tests of what has happened: stores, their contract, and how they fail."""
