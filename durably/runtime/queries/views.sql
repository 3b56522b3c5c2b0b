-- What the tables of durably/runtime/queries/tables.py read: columns that are not here are NULL.
-- Functions of our own (functions.py) read stored payloads; `known_services`, `known_handlers`, `this_deployment` and
-- `live` are filled before each query. `moment(us)` and `span(us)` make text of microseconds.

-- name: known_invocations
-- Each invocation with all that is told of it. What a query does not want costs nothing: each column is an expression
-- over one row, without a join that would have to be made first.
select
    i.number,
    i.id,
    i.service,
    i.key,
    i.mailbox_position,
    i.handler,
    i.status as stored_status,
    i.idempotency_key as scope_idempotency_key,
    i.key = i.id as is_of_service,
    exists (select 1 from temp.live where live.number = i.number) as in_flight,
    case
        when i.status in ('running', 'backing-off') then 'invoked'
        when i.status <> 'pending' then i.status
        when i.mailbox_position is null or exists (select 1 from temp.live where live.number = i.number) then 'invoked'
        else 'inboxed'
    end as raw_status,
    case
        when i.status <> 'pending' then i.status
        when exists (select 1 from temp.live where live.number = i.number) then 'running'
        when i.mailbox_position is null then 'ready'
        else 'pending'
    end as status,
    iif(i.status = 'completed', outcome_result(i.outcome), null) as completion_result,
    iif(i.status = 'completed', outcome_failure(i.outcome), null) as completion_failure,
    i.service || '/' || iif(i.key = i.id, '', i.key || '/') || i.handler as target,
    i.service as target_service_name,
    iif(i.key = i.id, null, i.key) as target_service_key,
    i.handler as target_handler_name,
    coalesce(
        (select ty from temp.known_services where known_services.name = i.service),
        iif(i.key = i.id, 'service', 'virtual_object')
    ) as target_service_ty,
    nullif(i.idempotency_key, '') as idempotency_key,
    iif(i.caller_number is null and i.sender_id is null, 'ingress', 'service') as invoked_by,
    coalesce(i.sender_id, (select c.id from main.invocations as c where c.number = i.caller_number)) as invoked_by_id,
    coalesce(
        i.caller_service, (select c.service from main.invocations as c where c.id = i.sender_id)
    ) as invoked_by_service_name,
    coalesce(
        (
            select c.service || '/' || iif(c.key = c.id, '', c.key || '/') || c.handler
            from main.invocations as c where c.number = i.caller_number
        ),
        (
            select c.service || '/' || iif(c.key = c.id, '', c.key || '/') || c.handler
            from main.invocations as c where c.id = i.sender_id
        )
    ) as invoked_by_target,
    iif(
        i.status = 'scheduled' or (
            i.status = 'pending' and i.mailbox_position is not null
            and not exists (select 1 from temp.live where live.number = i.number)
        ),
        null, (select id from temp.this_deployment)
    ) as pinned_deployment_id,
    iif(i.status in ('scheduled', 'pending'), 1, journal_size(i.number)) as journal_size,
    iif(i.status in ('scheduled', 'pending'), 1, journal_commands_size(i.number)) as journal_commands_size,
    moment(i.accepted_at) as created_at,
    moment(
        case
            when i.status = 'completed' then i.expires_at - i.keep_outcome_us
            when i.status = 'scheduled' then i.accepted_at
            else max(
                coalesce(i.due, i.accepted_at),
                iif(i.status = 'pending', 0, coalesce(step_at(i.number, 'last'), 0)),
                coalesce((select max(t.asked_at) from main.timers as t where t.number = i.number and t.kind = 'retry'), 0)
            )
        end
    ) as modified_at,
    iif(i.status = 'scheduled' or i.mailbox_position is null, null, moment(coalesce(i.due, i.accepted_at)))
        as inboxed_at,
    iif(i.status in ('scheduled', 'pending'), null, moment(step_at(i.number, 'first'))) as running_at,
    iif(i.due is null, null, moment(i.accepted_at)) as scheduled_at,
    moment(i.due) as scheduled_start_at,
    iif(i.status = 'completed', moment(i.expires_at - i.keep_outcome_us), null) as completed_at,
    span(i.keep_outcome_us) as completion_retention,
    span(min(
        coalesce(i.keep_outcome_us, 0),
        coalesce(
            (
                select h.journal_retention_us from temp.known_handlers as h
                where h.service = i.service and h.name = i.handler
            ),
            iif(i.idempotency_key is null, 0, 86400000000)
        )
    )) as journal_retention,
    iif(i.status = 'suspended', waited_for(i.number, 'completions'), null) as suspended_waiting_for_completions,
    iif(i.status = 'suspended', waited_for(i.number, 'signals'), null) as suspended_waiting_for_signals,
    iif(
        i.status = 'completed', null, i.attempts + exists (select 1 from temp.live where live.number = i.number)
    ) as retry_count,
    moment(
        (select t.due from main.timers as t where t.number = i.number and t.kind = 'retry')
    ) as next_retry_at,
    iif(i.status = 'completed', null, failure_text(i.failure)) as last_failure
