"""The benchmark suite: durable calls beside the bare limits of what they are made of. `python -m benchmarks` runs it."""
