-- name: begin_reading
-- Let several statements read one snapshot (rule L2).
begin isolation level repeatable read read only;

-- name: load
-- For each address (a JSON array of service and key): its state, what has started, the head of its mailbox, how many wait
-- there altogether, and its promises. One statement is one snapshot (rule L2).
select coalesce(json_agg(json_build_array(
    (
        select coalesce(json_object_agg(field, inlined(value)), '{}') from state
        where state.service = address.service and state.key = address.key
    ),
    (
        select coalesce(json_agg(journal), '[]') from encoded_journals as started
        where
            started.service = address.service and started.key = address.key and status <> 'completed'
            and (
                status in ('running', 'backing-off', 'suspended', 'paused')
                or (status = 'pending' and mailbox_position is null)
            )
    ),
    (
        select coalesce(json_agg(waiting.journal order by waiting.mailbox_position), '[]')
        from (
            select number, sum(size) over (
                order by mailbox_position rows between unbounded preceding and 1 preceding
            ) as before
            from (
                select number, mailbox_position, payload_bytes(argument) as size from invocations as head
                where
                    head.service = address.service and head.key = address.key
                    and status = 'pending' and status <> 'completed' and mailbox_position is not null
                order by mailbox_position
                limit %(pending_limit)s
            ) as heads
        ) as place
        join encoded_journals as waiting on waiting.number = place.number
        where before is null or before < %(pending_bytes)s
    ),
    (
        select count(*) from invocations as one
        where
            one.service = address.service and one.key = address.key
            and status = 'pending' and status <> 'completed' and mailbox_position is not null
    ),
    (
        select coalesce(json_agg(json_build_array(name, failed, expires_at, inlined(value)) order by name), '[]')
        from promises where promises.service = address.service and promises.key = address.key
    )
) order by address.place), '[]')::text
from (
    select pair ->> 0 as service, pair ->> 1 as key, place
    from json_array_elements(%(addresses)s::json) with ordinality as asked (pair, place)
) as address;

-- name: records_of_object
-- For an object that is loaded in pieces: (what it is, record, whether the sender is unfinished) of what `load` finds.
select 'started', record::text, sender_unfinished from encoded_invocations
where
    service = %(service)s and key = %(key)s and status <> 'completed'
    and (
        status in ('running', 'backing-off', 'suspended', 'paused')
        or (status = 'pending' and mailbox_position is null)
    )
union all
select 'pending', record, sender_unfinished
from (
    select record::text, sender_unfinished
    from (
        select
            number as place,
            sum(size) over (order by mailbox_position rows between unbounded preceding and 1 preceding) as before
        from (
            select number, mailbox_position, payload_bytes(argument) as size from invocations
            where
                service = %(service)s and key = %(key)s
                and status = 'pending' and status <> 'completed' and mailbox_position is not null
            order by mailbox_position
            limit %(pending_limit)s
        ) as heads
    ) as places
    join encoded_invocations on number = place
    where before is null or before < %(pending_bytes)s
    order by mailbox_position
) as head;

-- name: waiting_of_object
-- How many messages wait in the mailbox of an object.
select count(*) from invocations
where
    service = %(service)s and key = %(key)s
    and status = 'pending' and status <> 'completed' and mailbox_position is not null;

-- name: record_of_number
-- (record, whether the sender is unfinished) of an unfinished invocation.
select record::text, sender_unfinished from encoded_invocations where number = %(number)s and status <> 'completed';

-- name: record_of_ended
-- The same of one that has ended, unless its journal is on its way out.
select record::text, sender_unfinished from encoded_invocations as ended
where
    number = %(number)s and status = 'completed'
    and not exists (
        select 1 from kept_journals where kept_journals.number = ended.number and kept_journals.expires_at = 0
    );

-- name: state_of_object
-- The fields of an object, with the size of its value in place of a large one.
select field, inlined(value) from state where service = %(service)s and key = %(key)s;

-- name: promises_of_object
-- The promises of an object, with the size of its value in place of a large one.
select name, failed, expires_at, inlined(value) from promises where service = %(service)s and key = %(key)s
order by name;

-- name: large_promise
-- The value of a promise.
select value from promises where service = %s and key = %s and name = %s;

