"""What can happen to an invocation besides its steps: it ends, fails, is retried, paused, recovered; one file each."""
