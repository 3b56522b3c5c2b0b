"""What people may ask of a runtime: arguments that cannot mean anything are refused here, with a sentence.

An answer that is empty says that there is nothing; so what nothing can be found by is no question.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from durably.actors.definition.binding import BoundActor
from durably.actors.definition.definition import definition_of
from durably.actors.values.descriptions import shortened
from durably.actors.values.names import checked_name
from durably.actors.values.type_checks import is_int, is_text
from durably.errors import DefinitionError
from durably.ids import Address, InvocationStatus


def checked_limit(limit: int | None) -> None:
    """
    Raises:
        TypeError, ValueError: it is no count.
    """
    if limit is None:
        return
    if not is_int(limit):
        raise TypeError(f"limit={shortened(limit)}: say as an integer how many may come; None is for all.")
    if limit < 0:
        raise ValueError(f"limit={limit}: fewer than none cannot come. Say how many may; None is for all.")


def checked_status(status: InvocationStatus | None) -> InvocationStatus | None:
    """The status, also where it is given as its text.

    Raises:
        ValueError: there is no such status.
    """
    if status is None:
        return None
    try:
        return InvocationStatus(status)
    except (ValueError, TypeError):
        known = ", ".join(InvocationStatus)
        raise ValueError(f"There is no status {shortened(status)}. There are: {known}.") from None


def checked_text(text: str, what: str) -> str:
    """
    Raises:
        TypeError: it is no text.
    """
    if not is_text(text):
        raise TypeError(f"{what} is text, not {shortened(text)}.")
    return text


def checked_step(from_step: int) -> int:
    """
    Raises:
        TypeError: it is no number.
    """
    if not is_int(from_step):
        raise TypeError(f"from_step={shortened(from_step)}: it is the number of a step, from 0 on.")
    return from_step


def object_class(actors: Mapping[str, BoundActor], actor: type) -> BoundActor:
    """A class that has objects, as it runs here.

    Raises:
        DefinitionError: it is none, or a service, or does not run here.
    """
    name = definition_of(actor).name
    bound = actors.get(name)
    if bound is None:
        known = ", ".join(actors) or "none"
        raise DefinitionError(f"This runtime does not have {name}, so nothing is known of it here. It has: {known}.")
    if bound.definition.kind == "service":
        raise DefinitionError(
            f"{name} is a service, which has no objects and keeps no state. "
            f"`runtime.invocations(target={name!r})` lists its invocations."
        )
    return bound


def checked_address(bound: BoundActor, key: str) -> Address:
    """
    Raises:
        InvalidKeyError, TypeError: no object can have this key.
    """
    name = bound.definition.name
    return Address(name, checked_name(key, f"The key of {name} is a string that is not empty, not {shortened(key)}."))


def checked_parts(target: str, parts: Collection[str]) -> None:
    """
    Raises:
        ValueError: a part of a target is empty.
    """
    if not all(parts):
        raise ValueError(f"{target!r} names nothing: a part of it is empty. Leave the last slash out.")
