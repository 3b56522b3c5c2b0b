"""The commands of operators: what they ask, of whom, and how the answers are printed."""
