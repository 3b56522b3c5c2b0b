"""Errors in words, for the account of a run that failed."""

from __future__ import annotations

import traceback
from typing import cast


def describe(error: BaseException) -> str:
    """An error with its text, or else the line that raised it; of a group, those that it is about."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(map(describe, group.exceptions))
    text = str(error)
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        text = f"{frames[-1].line}, at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
