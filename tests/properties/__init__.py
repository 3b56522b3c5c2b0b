"""Random programs against what a plain reading of them says: the promises of the machine, as properties."""
