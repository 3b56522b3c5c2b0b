"""The HTTP servers that `durably serve` can put in front of an ingress, each behind the same interface."""
