"""What a person names: an invocation by its id, or a target: `Service[/key[/handler]]`, `Service/handler`.

Parts are percent-encoded, as everywhere: a key `a/b` is written `a%2Fb`.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote

from durably.cli.failures import CommandError
from durably.cli.operators.sources import text
from durably.ids import OLDER_PREFIX


def is_id(name: str) -> bool:
    return name.startswith(OLDER_PREFIX) and "/" not in name


def condition_of_any(names: Sequence[str]) -> str:
    """The condition that the invocations of any of these names fulfil.

    Raises:
        CommandError: one of them names nothing.
    """
    ids = ", ".join(text(name) for name in names if is_id(name))
    several = [f"({condition(name)})" for name in names if not is_id(name)]
    return f"({' or '.join([*([f'id in ({ids})'] if ids else []), *several])})"


def condition(name: str) -> str:
    """The condition of SQL that the invocations of this name fulfil.

    Raises:
        CommandError: it names nothing.
    """
    if is_id(name):
        return f"id = {text(name)}"
    service, *rest = map(unquote, name.split("/"))
    if not service or len(rest) > 2 or not all(rest):
        raise CommandError(
            f"'{name}' names nothing. Write the id of an invocation, or Service, Service/handler, Object/key or "
            "Object/key/handler, with a / in a key as %2F."
        )
    conditions = [f"target_service_name = {text(service)}"]
    if len(rest) == 1:
        second = text(rest[0])
        conditions.append(
            f"(target_service_key = {second} or (target_service_key is null and target_handler_name = {second}))"
        )
    elif rest:
        conditions += [f"target_service_key = {text(rest[0])}", f"target_handler_name = {text(rest[1])}"]
    return " and ".join(conditions)


def object_named(name: str) -> tuple[str, str | None]:
    """`Service` or `Service/key`.

    Raises:
        CommandError: it is neither.
    """
    service, *rest = map(unquote, name.split("/"))
    if not service or len(rest) > 1 or not all(rest):
        raise CommandError(f"'{name}' names no object. Write Object or Object/key, with a / in a key as %2F.")
    return service, rest[0] if rest else None
