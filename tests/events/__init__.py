"""Publishing and subscribing (`durably.events`)."""