from main.invocations as i;

-- name: sys_invocation
-- What stands of invocations, and what is known of their attempts.
select
    id, target, target_service_name, target_service_key, target_handler_name, target_service_ty, idempotency_key,
    invoked_by, invoked_by_id, invoked_by_service_name, invoked_by_target, pinned_deployment_id,
    iif(pinned_deployment_id is null, null, 5) as pinned_service_protocol_version, journal_size, journal_commands_size,
    created_at, modified_at, inboxed_at, scheduled_at, scheduled_start_at, running_at, completed_at,
    completion_retention, journal_retention, suspended_waiting_for_completions, suspended_waiting_for_signals,
    retry_count, next_retry_at, iif(in_flight, (select id from temp.this_deployment), null) as last_attempt_deployment_id,
    iif(in_flight, (select server from temp.this_deployment), null) as last_attempt_server,
    last_failure, status, completion_result, completion_failure
from temp.known_invocations;

-- name: sys_invocation_status
-- Invocations as they are stored.
select
    id, raw_status as status, completion_result, completion_failure, target, target_service_name, target_service_key,
    target_handler_name, target_service_ty, idempotency_key, invoked_by, invoked_by_id, invoked_by_service_name,
    invoked_by_target, pinned_deployment_id,
    iif(pinned_deployment_id is null, null, 5) as pinned_service_protocol_version, journal_size, journal_commands_size,
    created_at, modified_at, inboxed_at, scheduled_at, scheduled_start_at, running_at, completed_at,
    completion_retention, journal_retention, suspended_waiting_for_completions, suspended_waiting_for_signals
from temp.known_invocations;

-- name: sys_invocation_state
-- What has started and not ended.
select id, in_flight, retry_count, next_retry_at, last_failure,
    iif(in_flight, (select id from temp.this_deployment), null) as last_attempt_deployment_id,
    iif(in_flight, (select server from temp.this_deployment), null) as last_attempt_server
from temp.known_invocations
where raw_status in ('invoked', 'suspended', 'paused');

-- name: sys_journal
-- The entries of journals that are kept.
select
    one.id,
    entry.value as "index",
    journal_entry(one.number, entry.value, 'entry_type') as entry_type,
    journal_entry(one.number, entry.value, 'name') as name,
    journal_entry(one.number, entry.value, 'invoked_id') as invoked_id,
    journal_entry(one.number, entry.value, 'invoked_target') as invoked_target,
    moment(journal_entry(one.number, entry.value, 'sleep_wakeup_at')) as sleep_wakeup_at,
    journal_entry(one.number, entry.value, 'promise_name') as promise_name,
    journal_entry(one.number, entry.value, 'raw') as raw,
    journal_entry(one.number, entry.value, 'raw_length') as raw_length,
    journal_entry(one.number, entry.value, 'version') as version,
    journal_entry(one.number, entry.value, 'entry_json') as entry_json,
    moment(journal_entry(one.number, entry.value, 'appended_at')) as appended_at
from temp.known_invocations as one, json_each(journal_indexes(one.number)) as entry;

