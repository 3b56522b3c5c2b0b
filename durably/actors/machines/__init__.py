"""State machines of typed objects: models, transitions and consumers, on top of virtual objects (`durably.models`)."""
