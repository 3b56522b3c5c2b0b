"""The same classes on a Restate cluster: `app(*actors)` is a deployment of Restate, `Client` calls what it serves.

    app = durably.restate.app(Cart, Seat)  # an ASGI application: durably serve-restate module:app

Handlers are plain asyncio, as on a `Runtime`. Restate keeps their journals, state, timers and messages, on as many
nodes as it has; this package turns the steps of `durably.runtime.execution` into its commands, and its notifications
into deliveries. docs/restate.md says what is different there, and what is refused.

Needs the extra `restate`.
"""

from durably.restate.client import Client as Client
from durably.restate.deployment import Deployment as Deployment
from durably.restate.deployment import app as app

__all__ = ["Client", "Deployment", "app"]
