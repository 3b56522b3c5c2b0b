-- name: sized_invocations
-- Each invocation with the size of its argument, which is not read for that where it is large.
create temp view sized_invocations as
select
    *,
    coalesce(
        length(argument), (select length(content) from arguments where arguments.number = invocations.number)
    ) as argument_bytes
from invocations;

-- name: encoded_invocations
-- Each invocation with its record as a JSON array in column order. In place of a large payload stands its size in bytes.
create temp view encoded_invocations as
select
    *,
    json_array(
        number, id, service, key, handler, seed,
        coalesce(argument, (select length(content) from arguments where arguments.number = invocations.number)),
        headers,
        scope_service, scope_key, scope_handler, idempotency_key,
        caller_service, caller_key, caller_number, caller_command,
        sender_id, deadline, accepted_at, keep_outcome_us,
        status, mailbox_position, attempts,
        iif(typeof(failure) = 'text', failure, length(failure)),
        iif(typeof(outcome) = 'text', outcome, length(outcome)),
        expires_at, due
    ) as record,
    exists (
        select 1 from invocations as sender where sender.id = invocations.sender_id and sender.status <> 'completed'
    ) as sender_unfinished
from invocations;

-- name: encoded_steps
-- Each step as a JSON array, with the size of its content in place of a large one.
create temp view encoded_steps as
select number, idx, json_array(idx, iif(typeof(content) = 'text', content, length(content))) as record from steps;

-- name: encoded_completions
-- The same of completions.
create temp view encoded_completions as
select
    number, position, command,
    json_array(position, command, failed, iif(typeof(value) = 'text', value, length(value))) as record
from completions;

-- name: encoded_signals
-- The same of signals.
create temp view encoded_signals as
select
    number, position,
    json_array(position, name, failed, iif(typeof(value) = 'text', value, length(value))) as record
from signals;

-- name: encoded_journals
-- Each invocation with its record, steps, completions and attachments, whether its sender is unfinished, and its signals,
-- as a JSON array.
create temp view encoded_journals as
select
    *,
    '[' || record || ',[' || coalesce((
        select group_concat(record)
        from (select record from encoded_steps as step where step.number = invocation.number order by idx)
    ), '') || '],[' || coalesce((
        select group_concat(record)
        from (
            select record from encoded_completions as completion
            where completion.number = invocation.number order by position, command
        )
    ), '') || '],' || (
        select json_group_array(json_array(caller_number, caller_command, caller_service, caller_key))
        from (
            select caller_number, caller_command, caller_service, caller_key from attachments
            where attachments.number = invocation.number order by caller_number, caller_command
        )
    ) || ',' || sender_unfinished || ',[' || coalesce((
        select group_concat(record)
        from (
            select record from encoded_signals as signal where signal.number = invocation.number order by position
        )
    ), '') || ']]' as journal
from encoded_invocations as invocation;

-- name: load
-- For each address (a JSON array of service and key): its state, what has started, the head of its mailbox, and how many
-- wait there altogether. One statement is one snapshot (rule L2).
select
    '[' || coalesce(group_concat(
        '[' || state || ',' || started || ',' || pending || ',' || waiting || ',' || promises || ']'
    ), '') || ']'
from (
    select
        (
            select json_group_object(field, iif(typeof(value) = 'text', value, length(value))) from state
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
                        select number, mailbox_position, argument_bytes as size from sized_invocations
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
        ) as waiting,
        (
            select json_group_array(
                json_array(name, failed, expires_at, iif(typeof(value) = 'text', value, length(value)))
            )
            from (
                select name, failed, expires_at, value from promises
                where promises.service = address.service and promises.key = address.key order by name
            )
        ) as promises
    from (
        select value ->> 0 as service, value ->> 1 as key
        from json_each(cast(:addresses as text)) order by json_each.key
    ) as address
);

-- name: records_of_object
-- For an object that is loaded in pieces: (what it is, record, whether the sender is unfinished) of what `load` finds.
select 'started', record, sender_unfinished from encoded_invocations
where
    service = :service and key = :key
    and status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
union all
select 'started', record, sender_unfinished from encoded_invocations
where
    service = :service and key = :key
    and status = 'pending' and status <> 'completed' and mailbox_position is null
union all
select 'pending', record, sender_unfinished
from (
    select record, sender_unfinished
    from (
        select
            number as place,
            sum(size) over (order by mailbox_position rows between unbounded preceding and 1 preceding) as before
        from (
            select number, mailbox_position, argument_bytes as size from sized_invocations
            where
                service = :service and key = :key
                and status = 'pending' and status <> 'completed' and mailbox_position is not null
            order by mailbox_position
            limit :pending_limit
        )
    )
    cross join encoded_invocations on number = place
    where before is null or before < :pending_bytes
    order by mailbox_position
);