-- name: large_state
-- The value of a field.
select value from state where service = %s and key = %s and field = %s;

-- name: steps_of_number
-- The steps of a journal in order, some of them at a time.
select json_agg(json_build_array(idx, inlined(content)) order by idx)::text
from steps where number = %(number)s group by idx / %(portion)s order by idx / %(portion)s;

-- name: completions_of_number
-- The completions of a journal, some of them at a time.
select json_agg(json_build_array(position, command, failed, inlined(value)))::text
from completions where number = %(number)s group by command / %(portion)s order by command / %(portion)s;

-- name: attachments_of_number
-- Who waits for an invocation.
select coalesce(
    json_agg(
        json_build_array(caller_number, caller_command, caller_service, caller_key)
        order by caller_number, caller_command
    ),
    '[]'
)::text
from attachments where number = %(number)s;

-- name: signals_of_number
-- The signals of an invocation, some of them at a time.
select json_agg(json_build_array(position, name, failed, inlined(value)) order by position)::text
from (
    select row_number() over (order by position) - 1 as place, * from signals where number = %(number)s
) as placed
group by place / %(portion)s order by place / %(portion)s;

-- name: large_signal
-- The value of a signal.
select value from signals where number = %s and position = %s;

-- name: large_argument
-- The argument of an invocation.
select argument from invocations where number = %s;

-- name: large_failure
-- The failure of an invocation.
select failure from invocations where number = %s;

-- name: large_outcome
-- The outcome of an invocation.
select outcome from invocations where number = %s;

-- name: large_step
-- The content of a step.
select content from steps where number = %s and idx = %s;

-- name: large_completion
-- The value of a completion.
select value from completions where number = %s and command = %s;

-- name: find
-- (asked, record) of the invocations with these ids or aliases.
select coalesce(json_agg(json_build_array(asked, record)), '[]')::text
from (
    select
        asked,
        coalesce(
            (select number from invocations where id = asked), (select aliases.number from aliases where id = asked)
        ) as found
    from json_array_elements_text(%(ids)s::json) as asked
) as question
join encoded_invocations on number = found;

-- name: find_keyed
-- (place in the question, record) of the invocations with these idempotency keys.
select coalesce(json_agg(json_build_array(place - 1, record)), '[]')::text
from json_array_elements(%(scopes)s::json) with ordinality as asked (scope, place)
join encoded_invocations as invocation
on
    invocation.idempotency_key = scope ->> 3
    and invocation.scope_service = scope ->> 0
    and invocation.scope_key = scope ->> 1
    and invocation.scope_handler = scope ->> 2;

-- name: fetch
-- Unfinished invocations by number, with what belongs to them.
select coalesce(json_agg(journal), '[]')::text
from json_array_elements_text(%(numbers)s::json) as asked
join encoded_journals on number = asked::bigint and status <> 'completed';

-- name: fetch_ended
-- The same of invocations that have ended, with what is kept of them, but for those whose journal is on its way out.
select coalesce(json_agg(journal), '[]')::text
from json_array_elements_text(%(numbers)s::json) as asked
join encoded_journals on number = asked::bigint and status = 'completed'
where not exists (
    select 1 from kept_journals where kept_journals.number = asked::bigint and kept_journals.expires_at = 0
);

-- name: has_more_entries
-- Whether an object has more than so many entries.
select count(*) > %(most)s
from (select 1 from entries where service = %(service)s and key = %(key)s limit %(most)s + 1) as entry;

-- name: journal_size
-- (how many steps, how many completions) of an invocation.
select
    (select count(*) from steps where number = %(number)s),
    (select count(*) from completions where number = %(number)s);

-- name: recoverable
-- (number, service, key) of what can run at once (rule T3): running ones, pending ones outside mailboxes, and the heads
-- of mailboxes that no invocation holds.
select coalesce(json_agg(json_build_array(number, service, key) order by number), '[]')::text
from (
    select number, service, key from invocations
    where
        status = 'running' and status in ('running', 'pending', 'backing-off', 'paused') and number > %(after)s
    union all
    select number, service, key from invocations
    where
        status = 'pending' and status in ('running', 'pending', 'backing-off', 'paused') and number > %(after)s
        and mailbox_position is null
    union all
    select number, service, key from invocations as head
    where
        status = 'pending' and status in ('running', 'pending', 'backing-off', 'paused') and number > %(after)s
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
                and holder.status in ('running', 'backing-off', 'suspended', 'paused')
                and holder.status <> 'completed' and holder.mailbox_position is not null
        )
    order by number
    limit %(limit)s
) as found;

