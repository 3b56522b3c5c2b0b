"""Programs to read and to run. Each is run by a test in tests/examples."""