-- name: waiting_of_object
-- How many messages wait in the mailbox of an object.
select count(*) from invocations
where
    service = :service and key = :key
    and status = 'pending' and status <> 'completed' and mailbox_position is not null;

-- name: record_of_number
-- (record, whether the sender is unfinished) of an unfinished invocation.
select record, sender_unfinished from encoded_invocations where number = :number and status <> 'completed';

-- name: record_of_ended
-- The same of one that has ended, unless its journal is on its way out.
select record, sender_unfinished from encoded_invocations as ended
where
    number = :number and status = 'completed'
    and not exists (select 1 from kept_journals where kept_journals.number = ended.number and expires_at = 0);

-- name: state_of_object
-- The fields of an object, with the size of its value in place of a large one.
select field, iif(typeof(value) = 'text', value, length(value)) from state where service = :service and key = :key;

-- name: promises_of_object
-- The promises of an object, with the size of its value in place of a large one.
select name, failed, expires_at, iif(typeof(value) = 'text', value, length(value)) from promises
where service = :service and key = :key
order by name;

-- name: large_promise
-- The value of a promise.
select value from promises where service = ? and key = ? and name = ?;

-- name: large_state
-- The value of a field.
select value from state where service = ? and key = ? and field = ?;

-- name: steps_of_number
-- The steps of a journal in order, some of them at a time.
select '[' || group_concat(record) || ']'
from (select idx, record from encoded_steps where number = :number order by idx)
group by idx / :portion;

-- name: completions_of_number
-- The completions of a journal, some of them at a time.
select '[' || group_concat(record) || ']'
from (select command, record from encoded_completions where number = :number order by command)
group by command / :portion;

-- name: attachments_of_number
-- Who waits for an invocation.
select json_group_array(json_array(caller_number, caller_command, caller_service, caller_key))
from (
    select caller_number, caller_command, caller_service, caller_key from attachments
    where number = :number order by caller_number, caller_command
);

-- name: signals_of_number
-- The signals of an invocation, some of them at a time.
select '[' || group_concat(record) || ']'
from (
    select row_number() over (order by position) - 1 as place, record from encoded_signals where number = :number
)
group by place / :portion;

-- name: large_signal
-- The value of a signal.
select value from signals where number = ? and position = ?;

-- name: large_argument
-- The argument of an invocation that is not in its row.
select content from arguments where number = ?;

-- name: large_failure
-- The failure of an invocation.
select failure from invocations where number = ?;

-- name: large_outcome
-- The outcome of an invocation.
select outcome from invocations where number = ?;

-- name: large_step
-- The content of a step.
select content from steps where number = ? and idx = ?;

-- name: large_completion
-- The value of a completion.
select value from completions where number = ? and command = ?;

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

-- name: fetch_ended
-- The same of invocations that have ended, with what is kept of them, but for those whose journal is on its way out.
select '[' || coalesce(group_concat(journal), '') || ']'
from json_each(cast(:numbers as text)) as asked
cross join encoded_journals
on
    number = asked.value and status = 'completed'
    and not exists (select 1 from kept_journals where kept_journals.number = asked.value and kept_journals.expires_at = 0);

-- name: has_more_entries
-- Whether an object has more than so many entries.
select count(*) > :most
from (select 1 from entries where service = :service and key = :key limit :most + 1) as entry;

-- name: journal_size
-- (how many steps, how many completions) of an invocation.
select
    (select count(*) from steps where number = :number),
    (select count(*) from completions where number = :number);

