"""An auction whose events other parts of the program and browsers hear of."""
