"""Named limits: how many invocations run at once, and how often they start."""
