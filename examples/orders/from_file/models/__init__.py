"""Models: each `.rst` file, and beside it what `durably generate` writes."""
