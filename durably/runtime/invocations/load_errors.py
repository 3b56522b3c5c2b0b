"""Why an invocation cannot go on whose journal, or whose object's snapshot, the store left out of a load (rule L5)."""

from __future__ import annotations

from durably.errors import LoadLimitError
from durably.storage.records import StoredInvocation, StoredObject

ADVICE = (
    "It stays as it is until the store is opened with a higher limit (`SqliteStore(path, load_limit_mib=...)`) on a "
    "machine with the memory for it; then resume it. Keep large values elsewhere and pass their names."
)


def journal_load_error(stored: StoredInvocation) -> LoadLimitError | None:
    """Why this invocation cannot go on, if it cannot."""
    if stored.left_out_bytes is None:
        return None
    record = stored.record
    return LoadLimitError(
        f"The argument, steps and completions of {record.address.service}/{record.address.key}/{record.handler} "
        f"({record.id}) hold {_mib(stored.left_out_bytes)}, more than the store loads. {ADVICE}"
    )


def state_load_error(stored: StoredObject) -> LoadLimitError | None:
    """Why nothing of this object can go on, if it cannot."""
    if stored.left_out_bytes is None:
        return None
    service, key = stored.address
    return LoadLimitError(
        f"The state of {service}/{key} holds {_mib(stored.left_out_bytes)}, more than the store loads. {ADVICE}"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.1f} MiB"
