"""`Client`: the same references over HTTP, to a runtime in another process or on another machine.

    async with Client("http://127.0.0.1:8080") as client:
        await client.object(Cart, "mary").add_ticket("seat2B")

Needs the extra `client`.
"""

from durably.client.client import Client as Client

__all__ = ["Client"]
