"""Log lines through the standard library's logger `durably`, for hosts that have not configured structlog, or through
the logger that a host gives.

A line is one message, `event name=value`, with the fields once more as `record.durably`. A traceback goes where the
library keeps one (`record.exc_text`), so every formatter puts it on lines of its own. Where the host has configured no
logging at all, warnings go to stderr with their time and level; the library's own last resort prints neither.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from durably.runtime.execution.failure_text import TRACEBACK

LOGGER_NAME: Final = "durably"

_LEVELS: Final = logging.getLevelNamesMapping()


class StandardLibraryLogger:
    """What structlog's loggers offer, as far as it is needed."""

    def __init__(self, logger: logging.Logger | None = None, fields: Mapping[str, Any] | None = None) -> None:
        self._logger = logging.getLogger(LOGGER_NAME) if logger is None else logger
        self._fields: Mapping[str, Any] = {} if fields is None else fields

    def bind(self, **fields: Any) -> StandardLibraryLogger:
        return StandardLibraryLogger(self._logger, {**self._fields, **fields})

    def is_enabled_for(self, level: int) -> bool:
        return self._logger.isEnabledFor(level)

    def write(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        number = _LEVELS[level.upper()]
        if not self._logger.isEnabledFor(number):
            return
        fields = {**self._fields, **fields}
        traceback = fields.pop(TRACEBACK, None)
        record = self._logger.makeRecord(
            self._logger.name, number, "(durably)", 0, "%s", (readable(event, fields),), None,
            extra={"durably": fields},
        )  # fmt: skip
        record.exc_text = traceback
        self._logger.handle(record)


class LastResortHandler(logging.Handler):
    """Writes to stderr what no other handler would be given, with its time and level."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        logger: logging.Logger | None = logging.getLogger(record.name)
        while logger is not None:
            if any(handler is not self for handler in logger.handlers):
                return  # The host has configured logging, and it hears of this record.
            logger = logger.parent if logger.propagate else None
        try:
            moment = datetime.fromtimestamp(record.created, UTC)
            stream = sys.stderr
            line = readable_line(moment, record.levelname, record.getMessage(), record.exc_text, stream.isatty())
            stream.write(line + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)


def write_somewhere() -> None:
    """From now on warnings are written even if the host never configures logging."""
    logger = logging.getLogger(LOGGER_NAME)
    if not any(isinstance(handler, LastResortHandler) for handler in logger.handlers):
        logger.addHandler(LastResortHandler())


def readable_line(moment: datetime, level: str, message: str, traceback: str | None, is_for_eyes: bool) -> str:
    """A line of a log, with the traceback below it on a terminal, and as one more field of it elsewhere."""
    line = f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z [{level.lower():<7}] {message}"
    if not traceback:
        return line
    return f"{line}\n{traceback}" if is_for_eyes else f"{line} traceback={json.dumps(traceback)}"


def readable(event: str, fields: Mapping[str, Any]) -> str:
    """An event and its fields, for people."""
    return " ".join([event, *(f"{name}={value!r}" for name, value in fields.items())])