-- name: sys_journal_events
-- Attempts that fail are no entries, and only the last one is known: see `last_failure`.
select null as id where 0;

-- name: state
-- The fields of objects that are loaded with them. Values that are too large to be read in a query are NULL.
select
    field.service as service_name,
    field.key as service_key,
    field.field as key,
    length(cast(field.field as blob)) as key_length,
    utf8(payload(field.value)) as value_utf8,
    payload(field.value) as value,
    length(payload(field.value)) as value_length
from (
    select
        service, key, field,
        iif(typeof(value) = 'blob' and length(value) > value_limit(), null, value) as value
    from main.state
    where service <> '' and field not like 'durably:%'
) as field;

-- name: sys_service
-- What runs here.
select name, 1 as revision, public, ty, (select id from temp.this_deployment) as deployment_id from temp.known_services;

-- name: sys_deployment
-- The program itself.
select id, 'http' as ty, endpoint, created_at, 5 as min_service_protocol_version, 5 as max_service_protocol_version,
    (select json_group_array(name) from temp.known_services) as services
from temp.this_deployment;

-- name: sys_inbox
-- What waits for its turn.
select service as service_name, key as service_key, id, mailbox_position as sequence_number,
    created_at
from temp.known_invocations where raw_status = 'inboxed';

-- name: sys_idempotency
-- Restate has had this table up to its version 1.6.
select service as service_name, iif(is_of_service, null, key) as service_key, handler as service_handler,
    scope_idempotency_key as idempotency_key, id as invocation_id
from temp.known_invocations where scope_idempotency_key <> '';

-- name: sys_keyed_service_status
-- Who holds which object.
select service as service_name, key as service_key, id as invocation_id
from temp.known_invocations
where mailbox_position is not null and raw_status in ('invoked', 'suspended', 'paused');

-- name: sys_promise
-- The promises of workflows that are completed. Those that are only waited for are in journals.
select
    service as service_name,
    key as service_key,
    name as key,
    1 as completed,
    iif(failed, null, payload(value)) as completion_success_value,
    iif(failed, null, utf8(payload(value))) as completion_success_value_utf8,
    iif(failed, error_text(payload(value)), null) as completion_failure
from (
    select
        service, key, name, failed,
        iif(typeof(value) = 'blob' and length(value) > value_limit(), null, value) as value
    from main.promises
);

-- name: sys_scheduler
-- Virtual queues of Restate: none.
select null as id where 0;

-- name: sys_vqueues
-- None.
select null as id where 0;

-- name: sys_vqueue_meta
-- None.
select null as id where 0;

-- name: sys_vqueue_entry_status
-- None.
select null as entry_id where 0;

-- name: sys_rules
-- Limits are said in code (docs/limits.md).
select null as pattern where 0;

-- name: sys_user_limits
-- None.
select null as scope where 0;

-- name: sys_locks
-- None.
select null as scope where 0;

-- name: journal_head
-- What a journal begins and ends with; NULL what is too large.
select
    id, seed, accepted_at,
    case
        when argument is not null then argument
        else (
            select iif(length(content) > :limit, null, content) from main.arguments as a where a.number = i.number
        )
    end,
    iif(typeof(outcome) = 'blob' and length(outcome) > :limit, null, outcome),
    status = 'completed'
from main.invocations as i where i.number = :number;

-- name: journal_steps
-- The steps of a journal.
select iif(typeof(content) = 'blob' and length(content) > :limit, null, content)
from main.steps where number = :number order by idx;

-- name: journal_first_step
-- When it began.
select iif(typeof(content) = 'blob' and length(content) > :limit, null, content)
from main.steps where number = :number order by idx limit 1;

-- name: journal_last_step
-- When it went on for the last time.
select iif(typeof(content) = 'blob' and length(content) > :limit, null, content)
from main.steps where number = :number order by idx desc limit 1;

-- name: journal_answers
-- The answers with rows of their own.
select command, failed, iif(typeof(value) = 'blob' and length(value) > :limit, null, value)
from main.completions where number = :number;
