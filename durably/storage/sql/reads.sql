-- name: encoded_invocations
-- Each invocation with its record as a JSON array in column order.
create temp view encoded_invocations as
select
    *,
    json_array(
        number, id, service, key, handler, seed, argument, headers,
        scope_service, scope_key, scope_handler, idempotency_key,
        caller_service, caller_key, caller_number, caller_command,
        sender_id, deadline, accepted_at, keep_outcome_us,
        status, mailbox_position, attempts, failure, outcome, expires_at, due
    ) as record
from invocations;

-- name: encoded_journals
-- Each invocation with its record, steps, completions and attachments, and whether its sender is unfinished, as a JSON array.
create temp view encoded_journals as
select
    *,
    '[' || record || ',' || (
        select json_group_array(json_array(idx, content))
        from (select idx, content from steps where steps.number = invocation.number order by idx)
    ) || ',' || (
        select json_group_array(json_array(position, command, failed, value))
        from (
            select position, command, failed, value from completions
            where completions.number = invocation.number order by position, command
        )
    ) || ',' || (
        select json_group_array(json_array(caller_number, caller_command, caller_service, caller_key))
        from (
            select caller_number, caller_command, caller_service, caller_key from attachments
            where attachments.number = invocation.number order by caller_number, caller_command
        )
    ) || ',' || exists (
        select 1 from invocations as sender where sender.id = invocation.sender_id and sender.status <> 'completed'
    ) || ']' as journal
from encoded_invocations as invocation;

-- name: load
-- For each address (a JSON array of service and key): its state, what has started, the head of its mailbox, and how many
-- wait there altogether. One statement is one snapshot (rule L2).
select '[' || coalesce(group_concat('[' || state || ',' || started || ',' || pending || ',' || waiting || ']'), '') || ']'
from (
    select
        (
            select json_group_object(field, value) from state
            where state.service = address.service and state.key = address.key
        ) as state,
        (
            select '[' || coalesce(group_concat(journal), '') || ']'
            from (
                select number, journal from encoded_journals
                where
                    service = address.service and key = address.key
                    and status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
                union all
                select number, journal from encoded_journals
                where
                    service = address.service and key = address.key
                    and status = 'pending' and status <> 'completed' and mailbox_position is null
            )
        ) as started,
        (
            select '[' || coalesce(group_concat(journal), '') || ']'
            from (
                select journal
                from (
                    select
                        number as place,
                        sum(size) over (
                            order by mailbox_position rows between unbounded preceding and 1 preceding
                        ) as before
                    from (
                        select number, mailbox_position, length(argument) as size from invocations
                        where
                            service = address.service and key = address.key
                            and status = 'pending' and status <> 'completed' and mailbox_position is not null
                        order by mailbox_position
                        limit :pending_limit
                    )
                )
                cross join encoded_journals on number = place
                where before is null or before < :pending_bytes
                order by mailbox_position
            )
        ) as pending,
        (
            select count(*) from invocations
            where
                service = address.service and key = address.key
                and status = 'pending' and status <> 'completed' and mailbox_position is not null
        ) as waiting
    from (
        select value ->> 0 as service, value ->> 1 as key
        from json_each(cast(:addresses as text)) order by json_each.key
    ) as address
);

-- name: load_in_pieces
-- The same of one object whose answer would be too long for one string: in rows of (what it is, one piece of it).
select 'state', json_object(field, value) from state where service = :service and key = :key
union all
select 'started', journal from encoded_journals
where
    service = :service and key = :key
    and status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
union all
select 'started', journal from encoded_journals
where
    service = :service and key = :key
    and status = 'pending' and status <> 'completed' and mailbox_position is null
union all
select 'pending', journal
from (
    select journal
    from (
        select
            number as place,
            sum(size) over (order by mailbox_position rows between unbounded preceding and 1 preceding) as before
        from (
            select number, mailbox_position, length(argument) as size from invocations
            where
                service = :service and key = :key
                and status = 'pending' and status <> 'completed' and mailbox_position is not null
            order by mailbox_position
            limit :pending_limit
        )
    )
    cross join encoded_journals on number = place
    where before is null or before < :pending_bytes
    order by mailbox_position
)
union all
select 'waiting', json_array(count(*)) from invocations
where
    service = :service and key = :key
    and status = 'pending' and status <> 'completed' and mailbox_position is not null;

