"""What every part of one incarnation shares: whether it is dead or stopping, what is ready, its background tasks."""
