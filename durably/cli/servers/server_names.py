"""The HTTP servers that there are."""

from __future__ import annotations

from enum import StrEnum


class ServerName(StrEnum):
    """The servers, by the names of their packages."""

    UVICORN = "uvicorn"
    GRANIAN = "granian"
