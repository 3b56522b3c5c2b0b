"""`python -m durably.testing soak`: run workloads with random seeds for as long as asked."""

from __future__ import annotations

import sys

from durably.testing.soak.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
