"""Tests of the `durably` command: in this process where that is enough, in a process of its own where signals come."""
