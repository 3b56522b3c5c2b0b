"""What `durably serve` serves in the benchmark over HTTP. Its store is named on the command line."""

from __future__ import annotations

from benchmarks.actors import Counter
from benchmarks.inside import counts_of
from benchmarks.measurement import Counts
from durably import Context, Service, handler
from durably.events import PubSub
from durably.runtime.runtime import Runtime


class Inside(Service):
    """Tells what the runtime has done. A handler has no business there; a benchmark has."""

    @handler
    async def counts(self, ctx: Context) -> Counts | None:
        return counts_of(runtime)


runtime = Runtime("memory:", [Counter, Inside], pubsub=PubSub(sse=True))
