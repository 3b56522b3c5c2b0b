"""Publishing and subscribing: what users write, and the classes that carry it out beside theirs."""
