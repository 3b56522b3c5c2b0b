"""Media types: what a Serde says that it takes and gives, and whether a content type is among what is taken.

Type and subtype decide, in any case of letters; parameters such as `; charset=utf-8` do not.
"""

from __future__ import annotations

import re
from typing import Any, Final

from durably.errors import DefinitionError

ANYTHING: Final = "*/*"

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9a-zA-Z-]+"
_MEDIA_TYPE: Final = re.compile(rf"({_TOKEN})/({_TOKEN})")
_CONTENT_TYPE: Final = re.compile(rf"{_TOKEN}/{_TOKEN}[ \t]*(;[\t -~]*)?")
"""What can stand in a header."""


def media_range_of(serde: Any) -> str:
    """The media range of what a Serde takes: `application/json`, `image/*` or `*/*`.

    Raises:
        DefinitionError: it is none.
    """
    written: Any = getattr(serde, "accepts", None) or content_type_of(serde)
    media_range = _essence(written) if isinstance(written, str) else ""
    match = _MEDIA_TYPE.fullmatch(media_range)
    if match is None or (match[1] == "*" and match[2] != "*"):
        raise DefinitionError(
            f"{type(serde).__name__} takes {written!r}, which is no media type. Write accepts as 'image/png', "
            "'image/*' or '*/*'."
        )
    return media_range


def content_type_of(serde: Any) -> str:
    """What a Serde says of the bytes that it gives.

    Raises:
        DefinitionError: that cannot stand in a header.
    """
    content_type: Any = serde.content_type
    if not isinstance(content_type, str) or not _CONTENT_TYPE.fullmatch(content_type):
        raise DefinitionError(
            f"{type(serde).__name__} has the content_type {content_type!r}, which is no media type. Write one such as "
            "'application/json' or 'text/plain; charset=utf-8'."
        )
    return content_type


def is_in_range(content_type: str, media_range: str) -> bool:
    """Whether what is sent with this header is in a range that `media_range_of` gave."""
    if media_range == ANYTHING:
        return True
    given = _essence(content_type)
    if media_range.endswith("/*"):
        return given.startswith(media_range[:-1]) and _MEDIA_TYPE.fullmatch(given) is not None
    return given == media_range


def _essence(content_type: str) -> str:
    """Without parameters."""
    return content_type.partition(";")[0].strip(" \t").lower()
