-- What the tables of durably/runtime/queries/tables.py read in PostgreSQL, from the views of the store's schema
-- (`durably_views` stands for its name): columns that are not here are NULL, and what only the memory of the owner knows.

-- name: sys_invocation
-- Each invocation.
select
    id, target, target_service_name, target_service_key, target_handler_name, idempotency_key, invoked_by,
    invoked_by_id, invoked_by_service_name, invoked_by_target, created_at, scheduled_start_at, completed_at,
    completion_retention, retry_count, next_retry_at, last_failure, status, completion_result, completion_failure
from durably_views.sys_invocation;

-- name: sys_invocation_status
-- Invocations, with the statuses of this table.
select
    id,
    case
        when status in ('running', 'backing-off', 'ready') then 'invoked'
        when status = 'pending' then 'inboxed'
        else status
    end as status,
    completion_result, completion_failure, target, target_service_name, target_service_key, target_handler_name,
    idempotency_key, invoked_by, invoked_by_id, invoked_by_service_name, invoked_by_target, created_at,
    scheduled_start_at, completed_at, completion_retention
from durably_views.sys_invocation;

-- name: sys_invocation_state
-- What has started and not ended.
select id, retry_count, next_retry_at, last_failure
from durably_views.sys_invocation
where status in ('running', 'backing-off', 'ready', 'suspended', 'paused');

-- name: sys_journal
-- The steps of journals, as they are stored.
select id, index, case when raw_length <= 1048576 then entry_json end as entry_json, raw_length
from durably_views.sys_journal;

-- name: state
-- The fields of objects that are loaded with them. Values that are too large to be read in a query are NULL.
select
    service_name, service_key, key, octet_length(key) as key_length,
    case when value_length <= 1048576 then value_utf8 end as value_utf8,
    case when value_length <= 1048576 then value end as value,
    value_length
from durably_views.sys_state;

-- name: sys_inbox
-- What waits for its turn.
select service_name, service_key, id, sequence_number, created_at from durably_views.sys_inbox;

-- name: sys_idempotency
-- Requests with a key.
select service_name, service_key, service_handler, idempotency_key, invocation_id from durably_views.sys_idempotency;

-- name: sys_keyed_service_status
-- Who holds which object.
select service_name, service_key, invocation_id from durably_views.sys_keyed_service_status;

-- name: sys_promise
-- The promises of workflows that are completed.
select
    service_name, service_key, key, completed,
    case when octet_length(completion_success_value) <= 1048576 then completion_success_value end
        as completion_success_value,
    case when octet_length(completion_success_value_utf8) <= 1048576 then completion_success_value_utf8 end
        as completion_success_value_utf8,
    completion_failure
from durably_views.sys_promise;
