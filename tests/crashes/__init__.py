"""What crashes may do to a runtime, and what they may not: at every commit, and at any moment in a real process."""