-- name: find
-- (asked, record) of the invocations with these ids or aliases.
select '[' || coalesce(group_concat('[' || json_quote(asked) || ',' || record || ']'), '') || ']'
from (
    select
        value as asked,
        coalesce(
            (select number from invocations where id = value),
            (select number from aliases where id = value)
        ) as found
    from json_each(cast(:ids as text))
)
cross join encoded_invocations on number = found;

-- name: find_keyed
-- (place in the question, record) of the invocations with these idempotency keys.
select '[' || coalesce(group_concat('[' || asked.key || ',' || record || ']'), '') || ']'
from json_each(cast(:scopes as text)) as asked
cross join encoded_invocations as invocation
on
    invocation.idempotency_key = asked.value ->> 3
    and invocation.scope_service = asked.value ->> 0
    and invocation.scope_key = asked.value ->> 1
    and invocation.scope_handler = asked.value ->> 2;

-- name: fetch
-- Unfinished invocations by number, with what belongs to them.
select '[' || coalesce(group_concat(journal), '') || ']'
from json_each(cast(:numbers as text)) as asked
cross join encoded_journals
on number = asked.value and status <> 'completed';

-- name: recoverable
-- (number, service, key) of what can run at once (rule T3): running ones, and the heads of mailboxes that nobody holds.
select json_group_array(json_array(number, service, key))
from (
    select number, service, key from invocations
    where
        status = 'running' and status in ('running', 'pending', 'backing-off', 'paused')
        and number > :after
    union all
    select number, service, key from invocations as head
    where
        status = 'pending' and status in ('running', 'pending', 'backing-off', 'paused')
        and number > :after
        and mailbox_position is not null
        and not exists (
            select 1 from invocations as earlier
            where
                earlier.service = head.service and earlier.key = head.key
                and earlier.status = 'pending' and earlier.status <> 'completed'
                and earlier.mailbox_position < head.mailbox_position
        )
        and not exists (
            select 1 from invocations as holder
            where
                holder.service = head.service and holder.key = head.key
                and holder.status in ('running', 'backing-off', 'suspended', 'paused') and holder.status <> 'completed'
                and holder.mailbox_position is not null
        )
    order by number
    limit :limit
);

-- name: timers
-- Timers due by a moment, after a place in their order.
select json_group_array(json_array(number, kind, command, due, service, key))
from (
    select number, kind, command, due, service, key from timers
    where
        due <= :until
        and (due, number, kind, command) > (:after_due, :after_number, :after_kind, :after_command)
    order by due, number, kind, command
    limit :limit
);

-- name: expired
-- Finished invocations whose outcome may be forgotten.
select '[' || coalesce(group_concat(record), '') || ']'
from (
    select record from encoded_invocations
    where expires_at is not null and expires_at <= :now and status = 'completed'
    order by expires_at, number
    limit :limit
);

-- name: state
-- The snapshot of one object.
select json_group_object(field, value) from state where service = :service and key = :key;

-- name: invocations
-- Invocations by number, for those who look into the store.
select '[' || coalesce(group_concat(record), '') || ']'
from (
    select record from encoded_invocations
    where
        number > :after
        and (:service is null or service = :service)
        and (:key is null or key = :key)
        and (:handler is null or handler = :handler)
        and (:status is null or status = :status)
    order by number
    limit :limit
);

-- name: invocations_in_hand
-- The same for a status that few invocations have at a time: not a walk over sleepers and finished ones.
select '[' || coalesce(group_concat(record), '') || ']'
from (
    select record from encoded_invocations
    where
        status = :status and status in ('running', 'pending', 'backing-off', 'paused')
        and number > :after
        and (:service is null or service = :service)
        and (:key is null or key = :key)
        and (:handler is null or handler = :handler)
    order by number
    limit :limit
);
