"""State machines of typed objects (`durably.models`)."""
