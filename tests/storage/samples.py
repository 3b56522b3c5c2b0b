"""Records to store when it does not matter which."""

from __future__ import annotations

from typing import Any

from durably.ids import Address, InvocationStatus
from durably.storage.records import InvocationRecord, Owner, StateRecord

OWNER = Owner(host="first.example", process_id=11, since=1_700_000_000_000_000)
RIVAL = Owner(host="second.example", process_id=22, since=1_800_000_000_000_000)
MARY = Address("Ticket", "mary")


def invocation(number: int, **changes: Any) -> InvocationRecord:
    fields: dict[str, Any] = {
        "number": number,
        "id": f"inv_{number:032x}",
        "address": MARY,
        "handler": "reserve",
        "seed": b"0123456789abcdef",
        "argument": b"null",
        "headers": {},
        "scope": None,
        "caller": None,
        "sender_id": None,
        "deadline": None,
        "accepted_at": 1,
        "keep_outcome_us": None,
        "status": InvocationStatus.RUNNING,
        "mailbox_position": None,
    }
    return InvocationRecord(**{**fields, **changes})


def field(name: str, value: bytes | None, address: Address = MARY) -> StateRecord:
    return StateRecord(address, name, value)
