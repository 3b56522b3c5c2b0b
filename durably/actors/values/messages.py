"""Generated protobuf messages, which only a Serde of `durably.protobuf` writes; durably works without protobuf too.

A class of messages has imported protobuf, so it is only looked for, never imported.
"""

from __future__ import annotations

import sys
from typing import Any, Final, get_args

from durably.actors.values.type_checks import is_class

HOW_TO_WRITE: Final = (
    "ProtobufSerde and ProtobufJsonSerde of durably.protobuf write messages: give serde=ProtobufSerde to a class or a "
    "runtime, or accepts=ProtobufSerde(...) to a handler"
)

HOW_TO_WRITE_ONE: Final = "Annotate its class under serde=ProtobufSerde, or give serde=ProtobufSerde(...) beside it"


def may_exist() -> bool:
    """Something has imported protobuf."""
    return "google.protobuf.message" in sys.modules


def is_message_class(value: object) -> bool:
    """A class that protoc generated, or that was made of a descriptor."""
    protobuf = sys.modules.get("google.protobuf.message")
    if protobuf is None or not is_class(value) or not issubclass(value, protobuf.Message):
        return False
    return getattr(value, "DESCRIPTOR", None) is not None


def mentions_message(annotation: Any) -> bool:
    """It is such a class, or one of its parts is: `list[Ticket]`."""
    return is_message_class(annotation) or any(mentions_message(part) for part in get_args(annotation))