-- name: held_up
-- (number, service, key) of suspended invocations without a sleep timer for which others wait: calls that are queued in
-- a mailbox which they hold, and commands that attached to them.
select coalesce(json_agg(json_build_array(number, service, key) order by number), '[]')::text
from (
    select holder.number, holder.service, holder.key
    from invocations as head
    join invocations as holder
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
        and holder.number > %(after)s
        and not exists (select 1 from timers where timers.number = holder.number and timers.kind = 'sleep')
    union
    select target.number, target.service, target.key
    from (select distinct number from attachments where number > %(after)s) as attached
    join invocations as target on target.number = attached.number and target.status = 'suspended'
    where not exists (select 1 from timers where timers.number = target.number and timers.kind = 'sleep')
    order by number
    limit %(limit)s
) as found;

-- name: timers
-- Timers due by a moment and asked for after another, after a place in their order; none of an unknown kind (rule L5).
select coalesce(
    json_agg(json_build_array(number, kind, command, due, service, key, asked_at) order by due, number, kind, command),
    '[]'
)::text
from (
    select number, kind, command, due, service, key, asked_at from timers
    where
        due <= %(until)s and asked_at > %(asked_after)s
        and (due, number, kind, command)
        > (%(after_due)s::bigint, %(after_number)s::bigint, %(after_kind)s::text, %(after_command)s::bigint)
        and kind in ('sleep', 'start', 'retry', 'deadline')
    order by due, number, kind, command
    limit %(limit)s
) as found;

-- name: orders
-- Orders that are not carried out, by position; none that names no known kind or half a caller (rule L5).
select coalesce(
    json_agg(
        json_build_array(position, id, kind, caller_service, caller_key, caller_number, caller_command)
        order by position
    ),
    '[]'
)::text
from (
    select * from orders
    where
        position > %(after)s and kind in ('cancel', 'cancel-own', 'kill-own')
        and num_nulls(caller_number, caller_service, caller_key, caller_command) in (0, 4)
    order by position limit %(limit)s
) as found;

-- name: places
-- Who runs on places of limits, after a place in their order.
select coalesce(
    json_agg(json_build_array(number, id, name, key, place, counts) order by number, name, key), '[]'
)::text
from (
    select * from places
    where (number, name, key) > (%(after_number)s::bigint, %(after_name)s::text, %(after_key)s::text)
    order by number, name, key
    limit %(limit)s
) as found;

-- name: open_messages
-- (key, how many, whether they are held up, ids of those that are not) of the unfinished messages to a handler that
-- neither another invocation nor a caller who comes back has sent.
select coalesce(json_agg(json_build_array(
    key, messages, held_up, case when held_up = 1 then '[]'::json else ids end
)), '[]')::text
from (
    select key, max(held_up) as held_up, count(*) as messages, json_agg(id) as ids
    from (
        select
            message.key, message.id,
            (message.status = 'paused' or exists (
                select 1 from invocations as holder
                where
                    holder.service = message.service and holder.key = message.key
                    and holder.status = 'paused' and holder.status <> 'completed'
                    and holder.mailbox_position is not null
            ))::integer as held_up
        from invocations as message
        where
            message.service = %(service)s and message.handler = %(handler)s
            and message.status in ('pending', 'running', 'backing-off', 'suspended', 'paused')
            and message.status <> 'completed'
            and message.caller_number is null and message.sender_id is null
            and message.idempotency_key is null and message.keep_outcome_us is null
    ) as message
    group by key
) as found;

-- name: expired
-- Finished invocations whose outcome may be forgotten.
select coalesce(json_agg(record order by expires_at, number), '[]')::text
from (
    select record, expires_at, number from encoded_invocations
    where expires_at is not null and expires_at <= %(now)s and status = 'completed'
    order by expires_at, number
    limit %(limit)s
) as found;

