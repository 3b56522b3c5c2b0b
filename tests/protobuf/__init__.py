"""Messages as values, and what protoc-gen-durably generates."""
