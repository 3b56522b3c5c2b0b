"""Orders that are created, paid and delivered: a state machine with a consumer and an HTTP API.

`examples.orders.app` defines the model in Python; `examples.orders.from_file.app` has it from a `.rst` file. Both do
the same.
"""