-- name: expired_promises
-- (when, service, key) of the objects of which the last promise that can expire has done so.
select coalesce(json_agg(json_build_array(expires_at, service, key) order by expires_at, service, key), '[]')::text
from (
    select max(expires_at) as expires_at, service, key
    from promises as expired
    where
        expires_at is not null and expires_at <= %(now)s
        and not exists (
            select 1 from promises as later
            where
                later.service = expired.service and later.key = expired.key
                and later.expires_at is not null and later.expires_at > %(now)s
        )
    group by service, key
    order by 1, service, key
    limit %(limit)s
) as found;

-- name: expired_journals
-- (number, when, steps) of journals of ended invocations that need not be kept any longer.
select coalesce(json_agg(json_build_array(number, expires_at, steps) order by expires_at, number), '[]')::text
from (
    select number, expires_at, steps from kept_journals
    where expires_at <= %(now)s order by expires_at, number limit %(limit)s
) as found;

-- name: expired_objects
-- (when, service, key) of objects whose state goes.
select coalesce(json_agg(json_build_array(expires_at, service, key) order by expires_at, service, key), '[]')::text
from (
    select expires_at, service, key from object_expiries
    where expires_at <= %(now)s order by expires_at, service, key limit %(limit)s
) as found;

-- name: invocations
-- Invocations by number, for those who look into the store.
select coalesce(json_agg(record order by number), '[]')::text
from (
    select record, number from encoded_invocations
    where
        number > %(after)s
        and (%(service)s::text is null or service = %(service)s)
        and (%(key)s::text is null or key = %(key)s)
        and (%(handler)s::text is null or handler = %(handler)s)
        and (%(status)s::text is null or status = %(status)s)
    order by number
    limit %(limit)s
) as found;

-- name: invocations_in_hand
-- The same for a status that few invocations have at a time: not a walk over sleepers and finished ones.
select coalesce(json_agg(record order by number), '[]')::text
from (
    select record, number from encoded_invocations
    where
        status = %(status)s and status in ('running', 'pending', 'backing-off', 'paused')
        and number > %(after)s
        and (%(service)s::text is null or service = %(service)s)
        and (%(key)s::text is null or key = %(key)s)
        and (%(handler)s::text is null or handler = %(handler)s)
    order by number
    limit %(limit)s
) as found;

-- name: paused
-- What waits for a person, by number.
select coalesce(json_agg(record order by number), '[]')::text
from (
    select record, number from encoded_invocations
    where status = 'paused' and status in ('running', 'pending', 'backing-off', 'paused')
    order by number
    limit %(limit)s
) as found;

-- name: summaries
-- (key, bytes of state, how many wait, how many have started) of the objects of a class, by key. Each of the four tables
-- gives its next keys by an index, so a page costs what it tells; of entries, that index is asked for each key anew.
select coalesce(json_agg(json_build_array(
    key,
    (
        select coalesce(sum(payload_bytes(value)), 0) from state
        where state.service = %(service)s and state.key = object.key
    ),
    (
        select count(*) from invocations
        where
            invocations.service = %(service)s and invocations.key = object.key
            and status = 'pending' and status <> 'completed' and mailbox_position is not null
    ),
    (
        select count(*) from invocations
        where
            invocations.service = %(service)s and invocations.key = object.key and status <> 'completed'
            and (
                status in ('running', 'backing-off', 'suspended', 'paused')
                or (status = 'pending' and mailbox_position is null)
            )
    )
) order by key), '[]')::text
from (
    select key from (
        (
            select distinct key from state where service = %(service)s and key > %(after)s
            order by key limit %(limit)s
        )
        union
        (
            select distinct key from promises where service = %(service)s and key > %(after)s
            order by key limit %(limit)s
        )
        union
        (
            select distinct key from invocations
            where service = %(service)s and key > %(after)s and status <> 'completed' order by key limit %(limit)s
        )
        union
        (
            with recursive holder (key) as (
                select min(key)::name_text from entries where service = %(service)s and key > %(after)s
                union all
                select (
                    select min(key)::name_text from entries
                    where service = %(service)s and entries.key > holder.key
                )
                from holder where holder.key is not null
            )
            select key from (select key from holder limit %(limit)s) as held where key is not null
        )
    ) as keys
    order by key limit %(limit)s
) as object;

