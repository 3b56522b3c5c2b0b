"""The simulator: that it is repeatable, that it finds what is wrong, and that it finds nothing wrong in durably."""
