"""A handler's code, run so that it can be repeated. Knows no store and no engine."""