-- name: recoverable
-- (number, service, key) of what can run at once (rule T3): running ones, pending ones outside mailboxes, and the heads
-- of mailboxes that no invocation holds.
select json_group_array(json_array(number, service, key))
from (
    select number, service, key from invocations
    where
        status = 'running' and status in ('running', 'pending', 'backing-off', 'paused')
        and number > :after
    union all
    select number, service, key from invocations
    where
        status = 'pending' and status in ('running', 'pending', 'backing-off', 'paused')
        and number > :after
        and mailbox_position is null
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

-- name: held_up
-- (number, service, key) of suspended invocations without a sleep timer for which others wait: calls that are queued in
-- a mailbox which they hold, and commands that attached to them.
select json_group_array(json_array(number, service, key))
from (
    select holder.number as number, holder.service as service, holder.key as key
    from invocations as head
    cross join invocations as holder
    on
        holder.service = head.service and holder.key = head.key
        and holder.status = 'suspended' and holder.status <> 'completed' and holder.mailbox_position is not null
    where
        head.status = 'pending' and head.status in ('running', 'pending', 'backing-off', 'paused')
        and head.mailbox_position is not null
        and (
            head.caller_number is not null
            or exists (select 1 from attachments as waits where waits.number = head.number)
        )
        and holder.number > :after
        and not exists (select 1 from timers where timers.number = holder.number and timers.kind = 'sleep')
    union
    select target.number, target.service, target.key
    from (select distinct number from attachments where number > :after) as attached
    cross join invocations as target on target.number = attached.number and target.status = 'suspended'
    where not exists (select 1 from timers where timers.number = target.number and timers.kind = 'sleep')
    order by number
    limit :limit
);

-- name: timers
-- Timers due by a moment and asked for after another, after a place in their order; none of an unknown kind (rule L5).
select json_group_array(json_array(number, kind, command, due, service, key, asked_at))
from (
    select number, kind, command, due, service, key, asked_at from timers
    where
        due <= :until and asked_at > :asked_after
        and (due, number, kind, command) > (:after_due, :after_number, :after_kind, :after_command)
        and kind in ('sleep', 'start', 'retry', 'deadline')
    order by due, number, kind, command
    limit :limit
);

-- name: orders
-- Orders that are not carried out, by position; none that names no known kind or half a caller (rule L5).
select json_group_array(json_array(position, id, kind, caller_service, caller_key, caller_number, caller_command))
from (
    select * from orders
    where
        position > :after and kind in ('cancel', 'cancel-own', 'kill-own')
        and (caller_number is null) = (caller_service is null)
        and (caller_number is null) = (caller_key is null)
        and (caller_number is null) = (caller_command is null)
    order by position limit :limit
);

-- name: places
-- Who runs on places of limits, after a place in their order.
select json_group_array(json_array(number, id, name, key, place, counts))
from (
    select number, id, name, key, place, counts from places
    where (number, name, key) > (:after_number, :after_name, :after_key)
    order by number, name, key
    limit :limit
);

-- name: open_messages
-- (key, how many, whether they are held up, ids of those that are not) of the unfinished messages to a handler that
-- neither another invocation nor a caller who comes back has sent.
select json_group_array(json_array(key, messages, held_up, json(iif(held_up, '[]', ids))))
from (
    select key, max(is_held_up) as held_up, count(*) as messages, json_group_array(id) as ids
    from (
        select
            message.key, message.id,
            message.status = 'paused' or exists (
                select 1 from invocations as holder
                where
                    holder.service = message.service and holder.key = message.key
                    and holder.status = 'paused' and holder.status <> 'completed'
                    and holder.mailbox_position is not null
            ) as is_held_up
        from invocations as message
        where
            message.service = :service and message.handler = :handler
            and message.status in ('pending', 'running', 'backing-off', 'suspended', 'paused')
            and message.status <> 'completed'
            and message.caller_number is null and message.sender_id is null
            and message.idempotency_key is null and message.keep_outcome_us is null
    )
    group by key
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

-- name: expired_promises
-- (when, service, key) of the objects of which the last promise that can expire has done so.
select json_group_array(json_array(expires_at, service, key))
from (
    select max(expires_at) as expires_at, service, key
    from promises as expired
    where
        expires_at is not null and expires_at <= :now
        and not exists (
            select 1 from promises as later
            where
                later.service = expired.service and later.key = expired.key
                and later.expires_at is not null and later.expires_at > :now
        )
    group by service, key
    order by 1, service, key
    limit :limit
);

-- name: expired_journals
-- (number, when, steps) of journals of ended invocations that need not be kept any longer.
select json_group_array(json_array(number, expires_at, steps))
from (
    select number, expires_at, steps from kept_journals
    where expires_at <= :now order by expires_at, number limit :limit
);

-- name: expired_objects
-- (when, service, key) of objects whose state goes.
select json_group_array(json_array(expires_at, service, key))
from (
    select expires_at, service, key from object_expiries
    where expires_at <= :now order by expires_at, service, key limit :limit
);

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

-- name: paused
-- What waits for a person, by number.
select '[' || coalesce(group_concat(record), '') || ']'
from (
    select record from encoded_invocations
    where status = 'paused' and status in ('running', 'pending', 'backing-off', 'paused')
    order by number
    limit :limit
);

-- name: summaries
-- (key, bytes of state, how many wait, how many have started) of the objects of a class, by key. Each of the four tables
-- gives its next keys by an index, so a page costs what it tells; of entries, that index is asked for each key anew. Of text that stands for bytes, three of four count.
select
    coalesce(json_group_array(json_array(
        key,
        (
            select coalesce(sum(case
                when typeof(value) = 'blob' then length(value)
                when substr(value, 1, 7) = 'base64:' then length(rtrim(substr(value, 8), '=')) * 3 / 4
                else length(cast(value as blob))
            end), 0)
            from state where state.service = :service and state.key = object.key
        ),
        (
            select count(*) from invocations
            where
                invocations.service = :service and invocations.key = object.key
                and status = 'pending' and status <> 'completed' and mailbox_position is not null
        ),
        (
            select count(*) from invocations
            where
                invocations.service = :service and invocations.key = object.key and status <> 'completed'
                and (
                    status in ('running', 'backing-off', 'suspended', 'paused')
                    or (status = 'pending' and mailbox_position is null)
                )
        )
    )), '[]')
from (
    select key from (
        select * from (
            select distinct key from state where service = :service and key > :after order by key limit :limit
        )
        union
        select * from (
            select distinct key from promises where service = :service and key > :after order by key limit :limit
        )
        union
        select * from (
            select distinct key from invocations
            where service = :service and key > :after and status <> 'completed' order by key limit :limit
        )
        union
        select * from (
            with recursive holder(key) as (
                select min(key) from entries where service = :service and key > :after
                union all
                select (select min(key) from entries where service = :service and entries.key > holder.key)
                from holder where holder.key is not null limit :limit
            )
            select key from holder where key is not null
        )
    )
    order by key limit :limit
) as object;

-- name: mailbox
-- (id of what holds a mailbox, how many messages are before a place in it).
select json_array(
    (
        select id from invocations
        where
            service = :service and key = :key
            and status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
            and mailbox_position is not null
        order by mailbox_position limit 1
    ),
    (
        select count(*) from invocations
        where
            service = :service and key = :key
            and status = 'pending' and status <> 'completed' and mailbox_position < :before
    )
);

-- name: timers_of
-- The timers of some invocations.
select json_group_array(json_array(number, kind, command, due, service, key, asked_at))
from timers
where
    number in (select value from json_each(cast(:numbers as text)))
    and kind in ('sleep', 'start', 'retry', 'deadline');

-- name: entry
-- One entry of a field.
select value from entries where service = ? and key = ? and field = ? and position = ? and name = ?;

-- name: has_entry
-- Whether a field has an entry.
select 1 from entries where service = ? and key = ? and field = ? and position = ? and name = ?;

-- name: entries_forward
-- Entries of a field between two keys, the first ones first.
select position, name, value from entries
where
    service = ? and key = ? and field = ?
    and (position, name) > (?, ?) and (position, name) < (?, ?)
order by position, name limit ?;

-- name: entries_backward
-- The same, the last ones first.
select position, name, value from entries
where
    service = ? and key = ? and field = ?
    and (position, name) > (?, ?) and (position, name) < (?, ?)
order by position desc, name desc limit ?;

-- name: entry_count
-- How many entries a dictionary has.
select entries from entry_counts where service = ? and key = ? and field = ?;

-- name: events_forward
-- Events of a stream between two positions, the first ones first.
select position, stream, key, name, id, at, value from events
where stream = ? and position > ? and position < ? order by position limit ?;

-- name: events_backward
-- The same, the last ones first.
select position, stream, key, name, id, at, value from events
where stream = ? and position > ? and position < ? order by position desc limit ?;

-- name: events_of_key_forward
-- Events of a stream about one key between two positions, the first ones first.
select position, stream, key, name, id, at, value from events
where stream = ? and position > ? and position < ? and key = ? order by position limit ?;

-- name: events_of_key_backward
-- The same, the last ones first.
select position, stream, key, name, id, at, value from events
where stream = ? and position > ? and position < ? and key = ? order by position desc limit ?;

-- name: event_sizes
-- What the values of the events of each of users' streams take up. Of text that stands for bytes, three of four count.
with recursive streams (stream) as (
    select min(stream) from events
    union all
    select (select min(events.stream) from events where events.stream > streams.stream) from streams
    where streams.stream is not null
)
select
    streams.stream,
    (
        select coalesce(sum(case
            when typeof(value) = 'blob' then length(value)
            when substr(value, 1, 7) = 'base64:' then length(rtrim(substr(value, 8), '=')) * 3 / 4
            else length(cast(value as blob))
        end), 0)
        from events where events.stream = streams.stream
    )
from streams where instr(streams.stream, '/') > 0;

-- name: event_of_id
-- An event by its id.
select position, stream, key, name, id, at, value from events where id = ? and stream = ?;
