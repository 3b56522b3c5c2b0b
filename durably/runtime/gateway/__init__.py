"""The way in for everybody who is not a handler: host code, ingresses, tools."""
