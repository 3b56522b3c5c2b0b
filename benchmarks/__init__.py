"""The benchmark suite, `python -m benchmarks`: durable calls beside the bare limits of what they are made of."""
