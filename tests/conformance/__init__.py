"""The services that conformance suites of this field drive over HTTP, and the tests of each of their handlers.

Names, kinds, types and behaviour are a contract: suites that know nothing of durably call them by path.
`tests/conformance_app.py` is the runtime that serves them.
"""
