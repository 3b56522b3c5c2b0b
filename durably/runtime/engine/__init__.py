"""One incarnation of the machine: its parts, its pump, its life."""
