"""HTTP for operators, as an ASGI application that answers in the shapes that Restate's tools expect."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("starlette") is None:
    raise ModuleNotFoundError("durably.admin needs the extra `http`: pip install 'durably[http]'", name="starlette")

from durably.admin.app import Admin as Admin
