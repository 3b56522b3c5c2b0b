"""`Client`: what a context and a `Runtime` offer, to what a Restate cluster serves.

    async with Client("http://127.0.0.1:8080") as client:
        await client.object(Cart, "mary").add("2B")

References, handles and errors are those of `durably.client.Client`, whose requests Restate's ingress understands. What
Restate asks for in another way is here, and what it does not do is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Never, TypeVar

import msgspec

from durably.actors.event_values import Published
from durably.actors.protocol.commands import Question
from durably.actors.protocol.operations import CallSite
from durably.actors.sent_values import Sent
from durably.client import Client as HttpClient
from durably.client import wire
from durably.client.answers import Answered
from durably.errors import UnknownTargetError
from durably.ids import InvocationStatus
from durably.restate.refusals import EVENTS, MODELS, SIGNALS

R = TypeVar("R")

JSON: Final = b"application/json"
READY: Final = "ready"
"""Restate's word for an invocation that is to run as soon as there is room."""


class _Row(msgspec.Struct):
    status: str


class _Rows(msgspec.Struct):
    rows: list[_Row]


_decode_rows: Final = msgspec.json.Decoder(_Rows).decode


class Client(HttpClient):
    """Calls the handlers of a Restate cluster whose ingress is at `url`.

    Enter it as an asynchronous context manager. The parameters are those of `durably.client.Client`; `admin_url`, which
    `cancel()` and `status()` of a handle need, is the address of Restate's admin API.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<client of Restate at {self._url}>"

    async def _ask(self, asked: wire.Asked) -> Answered:
        if asked.body and "content-type" not in asked.headers:
            # Restate refuses a body without one; most handlers take JSON, and for others the caller says it.
            asked = msgspec.structs.replace(asked, headers={**asked.headers, "content-type": JSON})
        return await super()._ask(asked)

    async def _issue_status(self, id: str, site: CallSite, /) -> InvocationStatus:
        quoted = id.replace("'", "''")
        query = f"select status from sys_invocation where id = '{quoted}'"
        asked = wire.Asked(
            method="POST", path="/query", what=f"the status of {id}", body=msgspec.json.encode({"query": query}),
            headers={"content-type": JSON, "accept": JSON}, is_repeatable=True,
            is_for_operators=True,
        )  # fmt: skip
        rows = _decode_rows((await self._ask(asked)).body).rows
        if not rows:
            raise UnknownTargetError(f"Restate knows no invocation {id}, or no longer.")
        status = rows[0].status
        return InvocationStatus.PENDING if status == READY else InvocationStatus(status)

    async def _issue_signal(self, id: str, name: str, sent: Sent, site: CallSite, /) -> None:
        _refuse(f"A signal was sent. {SIGNALS}")

    async def _issue_reading(self, question: Question, decode: Callable[[bytes], R], site: CallSite, /) -> R:
        _refuse(MODELS)

    async def _issue_publish(
        self, events: Sequence[Published], idempotency_key: str | None, headers: dict[str, str], site: CallSite, /
    ) -> None:
        _refuse(f"publish() was used. {EVENTS}")


def _refuse(why: str) -> Never:
    raise TypeError(f"On Restate: {why}")
