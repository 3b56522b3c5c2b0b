"""Logs of a served runtime, on stderr: readable lines for people, or one JSON object per line."""

from __future__ import annotations

import logging
import sys
from enum import StrEnum
from typing import Final

import orjson
import structlog
from structlog.typing import EventDict, Processor

from durably.runtime.execution.failure_text import TRACEBACK

_TIME_OF_DAY: Final = "%H:%M:%S.%f"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def configure_logs(level: LogLevel, *, as_json: bool) -> None:
    """Set up structlog and the standard library's logging, once per process."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if not as_json and sys.stderr.isatty():
        shared[-1] = structlog.processors.TimeStamper(fmt=_TIME_OF_DAY, utc=False)
    last = _json_lines() if as_json else _readable_lines()
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    # The server's and other libraries' news are of interest from warnings on; with --log-level debug, all of it.
    logging.basicConfig(
        level=number if number < logging.INFO else max(number, logging.WARNING), handlers=[handler], force=True
    )


def _json_lines() -> list[Processor]:
    def encode(value: object, **_: object) -> str:
        return orjson.dumps(value, default=str).decode()

    return [
        _name_the_traceback,
        structlog.processors.dict_tracebacks,
        structlog.processors.JSONRenderer(serializer=encode),
    ]


def _readable_lines() -> list[Processor]:
    if sys.stderr.isatty():
        return [
            _leave_out_what_the_traceback_says,
            structlog.dev.ConsoleRenderer(pad_event=0, exception_formatter=structlog.dev.plain_traceback),
        ]
    return [structlog.processors.format_exc_info, _name_the_traceback, _plain_line]


def _leave_out_what_the_traceback_says(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """On a terminal the traceback stands below the line: its last lines are the error and where it was raised."""
    if TRACEBACK in fields:
        fields.pop("at", None)
        fields.pop("error", None)
    return fields


def _name_the_traceback(_logger: object, _method: str, fields: EventDict) -> EventDict:
    """What only a terminal shows on lines of its own is one field elsewhere, and is called what it is."""
    for name in (TRACEBACK, "exception"):
        if isinstance(fields.get(name), str):
            fields["traceback"] = fields.pop(name)
    return fields


def _plain_line(_logger: object, _method: str, fields: EventDict) -> str:
    moment, level, event = (str(fields.pop(name, "")) for name in ("timestamp", "level", "event"))
    told = "".join(f" {name}={_plain(value)}" for name, value in fields.items() if not name.startswith("_"))
    return f"{moment} [{level:<7}] {event}{told}"


def _plain(value: object) -> str:
    """Text that is one word as it is, and all else as JSON, so that a line stays one line."""
    if isinstance(value, str) and value.isprintable() and value and not set(value) & set(" =\"'"):
        return value
    return orjson.dumps(value, default=str).decode()