-- name: mailbox
-- (id of what holds a mailbox, how many messages are before a place in it).
select json_build_array(
    (
        select id from invocations
        where
            service = %(service)s and key = %(key)s
            and status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
            and mailbox_position is not null
        order by mailbox_position limit 1
    ),
    (
        select count(*) from invocations
        where
            service = %(service)s and key = %(key)s
            and status = 'pending' and status <> 'completed' and mailbox_position < %(before)s
    )
)::text;

-- name: timers_of
-- The timers of some invocations.
select coalesce(json_agg(json_build_array(number, kind, command, due, service, key, asked_at)), '[]')::text
from timers
where
    number in (select one::bigint from json_array_elements_text(%(numbers)s::json) as one)
    and kind in ('sleep', 'start', 'retry', 'deadline');

-- name: entry
-- One entry of a field.
select value from entries where service = %s and key = %s and field = %s and position = %s and name = %s;

-- name: has_entry
-- Whether a field has an entry.
select 1 from entries where service = %s and key = %s and field = %s and position = %s and name = %s;

-- name: entries_forward
-- Entries of a field between two keys, the first ones first.
select position, name, value from entries
where
    service = %s and key = %s and field = %s
    and (position, name) > (%s::bigint, %s::text) and (position, name) < (%s::bigint, %s::text)
order by position, name limit %s;

-- name: entries_backward
-- The same, the last ones first.
select position, name, value from entries
where
    service = %s and key = %s and field = %s
    and (position, name) > (%s::bigint, %s::text) and (position, name) < (%s::bigint, %s::text)
order by position desc, name desc limit %s;

-- name: entry_count
-- How many entries a dictionary has.
select entries from entry_counts where service = %s and key = %s and field = %s;

-- name: events_forward
-- Events of a stream between two positions, the first ones first.
select position, stream, key, name, id, at, value from events
where stream = %s and position > %s and position < %s order by position limit %s;

-- name: events_backward
-- The same, the last ones first.
select position, stream, key, name, id, at, value from events
where stream = %s and position > %s and position < %s order by position desc limit %s;

-- name: events_of_key_forward
-- Events of a stream about one key between two positions, the first ones first.
select position, stream, key, name, id, at, value from events
where stream = %s and position > %s and position < %s and key = %s order by position limit %s;

-- name: events_of_key_backward
-- The same, the last ones first.
select position, stream, key, name, id, at, value from events
where stream = %s and position > %s and position < %s and key = %s order by position desc limit %s;

-- name: event_sizes
-- What the values of the events of each of users' streams take up.
with recursive streams (name) as (
    select min(stream)::name_text from events
    union all
    select (select min(stream)::name_text from events where stream > streams.name) from streams
    where streams.name is not null
)
select name, (select coalesce(sum(payload_bytes(value)), 0)::bigint from events where stream = streams.name)
from streams where strpos(name, '/') > 0;

-- name: event_of_id
-- An event by its id.
select position, stream, key, name, id, at, value from events where id = %s and stream = %s;

-- name: versions
-- All objects of a class that have a field, by key and behind one.
select key, value from state where service = %s and key > %s and field = %s order by key limit %s;

-- name: begin_question
-- What people ask reads one snapshot, and can change nothing.
begin transaction isolation level repeatable read, read only;

-- name: restrict_question
-- Settings of such a transaction. Names mean what the server has under them, since no schema of others is searched.
-- Unlike our own statements, a question is planned by the statistics of the server.
select
    set_config('search_path', 'pg_catalog', true),
    set_config('statement_timeout', %(limit)s, true),
    set_config('standard_conforming_strings', 'on', true),
    set_config('max_parallel_workers_per_gather', '0', true),
    -- From PostgreSQL 14 on: a question that is wanted no longer ends.
    (select set_config(name, '1000', true) from pg_settings where name = 'client_connection_check_interval'),
    set_config('enable_seqscan', 'on', true),
    set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true),
    (
        select set_config('temp_file_limit', %(files)s, true) from pg_roles
        where rolname = current_user and rolsuper
    );

-- name: take_query_role
-- The role that can see the views alone.
select set_config('role', %s, true);
