"""The tables of `POST /query` against those that restate-server 1.7.12 has: their names, columns and types."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx
import pytest

from durably import Context, Service, handler
from durably.testing import Harness

pytest.importorskip("sqlglot")
pa = pytest.importorskip("pyarrow")


RECORDED: Final[Mapping[str, Mapping[str, str]]] = {
    "state": {
        "uint64": "partition_key key_length value_length",
        "large_string": "scope service_name service_key key value_utf8",
        "large_binary": "value",
    },
    "sys_deployment": {
        "large_string": "id ty endpoint",
        "timestamp[ms, tz=+00:00]": "created_at",
        "uint32": "min_service_protocol_version max_service_protocol_version",
        "list<item: large_string>": "services",
    },
    "sys_inbox": {
        "uint64": "partition_key sequence_number",
        "large_string": "service_name service_key id",
        "timestamp[ms, tz=+00:00]": "created_at",
    },
    "sys_invocation": {
        "large_string": (
            "id vqueue_id target target_service_name target_service_key target_handler_name target_service_ty "
            "scope limit_key idempotency_key invoked_by invoked_by_service_name invoked_by_id "
            "invoked_by_subscription_id invoked_by_target restarted_from pinned_deployment_id trace_id "
            "created_using_restate_version suspended_waiting_future_json last_attempt_deployment_id "
            "last_attempt_server last_failure last_failure_error_code last_failure_related_entry_name "
            "last_failure_related_entry_type last_failure_related_command_name "
            "last_failure_related_command_type last_awaiting_on_future_json status completion_result "
            "completion_failure"
        ),
        "uint32": "pinned_service_protocol_version journal_size journal_commands_size",
        "timestamp[ms, tz=+00:00]": (
            "created_at modified_at inboxed_at scheduled_at scheduled_start_at running_at completed_at "
            "last_start_at next_retry_at"
        ),
        "duration[ms]": "completion_retention journal_retention",
        "list<item: uint32>": "suspended_waiting_for_completions suspended_waiting_for_signals",
        "uint64": "retry_count last_failure_related_entry_index last_failure_related_command_index",
    },
    "sys_invocation_state": {
        "uint64": "partition_key retry_count last_failure_related_command_index last_failure_related_entry_index",
        "large_string": (
            "id last_attempt_deployment_id last_attempt_server last_failure last_failure_error_code "
            "last_failure_related_command_name last_failure_related_command_type "
            "last_failure_related_entry_name last_failure_related_entry_type last_awaiting_on_future_json"
        ),
        "bool": "in_flight",
        "timestamp[ms, tz=+00:00]": "last_start_at next_retry_at",
    },
    "sys_invocation_status": {
        "uint64": "partition_key",
        "large_string": (
            "id vqueue_id status completion_result completion_failure target target_service_name "
            "target_service_key target_handler_name target_service_ty scope limit_key idempotency_key "
            "invoked_by invoked_by_id invoked_by_subscription_id invoked_by_service_name invoked_by_target "
            "restarted_from pinned_deployment_id trace_id created_using_restate_version "
            "suspended_waiting_future_json"
        ),
        "uint32": "pinned_service_protocol_version journal_size journal_commands_size",
        "timestamp[ms, tz=+00:00]": (
            "created_at modified_at inboxed_at scheduled_at scheduled_start_at running_at completed_at"
        ),
        "duration[ms]": "completion_retention journal_retention",
        "list<item: uint32>": "suspended_waiting_for_completions suspended_waiting_for_signals",
    },
    "sys_journal": {
        "uint64": "partition_key raw_length",
        "large_string": "id entry_type name invoked_id invoked_target promise_name entry_json entry_lite_json",
        "uint32": "index version",
        "bool": "completed",
        "timestamp[ms, tz=+00:00]": "sleep_wakeup_at appended_at",
        "large_binary": "raw",
    },
    "sys_journal_events": {
        "uint64": "partition_key",
        "large_string": "id event_type event_json",
        "uint32": "after_journal_entry_index",
        "timestamp[ms, tz=+00:00]": "appended_at",
    },
    "sys_keyed_service_status": {
        "uint64": "partition_key",
        "large_string": "service_name service_key invocation_id",
    },
    "sys_locks": {
        "uint64": "partition_key",
        "large_string": "scope lock_name acquired_by",
        "timestamp[ms, tz=+00:00]": "acquired_at",
    },
    "sys_promise": {
        "uint64": "partition_key",
        "large_string": "scope service_name service_key key completion_success_value_utf8 completion_failure",
        "bool": "completed",
        "large_binary": "completion_success_value",
    },
    "sys_rules": {
        "large_string": "pattern description",
        "uint32": "concurrency version",
        "bool": "disabled",
        "timestamp[ms, tz=+00:00]": "last_modified",
    },
    "sys_scheduler": {
        "uint64": "partition_key num_inbox",
        "large_string": "id status head_entry_id blocked_on blocked_on_json",
        "timestamp[ms, tz=+00:00]": "scheduled_at",
        "duration[ms]": (
            "invoker_concurrency_block_duration throttling_rules_block_duration "
            "invoker_throttling_block_duration invoker_memory_block_duration concurrency_rules_block_duration "
            "lock_block_duration deployment_concurrency_block_duration"
        ),
    },
    "sys_service": {
        "large_string": "name ty deployment_id",
        "uint64": "revision",
        "bool": "public",
    },
    "sys_user_limits": {
        "uint64": "partition_key num_waiters",
        "large_string": "scope l1 l2 level rule_pattern",
        "uint32": "usage concurrency_limit available",
    },
    "sys_vqueue_entry_status": {
        "uint64": "partition_key sequence_number needed_memory",
        "large_string": "entry_id vqueue_id stage status entry_kind deployment",
        "bool": "has_lock",
        "timestamp[ms, tz=+00:00]": (
            "next_at created_at transitioned_at first_attempt_at latest_attempt_at first_runnable_at"
        ),
        "uint32": (
            "num_attempts num_errors num_pauses num_suspensions num_yields retry_attempts "
            "retry_count_since_last_stored_command"
        ),
        "duration[ms]": (
            "latest_attempt_blocked_on_invoker_concurrency latest_attempt_blocked_on_throttling_rules "
            "latest_attempt_blocked_on_invoker_throttling latest_attempt_blocked_on_invoker_memory "
            "latest_attempt_blocked_on_concurrency_rules latest_attempt_blocked_on_lock "
            "latest_attempt_blocked_on_deployment_concurrency total_blocked_on_invoker_concurrency "
            "total_blocked_on_throttling_rules total_blocked_on_invoker_throttling "
            "total_blocked_on_invoker_memory total_blocked_on_concurrency_rules total_blocked_on_lock "
            "total_blocked_on_deployment_concurrency"
        ),
    },
    "sys_vqueue_meta": {
        "uint64": "partition_key num_inbox num_running num_suspended num_paused num_finished",
        "large_string": "id service_name scope limit_key lock_name",
        "bool": "is_active queue_is_paused",
        "timestamp[ms, tz=+00:00]": "created_at last_enqueued_at last_start_at last_attempt_at last_finish_at",
        "duration[ms]": (
            "avg_queue_duration avg_inbox_duration avg_run_duration avg_suspension_duration "
            "avg_end_to_end_duration avg_blocked_on_concurrency_rules avg_blocked_on_invoker_concurrency "
            "avg_blocked_on_invoker_throttling avg_blocked_on_lock"
        ),
    },
    "sys_vqueues": {
        "uint64": "partition_key sequence_number",
        "large_string": "id stage status entry_id entry_kind deployment",
        "bool": "has_lock",
        "timestamp[ms, tz=+00:00]": (
            "run_at created_at transitioned_at first_attempt_at latest_attempt_at first_runnable_at"
        ),
        "uint32": "num_attempts num_errors num_pauses num_suspensions num_yields",
    },
}
"""Columns of each table by their types in Arrow, as restate-server 1.7.12 answers `SELECT * FROM table LIMIT 0`."""

NAMES_IN_SCHEMA: Final = {
    "bool": "Boolean",
    "duration[ms]": "Duration(ms)",
    "large_binary": "LargeBinary",
    "large_string": "LargeUtf8",
    "list<item: large_string>": "List(LargeUtf8)",
    "list<item: uint32>": "List(UInt32)",
    "timestamp[ms, tz=+00:00]": 'Timestamp(ms, "+00:00")',
    "uint32": "UInt32",
    "uint64": "UInt64",
}
"""How `information_schema.columns` of that server writes the types."""

ADDED: Final = {"sys_idempotency"}
"""What it had before 1.7."""


class Greeter(Service):
    @handler
    async def greet(self, ctx: Context, name: str) -> str:
        return f"Hi {name}"


@pytest.fixture
async def admin() -> AsyncIterator[httpx.AsyncClient]:
    async with Harness(Greeter) as app:
        transport = httpx.ASGITransport(app.asgi(admin=True))
        async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
            yield client


async def rows(admin: httpx.AsyncClient, sql: str) -> list[dict[str, str]]:
    answered = await admin.post("/query", json={"query": sql}, headers={"accept": "application/json"})
    assert answered.status_code == 200, answered.text
    found: list[dict[str, str]] = answered.json()["rows"]
    return found


def recorded(table: str) -> dict[str, str]:
    """Each column of the table with its type."""
    return {name: type for type, names in RECORDED[table].items() for name in names.split()}


@pytest.mark.parametrize("table", RECORDED)
async def test_a_table_has_the_columns_and_types_of_restates(admin: httpx.AsyncClient, table: str) -> None:
    answered = await admin.post("/query", json={"query": f"SELECT * FROM {table} LIMIT 0"})
    schema = pa.ipc.open_stream(answered.content).schema
    assert {field.name: str(field.type) for field in schema} == recorded(table)
    assert await rows(admin, f"SELECT * FROM {table} LIMIT 0") == []


async def test_the_schema_lists_the_tables_and_columns_of_restates(admin: httpx.AsyncClient) -> None:
    tables = await rows(admin, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    assert {one["table_name"] for one in tables} == RECORDED.keys() | ADDED
    found: dict[str, dict[str, str]] = {}
    for one in await rows(admin, "SELECT table_name, column_name, data_type FROM information_schema.columns"):
        found.setdefault(one["table_name"], {})[one["column_name"]] = one["data_type"]
    assert {table: columns for table, columns in found.items() if table not in ADDED} == {
        table: {name: NAMES_IN_SCHEMA[type] for name, type in recorded(table).items()} for table in RECORDED
    }
