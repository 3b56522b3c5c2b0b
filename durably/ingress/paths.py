"""The path of a request below the place where the ingress is mounted, as encoded segments: `path_segments`.

Segments are split before they are decoded, so a segment may hold any character: `/` as `%2F`, `?` as `%3F`. A mount
point is removed only where it ends together with a segment: with `root_path="/product"`, `/products/7/sell` keeps
its first segment. Servers and frameworks disagree on whether `path` includes `root_path` when a proxy in front has
already removed a part of it, so each form is understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import quote, unquote, unquote_to_bytes

from starlette.types import Scope

from durably.ingress.refusals import RefusedRequestError

MOUNT: Final = "durably_mount"
"""Where such a scope keeps the path that the ingress is mounted under."""


def path_segments(scope: Scope) -> list[bytes]:
    """The encoded segments below the mount point, without the empty ones that trailing slashes make."""
    raw: bytes = scope.get("raw_path") or b""
    if not raw or b"?" in raw:
        raw = _raw_path(scope)
    segments = raw.rstrip(b"/").split(b"/")
    del segments[0]
    root: str = scope.get("root_path", "")
    if not root:
        return segments
    for mount in _mount_points(scope, root):
        below = _below(segments, mount)
        if below is not None:
            return below
    return segments


def segment_text(segment: bytes) -> str:
    """A segment as text, URL-decoded.

    Raises:
        RefusedRequestError: 400, it is not UTF-8.
    """
    try:
        return (unquote_to_bytes(segment) if b"%" in segment else segment).decode()
    except UnicodeDecodeError:
        raise RefusedRequestError(
            400, f"bad path, a segment is not UTF-8 once it is URL-decoded: {segment.decode('ascii', 'replace')}"
        ) from None


def scope_below(scope: Scope, segments: Sequence[bytes]) -> Scope:
    """The scope of an application that routes by `path`: it sees the segments, decoded, and no mount point.

    `path_segments` of it are the same segments.
    """
    path = "/" + "/".join(unquote(segment.decode("latin-1")) for segment in segments)
    raw_path = b"/" + b"/".join(segments)
    return {**scope, "path": path, "raw_path": raw_path, "root_path": "", MOUNT: scope.get("root_path", "")}


def _raw_path(scope: Scope) -> bytes:
    """The path as it came over the wire. `raw_path` is optional in ASGI, and some servers leave the query on it."""
    raw: bytes | None = scope.get("raw_path")
    if not raw:
        return quote(scope["path"], safe="/").encode()
    return raw.partition(b"?")[0] if b"?" in raw else raw


def _mount_points(scope: Scope, root: str) -> list[bytes]:
    """What may have to be removed, the longest first.

    `root_path` names the whole way to the ingress. Where a proxy has removed what the outer application calls its own
    root path (Starlette passes it on as `app_root_path`), only the mounts below that are in the path.
    """
    outer: str = scope.get("app_root_path", "")
    mounts = [root, root.removeprefix(outer)] if outer else [root]
    return [mount.rstrip("/").encode() for mount in mounts if mount.rstrip("/")]


def _below(segments: Sequence[bytes], mount: bytes) -> list[bytes] | None:
    """The segments after a mount point; None if the path does not begin with it, segment by segment."""
    walked = b""
    for index, segment in enumerate(segments):
        walked += b"/" + unquote_to_bytes(segment)
        if len(walked) >= len(mount):
            return list(segments[index + 1 :]) if walked == mount else None
    return None
