"""Consistent state machines: one virtual object per machine, one transition at a time, whatever happens to the process.

    durably serve examples.state_machine:runtime
    python -m examples.state_machine crash          # the same, but it kills itself in the middle of transitions

    curl localhost:8080/resource/my-machine/setUp -H 'content-type: application/json' -d ''

Send several requests at once without waiting: they queue per machine, and run side by side for different ones. In the
crashing variant they do so too; the server is started again each time, and every transition goes on where it stood.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from enum import Enum
from random import SystemRandom

from durably import ObjectContext, Runtime, VirtualObject, handler, state

SECONDS = float(os.environ.get("STATE_MACHINE_SECONDS", "2"))
"""How long a transition takes."""
CRASHING = float(os.environ.get("STATE_MACHINE_CRASHING", "0"))
"""How often the process kills itself where it could."""


CRASHED = 137
"""The status of a process that killed itself; it ends as suddenly as by `kill -9`."""


class Position(Enum):
    """The states of the machine."""

    UP = "UP"
    DOWN = "DOWN"


class Resource(VirtualObject, name="resource"):
    """Something that takes its time to come up and to go down; the key is its name."""

    position: Position = state(default=Position.DOWN)

    @handler(name="setUp")
    async def set_up(self, ctx: ObjectContext) -> str:
        """Bring the machine up."""
        if self.position is Position.UP:
            return f"{self.key} is already UP"
        ctx.log.info("beginning transition", machine=self.key, to="UP")
        perhaps_crash()
        await ctx.run("bring up", transition)
        perhaps_crash()
        self.position = Position.UP
        ctx.log.info("done", machine=self.key, now="UP")
        return f"{self.key} is now UP"

    @handler(name="tearDown")
    async def tear_down(self, ctx: ObjectContext) -> str:
        """Bring the machine down."""
        if self.position is Position.DOWN:
            return f"{self.key} is already DOWN"
        ctx.log.info("beginning transition", machine=self.key, to="DOWN")
        perhaps_crash()
        await ctx.run("bring down", transition)
        perhaps_crash()
        self.position = Position.DOWN
        ctx.log.info("done", machine=self.key, now="DOWN")
        return f"{self.key} is now DOWN"


async def transition() -> None:
    """What takes its time."""
    await asyncio.sleep(SECONDS)
    perhaps_crash()


def perhaps_crash() -> None:
    """Die here and now, if this is the crashing variant and the dice say so; replay need not die again."""
    if CRASHING and SystemRandom().random() < CRASHING:
        print("The process kills itself.", file=sys.stderr, flush=True)
        os._exit(CRASHED)


runtime = Runtime("sqlite:///state_machine.db", [Resource])


def serve_again_and_again(*options: str) -> None:
    """Serve the crashing variant, and start it again when it has died."""
    command = [sys.executable, "-m", "durably.cli", "serve", "examples.state_machine:runtime", *options]
    environment = os.environ | {"STATE_MACHINE_CRASHING": os.environ.get("STATE_MACHINE_CRASHING", "0.3")}
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    while True:
        # A session of its own, so that Ctrl-C reaches it through us, once.
        with subprocess.Popen(command, env=environment, start_new_session=True) as server:
            try:
                status = server.wait()
            except KeyboardInterrupt:
                server.terminate()
                raise SystemExit(server.wait()) from None
        if status != CRASHED:
            raise SystemExit(status)
        print("It is dead. Starting it again.", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] != ["crash"]:
        raise SystemExit(f"Say `crash`: {__doc__}")
    serve_again_and_again(*sys.argv[2:])
