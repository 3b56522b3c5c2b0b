"""Whether a body is what its handler takes, as far as its content type says it.

A body without a content type is taken for JSON, and so is one that has curl's default for `-d`, which says nothing of
what it holds. Where there is no body there is nothing to be of a type, unless one is named. JSON is UTF-8 (RFC 8259): a
JSON body that claims another character set is refused. For other types the character set is the Serde's business.
"""

from __future__ import annotations

from email.message import Message
from typing import Final

from durably.actors.headers import REPEATED
from durably.actors.values.media_types import is_in_range
from durably.ingress.refusals import RefusedRequestError

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
JSON_CHARSETS: Final = ("utf-8", "utf8", "us-ascii", "ascii")
"""In lower case. ASCII is UTF-8 too."""


def check_content_type(given: str | None, media_range: str, body: bytes, where: str) -> None:
    """See that a body may be given to a handler that takes this range.

    Raises:
        RefusedRequestError: 400, or (a character set that JSON does not have) 415.
    """
    given = _one_of_several((given or "").strip(" \t"))
    if given and is_in_range(given, media_range):
        if media_range == JSON:
            _check_charset(given, where)
        return
    if given and not is_in_range(given, FORM):
        raise RefusedRequestError(
            400,
            f"the content-type '{given}' does not match '{media_range}', which is what {where} takes. Send the body as "
            f"that, with the header 'content-type: {_example(media_range)}'.",
        )
    if body and not is_in_range(JSON, media_range):
        missing = f"the content-type '{given}'" if given else "an empty content-type"
        raise RefusedRequestError(
            400,
            f"{missing} does not match '{media_range}', which is what {where} takes. Say what the body is, with the "
            f"header 'content-type: {_example(media_range)}'.",
        )
    if media_range == JSON:
        _check_charset(given, where)


def _check_charset(given: str, where: str) -> None:
    if ";" not in given:
        return
    header = Message()
    header["content-type"] = given
    charset = header.get_content_charset("utf-8")
    if charset not in JSON_CHARSETS:
        raise RefusedRequestError(
            415,
            f"the content-type '{given}' says that the body is in the character set '{charset}', and {where} takes "
            "JSON, which is in UTF-8. Encode the body in UTF-8, and leave the charset out.",
        )


def _one_of_several(given: str) -> str:
    first, *others = given.split(REPEATED)  # Most often there is just one.
    for other in others:
        if other != first:
            raise RefusedRequestError(
                400, f"there are two different content-type headers, '{first}' and '{other}'; send one of them"
            )
    return first


def _example(media_range: str) -> str:
    return media_range.replace("/*", "/...")
