"""What requests to the admin API hold in their bodies."""

from __future__ import annotations

from typing import Annotated

import msgspec


class QueryRequest(msgspec.Struct):
    """A question in SQL."""

    query: str


class StateEditRequest(msgspec.Struct):
    """All fields of an object, byte by byte, and for which state they were made."""

    object_key: str
    new_state: dict[str, list[Annotated[int, msgspec.Meta(ge=0, le=255)]]]
    version: str | None = None


class BatchRequest(msgspec.Struct):
    """The body of a batch operation: ids, or (an addition to Restate's) a target such as `Cart/mary`; never both."""

    invocation_ids: list[str] | msgspec.UnsetType = msgspec.UNSET
    target: str | None = None
    deployment: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["latest", "keep"]})] | None = None
