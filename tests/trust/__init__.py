"""What the kit for tests finds: six apps as users write them, correct, and with one planted bug at a time."""
