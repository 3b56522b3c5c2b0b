"""What simulations found: each bug with a test of its own, which failed before the mend."""
