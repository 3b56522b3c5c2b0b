"""`python -m durably` is the `durably` command, for where scripts are not on the path."""

from __future__ import annotations

from durably.cli.main import main

if __name__ == "__main__":
    main()
