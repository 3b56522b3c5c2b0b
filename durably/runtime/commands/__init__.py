"""The verbs: what the machine does with each type of command. A new verb is a class here and a line in the table."""
