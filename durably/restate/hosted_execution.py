"""`HostedExecution`: an execution whose commands another engine journals, and whose ids that engine gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Never, Protocol, TypeVar

from durably.actors.definition.binding import BoundActor, BoundActorHandler
from durably.actors.protocol.commands import Command, Send
from durably.actors.protocol.operations import CallSite
from durably.actors.protocol.port import Sent
from durably.errors import HandlerMistakeError
from durably.ids import Address, KeyScope
from durably.restate import refusals
from durably.runtime.execution.execution import CallOperation, DurableOperation, Execution, Observer
from durably.runtime.execution.loop import DeterministicLoop
from durably.runtime.settings import Settings

R = TypeVar("R")


class HostedInvocation:
    """The invocation that an attempt is made for, as its handler sees it."""

    def __init__(
        self,
        *,
        id: str,
        address: Address,
        argument: bytes,
        headers: dict[str, str],
        scope: KeyScope | None,
        seed: bytes,
    ) -> None:
        self.id = id
        self.address = address
        self.argument = argument
        self.headers = headers
        self.scope = scope
        self.seed = seed
        self.deadline: int | None = None
        """Known when the handler begins: a limit of its own counts from then."""
        self.is_from_outside = True
        """Every argument is admitted as a body, so it has been found to fit."""


class Host(Protocol):
    """What an execution asks of the engine in the middle of a step."""

    def make_awakeable(self, number: int, /) -> str:
        """The id of a new awakeable, which the command of this number waits for."""
        ...

    def now(self) -> int:
        """The time of the step, where that was not known when the step began."""
        ...


class HostedExecution(Execution):
    """An attempt of an invocation that Restate keeps."""

    __slots__ = ("host_engine",)

    is_hosted = True

    def __init__(
        self,
        actor: BoundActor,
        handler: BoundActorHandler,
        invocation: HostedInvocation,
        snapshot: Mapping[str, bytes],
        observer: Observer,
        settings: Settings,
        host: Host,
    ) -> None:
        self.host_engine = host
        super().__init__(actor, handler, invocation, snapshot, observer, settings, asyncio.get_running_loop())

    def issue(
        self, command: Command, decode: Callable[[bytes], R], what: object, site: CallSite, /
    ) -> DurableOperation[R]:
        refusals.refuse_command(command)
        return super().issue(command, decode, what, site)

    def issue_one_way(self, command: Command, what: object, site: CallSite, /) -> DurableOperation[None]:
        refusals.refuse_command(command)
        return super().issue_one_way(command, what, site)

    def issue_send(self, command: Send, sent: Sent[R], what: object, site: CallSite, /) -> DurableOperation[R]:
        if not self.handler.atomic:
            return super().issue_send(command, sent, what, site)
        self.check(what)
        return self._issue_unanswered(command, sent(refusals.UNKNOWN_ID), what, site)

    def callee_id(self, call: object, service: str, key: str | None, /) -> str | None:
        """Restate's id of the callee is the answer to an `IdentifyCall`, which names the call by its number."""
        if not isinstance(call, CallOperation) or not call.is_of(self):
            return None
        return str(call.number)

    def continue_as_new(self, argument: bytes, /) -> Never:
        raise HandlerMistakeError(f"On Restate: {refusals.CONTINUE_AS_NEW}")

    def patched(self, change: str, /) -> Never:
        raise HandlerMistakeError(f"On Restate: {refusals.PATCHED}")

    def _new_awakeable_id(self) -> str:
        self.check("ctx.awakeable()")
        return self.host_engine.make_awakeable(self.next_command)

    def _read_shared(self, name: str) -> bytes | None:
        """The state was read into the journal before the first step, so a replay has the same."""
        return self._snapshot.get(name)

    def _names_shared(self, names: set[str]) -> Sequence[str]:
        return sorted(names)


class AskingLoop(DeterministicLoop):
    """A loop that learns the time of its step when something looks at the clock."""

    __slots__ = ()

    @property
    def at(self) -> int:
        owner = self.handler_port
        return owner.host_engine.now() if isinstance(owner, AskingExecution) else 0

    @at.setter
    def at(self, at: int) -> None:
        """The engine says it when it is asked."""


class AskingExecution(HostedExecution):
    """An attempt whose steps are told the time only when they look at it."""

    __slots__ = ()

    loop_class = AskingLoop

    def at(self) -> int:
        self.check("The time of the handler")
        return self.host_engine.now()
