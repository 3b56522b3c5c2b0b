"""Plain data: an invocation in memory, its journal, its status."""
