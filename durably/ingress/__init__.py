"""HTTP in front of a runtime, as an ASGI application that answers in the shapes that Restate's clients expect."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("starlette") is None:
    raise ModuleNotFoundError("durably.ingress needs the extra `http`: pip install 'durably[http]'", name="starlette")

from durably.ingress.app import Ingress as Ingress
from durably.ingress.event_server import EventServer as EventServer
