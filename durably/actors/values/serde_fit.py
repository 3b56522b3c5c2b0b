"""Whether a Serde that was given for one place can write the type that is declared there, as far as that is known.

It is known of protobuf messages: their Serde names the class, and the Serdes of other content cannot write them.
"""

from __future__ import annotations

from typing import Any

from durably.actors.values.descriptions import describe, named
from durably.actors.values.messages import HOW_TO_WRITE, is_message_class
from durably.actors.values.msgpack_serde import MsgpackSerde
from durably.actors.values.serde import BytesSerde, JsonSerde, Serde
from durably.actors.values.type_checks import is_class
from durably.errors import DefinitionError

OF_OTHER_CONTENT = (BytesSerde, JsonSerde, MsgpackSerde)


def check_fit(serde: Serde[Any], annotation: Any, where: str) -> None:
    """See that a Serde writes what is declared; `where` is the place that the sentence names.

    Raises:
        DefinitionError: it does not.
    """
    written: Any = getattr(serde, "message", None)
    name = type(serde).__name__
    if is_message_class(written):
        if is_class(annotation) and not issubclass(written, annotation):
            raise DefinitionError(
                f"The type of {where} is {describe(annotation)}, and its Serde is {name}({named(written)}), which "
                f"writes {named(written)} only. Name the same class in both."
            )
    elif is_message_class(annotation) and isinstance(serde, OF_OTHER_CONTENT):
        raise DefinitionError(
            f"The type of {where} is {named(annotation)}, a protobuf message, and its Serde is {name}, which writes "
            f"none. {HOW_TO_WRITE}."
        )
