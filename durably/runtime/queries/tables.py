"""The tables that can be asked for, with their columns and types: those of Restate's `sys_…` tables and of `state`.

What durably has no notion of is there with no rows (virtual queues, rules), or as a column that is always NULL.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ColumnType(StrEnum):
    """What the values of a column are, for those who encode an answer."""

    TEXT = "text"
    UNSIGNED = "unsigned"
    """Of 32 bits."""
    LONG = "long"
    """Unsigned, of 64 bits."""
    INTEGER = "integer"
    REAL = "real"
    BOOLEAN = "boolean"
    MOMENT = "moment"
    """RFC 3339 text in UTC with milliseconds."""
    DURATION = "duration"
    """ISO 8601 text, in whole seconds or milliseconds."""
    BINARY = "binary"
    NUMBERS = "numbers"
    """A JSON array of unsigned numbers, as text."""
    TEXTS = "texts"
    """A JSON array of texts, as text."""


_LETTERS: Final = {
    "s": ColumnType.TEXT, "u": ColumnType.UNSIGNED, "l": ColumnType.LONG, "b": ColumnType.BOOLEAN,
    "t": ColumnType.MOMENT, "d": ColumnType.DURATION, "x": ColumnType.BINARY, "n": ColumnType.NUMBERS,
    "a": ColumnType.TEXTS,
}  # fmt: skip


def _columns(*groups: str) -> Mapping[str, ColumnType]:
    """Of groups such as `s: id target`, in order."""
    found: dict[str, ColumnType] = {}
    for group in groups:
        letter, _, names = group.partition(": ")
        found |= dict.fromkeys(names.split(), _LETTERS[letter])
    return found


TABLES: Final[Mapping[str, Mapping[str, ColumnType]]] = {
    "sys_invocation": _columns(
        "s: id vqueue_id target target_service_name target_service_key target_handler_name target_service_ty scope "
        "limit_key idempotency_key invoked_by invoked_by_service_name invoked_by_id invoked_by_subscription_id "
        "invoked_by_target restarted_from pinned_deployment_id",
        "u: pinned_service_protocol_version", "s: trace_id", "u: journal_size journal_commands_size",
        "t: created_at", "s: created_using_restate_version",
        "t: modified_at inboxed_at scheduled_at scheduled_start_at running_at completed_at",
        "d: completion_retention journal_retention",
        "n: suspended_waiting_for_completions suspended_waiting_for_signals", "s: suspended_waiting_future_json",
        "l: retry_count", "t: last_start_at next_retry_at",
        "s: last_attempt_deployment_id last_attempt_server last_failure last_failure_error_code",
        "l: last_failure_related_entry_index",
        "s: last_failure_related_entry_name last_failure_related_entry_type",
        "l: last_failure_related_command_index",
        "s: last_failure_related_command_name last_failure_related_command_type last_awaiting_on_future_json status "
        "completion_result completion_failure",
    ),
    "sys_invocation_status": _columns(
        "l: partition_key",
        "s: id vqueue_id status completion_result completion_failure target target_service_name target_service_key "
        "target_handler_name target_service_ty scope limit_key idempotency_key invoked_by invoked_by_id "
        "invoked_by_subscription_id invoked_by_service_name invoked_by_target restarted_from pinned_deployment_id",
        "u: pinned_service_protocol_version", "s: trace_id", "u: journal_size journal_commands_size",
        "t: created_at", "s: created_using_restate_version",
        "t: modified_at inboxed_at scheduled_at scheduled_start_at running_at completed_at",
        "d: completion_retention journal_retention",
        "n: suspended_waiting_for_completions suspended_waiting_for_signals", "s: suspended_waiting_future_json",
    ),
    "sys_invocation_state": _columns(
        "l: partition_key", "s: id", "b: in_flight", "l: retry_count", "t: last_start_at",
        "s: last_attempt_deployment_id last_attempt_server", "t: next_retry_at",
        "s: last_failure last_failure_error_code", "l: last_failure_related_command_index",
        "s: last_failure_related_command_name last_failure_related_command_type",
        "l: last_failure_related_entry_index",
        "s: last_failure_related_entry_name last_failure_related_entry_type last_awaiting_on_future_json",
    ),
    "sys_journal": _columns(
        "l: partition_key", "s: id", "u: index", "s: entry_type name", "b: completed", "s: invoked_id invoked_target",
        "t: sleep_wakeup_at", "s: promise_name", "x: raw", "l: raw_length", "u: version",
        "s: entry_json entry_lite_json", "t: appended_at",
    ),
    "sys_journal_events": _columns(
        "l: partition_key", "s: id", "u: after_journal_entry_index", "t: appended_at", "s: event_type event_json",
    ),
    "state": _columns(
        "l: partition_key", "s: scope service_name service_key key", "l: key_length", "s: value_utf8", "x: value",
        "l: value_length",
    ),
    "sys_service": _columns("s: name", "l: revision", "b: public", "s: ty deployment_id"),
    "sys_deployment": _columns(
        "s: id ty endpoint", "t: created_at", "u: min_service_protocol_version max_service_protocol_version",
        "a: services",
    ),
    "sys_inbox": _columns(
        "l: partition_key", "s: service_name service_key id", "l: sequence_number", "t: created_at",
    ),
    "sys_idempotency": _columns(
        "l: partition_key", "s: service_name service_key service_handler idempotency_key invocation_id",
    ),
    "sys_keyed_service_status": _columns("l: partition_key", "s: service_name service_key invocation_id"),
    "sys_promise": _columns(
        "l: partition_key", "s: scope service_name service_key key", "b: completed", "x: completion_success_value",
        "s: completion_success_value_utf8 completion_failure",
    ),
    "sys_scheduler": _columns(
        "l: partition_key", "s: id", "l: num_inbox", "s: status head_entry_id", "t: scheduled_at",
        "s: blocked_on blocked_on_json",
        "d: invoker_concurrency_block_duration throttling_rules_block_duration invoker_throttling_block_duration "
        "invoker_memory_block_duration concurrency_rules_block_duration lock_block_duration "
        "deployment_concurrency_block_duration",
    ),
    "sys_vqueues": _columns(
        "l: partition_key", "s: id stage status", "b: has_lock", "t: run_at", "l: sequence_number",
        "s: entry_id entry_kind", "t: created_at transitioned_at",
        "u: num_attempts num_errors num_pauses num_suspensions num_yields",
        "t: first_attempt_at latest_attempt_at first_runnable_at", "s: deployment",
    ),
    "sys_vqueue_meta": _columns(
        "l: partition_key", "s: id", "b: is_active queue_is_paused", "s: service_name scope limit_key lock_name",
        "t: created_at last_enqueued_at last_start_at last_attempt_at last_finish_at",
        "d: avg_queue_duration avg_inbox_duration avg_run_duration avg_suspension_duration avg_end_to_end_duration "
        "avg_blocked_on_concurrency_rules avg_blocked_on_invoker_concurrency avg_blocked_on_invoker_throttling "
        "avg_blocked_on_lock",
        "l: num_inbox num_running num_suspended num_paused num_finished",
    ),
    "sys_vqueue_entry_status": _columns(
        "l: partition_key", "s: entry_id vqueue_id stage status", "b: has_lock", "t: next_at", "l: sequence_number",
        "s: entry_kind", "t: created_at transitioned_at",
        "u: num_attempts num_errors num_pauses num_suspensions num_yields",
        "t: first_attempt_at latest_attempt_at first_runnable_at", "s: deployment", "l: needed_memory",
        "u: retry_attempts retry_count_since_last_stored_command",
        "d: latest_attempt_blocked_on_invoker_concurrency latest_attempt_blocked_on_throttling_rules "
        "latest_attempt_blocked_on_invoker_throttling latest_attempt_blocked_on_invoker_memory "
        "latest_attempt_blocked_on_concurrency_rules latest_attempt_blocked_on_lock "
        "latest_attempt_blocked_on_deployment_concurrency total_blocked_on_invoker_concurrency "
        "total_blocked_on_throttling_rules total_blocked_on_invoker_throttling total_blocked_on_invoker_memory "
        "total_blocked_on_concurrency_rules total_blocked_on_lock total_blocked_on_deployment_concurrency",
    ),
    "sys_rules": _columns(
        "s: pattern", "u: concurrency", "s: description", "b: disabled", "u: version", "t: last_modified",
    ),
    "sys_user_limits": _columns(
        "l: partition_key", "s: scope l1 l2 level", "u: usage concurrency_limit", "s: rule_pattern", "u: available",
        "l: num_waiters",
    ),
    "sys_locks": _columns("l: partition_key", "s: scope lock_name", "t: acquired_at", "s: acquired_by"),
}  # fmt: skip

SCHEMA_COLUMNS: Final = "information_schema_columns"
SCHEMA_TABLES: Final = "information_schema_tables"
SCHEMA: Final[Mapping[str, Mapping[str, ColumnType]]] = {
    SCHEMA_COLUMNS: {
        **_columns("s: table_catalog table_schema table_name column_name", "l: ordinal_position"),
        **_columns("s: is_nullable data_type"),
    },
    SCHEMA_TABLES: _columns("s: table_catalog table_schema table_name table_type"),
}
"""What `information_schema.columns` and `information_schema.tables` stand for."""

ALL_TABLES: Final = {**TABLES, **SCHEMA}


def _types_by_name() -> Mapping[str, ColumnType]:
    """What a column of a name is in all tables that have one; names of which tables differ are left out."""
    found: dict[str, ColumnType] = {}
    differing: set[str] = set()
    for columns in ALL_TABLES.values():
        for name, type in columns.items():
            if found.setdefault(name, type) is not type:
                differing.add(name)
    return {name: type for name, type in found.items() if name not in differing}


TYPES_BY_NAME: Final = _types_by_name()
