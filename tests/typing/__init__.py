"""Programs that type checkers accept, and lines that they refuse."""
