"""The pure parts of the machine, one by one."""
