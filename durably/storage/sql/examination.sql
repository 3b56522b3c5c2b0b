-- name: orphan_rows
-- (table, number, how many) of rows whose invocation is not there.
select 'steps', number, count(*) from steps
where not exists (select 1 from invocations where invocations.number = steps.number) group by number
union all
select 'completions', number, count(*) from completions
where not exists (select 1 from invocations where invocations.number = completions.number) group by number
union all
select 'timers', number, count(*) from timers
where not exists (select 1 from invocations where invocations.number = timers.number) group by number
union all
select 'attachments', number, count(*) from attachments
where not exists (select 1 from invocations where invocations.number = attachments.number) group by number
union all
select 'signals', number, count(*) from signals
where not exists (select 1 from invocations where invocations.number = signals.number) group by number
union all
select 'arguments', number, count(*) from arguments
where not exists (select 1 from invocations where invocations.number = arguments.number) group by number
union all
select 'aliases', number, count(*) from aliases
where not exists (select 1 from invocations where invocations.number = aliases.number) group by number
union all
select 'kept_journals', number, count(*) from kept_journals
where not exists (select 1 from invocations where invocations.number = kept_journals.number) group by number
union all
select 'places', number, count(*) from places
where not exists (select 1 from invocations where invocations.number = places.number) group by number
limit :limit;

-- name: rows_of_the_ended
-- (table, number, how many) of what goes when an invocation ends, and is still there. Answers that came later may be.
select 'steps', number, count(*) from steps
where
    exists (select 1 from invocations as i where i.number = steps.number and i.status = 'completed')
    and not exists (select 1 from kept_journals as k where k.number = steps.number)
group by number
union all
select 'places', number, count(*) from places
where exists (select 1 from invocations as i where i.number = places.number and i.status = 'completed') group by number
union all
select 'timers', number, count(*) from timers
where exists (select 1 from invocations as i where i.number = timers.number and i.status = 'completed') group by number
union all
select 'signals', number, count(*) from signals
where exists (select 1 from invocations as i where i.number = signals.number and i.status = 'completed')
group by number
union all
select 'attachments', number, count(*) from attachments
where exists (select 1 from invocations as i where i.number = attachments.number and i.status = 'completed')
group by number
limit :limit;

-- name: journal_gaps
-- (number, steps, last index) of journals of which a step is missing.
select number, count(*), max(idx) from steps
group by number having count(*) <> max(idx) + 1 or min(idx) <> 0 limit :limit;

-- name: missing_arguments
-- (number) of invocations whose argument stands neither in their row nor beside it.
select number from invocations
where argument is null and not exists (select 1 from arguments where arguments.number = invocations.number)
limit :limit;

-- name: unknown_words
-- (number, column, value) of what is none of the words that stand in it.
select number, 'status', status from invocations
where status not in ('scheduled', 'pending', 'running', 'backing-off', 'suspended', 'paused', 'completed')
union all
select number, 'kind', kind from timers where kind not in ('sleep', 'start', 'retry', 'deadline')
union all
select position, 'kind', kind from orders where kind not in ('cancel', 'cancel-own', 'kill-own')
union all
select number, 'command', command from timers where kind <> 'sleep' and command <> 0
union all
select number, 'attempts', attempts from invocations where attempts < 0
union all
select number, 'keep_outcome_us', keep_outcome_us from invocations where keep_outcome_us < 0
union all
select number, 'failed', failed from completions where failed not in (0, 1)
union all
select number, 'failed', failed from signals where failed not in (0, 1)
union all
select null, 'failed', failed from promises where failed not in (0, 1)
union all
select number, 'counts', counts from places where counts not in (0, 1)
union all
select number, 'id', id from invocations where substr(id, 1, 4) <> 'inv_'
union all
select number, 'sender_id', sender_id from invocations where substr(sender_id, 1, 4) <> 'inv_'
union all
select number, 'id', id from aliases where substr(id, 1, 4) <> 'inv_'
union all
select position, 'id', id from orders where substr(id, 1, 4) <> 'inv_'
union all
select null, 'store_id', store_id from owner where store_id not glob replace(hex(zeroblob(16)), '0', '[0-9a-f]')
limit :limit;

-- name: damaged_names
-- (table, name, …) of rows of which a name is empty, is not UTF-8, or holds a NUL; `is_name` looks at the
-- bytes of names. Names that may be empty are left out where they are.
select 'invocations', id, service, key, handler, scope_service, scope_key, scope_handler, idempotency_key
from invocations
where
    not is_name(
        cast(id as blob), cast(service as blob), cast(key as blob), cast(handler as blob), cast(seed as blob),
        cast(scope_service as blob), cast(nullif(scope_key, '') as blob), cast(scope_handler as blob),
        cast(nullif(idempotency_key, '') as blob), cast(caller_service as blob), cast(caller_key as blob),
        cast(sender_id as blob), cast(status as blob)
    )
union all
select 'timers', number, kind, service, key, null, null, null, null from timers
where not is_name(cast(kind as blob), cast(service as blob), cast(key as blob))
union all
select 'attachments', number, caller_service, caller_key, null, null, null, null, null from attachments
where not is_name(cast(caller_service as blob), cast(caller_key as blob))
union all
select 'signals', number, name, null, null, null, null, null, null from signals where not is_name(cast(name as blob))
union all
select 'aliases', id, number, null, null, null, null, null, null from aliases where not is_name(cast(id as blob))
union all
select 'orders', id, kind, caller_service, caller_key, null, null, null, null from orders
where
    not is_name(
        cast(id as blob), cast(kind as blob), cast(caller_service as blob), cast(caller_key as blob)
    )
union all
select 'promises', service, key, name, null, null, null, null, null from promises
where not is_name(cast(service as blob), cast(key as blob), cast(name as blob))
union all
select 'state', service, key, field, null, null, null, null, null from state
where not is_name(cast(nullif(service, '') as blob), cast(key as blob), cast(field as blob))
union all
select 'object_expiries', service, key, null, null, null, null, null, null from object_expiries
where not is_name(cast(service as blob), cast(key as blob))
union all
select 'places', id, name, key, null, null, null, null, null from places
where not is_name(cast(id as blob), cast(name as blob), cast(nullif(key, '') as blob))
union all
select 'entries', service, key, field, position, name, null, null, null from entries
where not is_name(cast(service as blob), cast(key as blob), cast(field as blob), cast(nullif(name, '') as blob))
union all
select 'entry_counts', service, key, field, null, null, null, null, null from entry_counts
where not is_name(cast(service as blob), cast(key as blob), cast(field as blob))
union all
select 'events', id, stream, key, name, null, null, null, null from events
where
    not is_name(
        cast(id as blob), cast(stream as blob), cast(nullif(key, '') as blob), cast(nullif(name, '') as blob)
    )
union all
select 'owner', host, store_id, null, null, null, null, null, null from owner
where not is_name(cast(nullif(host, '') as blob), cast(store_id as blob))
limit :limit;

-- name: damaged_entries
-- (service, key, field, position, name) of entries that are none of a list, a dictionary or a lazy field.
select service, key, field, position, name from entries
where name <> '' and name <> '#' and (substr(name, 1, 1) <> '=' or position <> 0)
limit :limit;

-- name: impossible_times
-- (table, number, service, key, column, when) of times that no clock has shown; what is kept for ever has :forever.
select 'invocations', number, service, key, 'accepted_at', accepted_at from invocations
where accepted_at not between 0 and :latest
union all
select 'invocations', number, service, key, 'deadline', deadline from invocations
where deadline not between 0 and :latest
union all
select 'invocations', number, service, key, 'due', due from invocations where due not between 0 and :latest
union all
select 'invocations', number, service, key, 'expires_at', expires_at from invocations
where expires_at not between 0 and :latest and expires_at <> :forever
union all
select 'timers', number, service, key, 'due', due from timers where due not between 0 and :latest
union all
select 'timers', number, service, key, 'asked_at', asked_at from timers where asked_at not between 0 and :latest
union all
select 'kept_journals', number, null, null, 'expires_at', expires_at from kept_journals
where expires_at not between 0 and :latest and expires_at <> :forever
union all
select 'promises', null, service, key, 'expires_at', expires_at from promises
where expires_at not between 0 and :latest and expires_at <> :forever
union all
select 'events', null, stream, id, 'at', at from events where at not between 0 and :latest
union all
select 'object_expiries', null, service, key, 'expires_at', expires_at from object_expiries
where expires_at not between 0 and :latest and expires_at <> :forever
limit :limit;

-- name: wrong_targets
-- (table, number, service, key) of rows that name another object than that of the invocation which they belong to.
select 'timers', timers.number, timers.service, timers.key
from timers
cross join invocations on invocations.number = timers.number
where invocations.service <> timers.service or invocations.key <> timers.key
union all
select 'places', places.number, places.id, null
from places
cross join invocations on invocations.number = places.number
where invocations.id <> places.id
limit :limit;

-- name: wrong_callers
-- (table, number, service, key, number of the caller) of what names a caller that is somebody else, or half a caller.
select 'attachments', waits.number, waits.caller_service, waits.caller_key, waits.caller_number
from attachments as waits
cross join invocations as caller on caller.number = waits.caller_number
where caller.service <> waits.caller_service or caller.key <> waits.caller_key
union all
select 'invocations', called.number, called.caller_service, called.caller_key, called.caller_number
from invocations as called
cross join invocations as caller on caller.number = called.caller_number
where caller.service <> called.caller_service or caller.key <> called.caller_key
union all
select 'orders', waits.position, waits.caller_service, waits.caller_key, waits.caller_number
from orders as waits
cross join invocations as caller on caller.number = waits.caller_number
where caller.service <> waits.caller_service or caller.key <> waits.caller_key
union all
select 'orders', position, caller_service, caller_key, caller_number from orders
where
    (caller_number is null) <> (caller_service is null)
    or (caller_number is null) <> (caller_key is null)
    or (caller_number is null) <> (caller_command is null)
limit :limit;

-- name: wrong_kept
-- (number, steps as said, steps there, status) of journals that are kept of what has not ended, or not as a whole.
select kept.number, kept.steps, (select count(*) from steps where steps.number = kept.number), invocations.status
from kept_journals as kept
cross join invocations on invocations.number = kept.number
where
    invocations.status <> 'completed'
    or kept.steps <> (select count(*) from steps where steps.number = kept.number)
limit :limit;

-- name: early_positions
-- (table, position) of what stands before the beginning of the log.
select place, position
from (
    select 'invocations' as place, min(number) as position from invocations
    union all select 'the mailboxes', min(mailbox_position) from invocations
    union all select 'completions', min(position) from completions
    union all select 'signals', min(position) from signals
    union all select 'orders', min(position) from orders
    union all select 'events', min(position) from events
)
where position < 1
limit :limit;

-- name: unnamed_entries
-- (how many, first position, last position) of the entries of a field that have no name: those of a list.
select count(*), min(position), max(position) from entries
where service = ? and key = ? and field = ? and name = '';

-- name: two_holders
-- (service, key, how many) of objects whose mailbox several invocations hold.
select service, key, count(*) from invocations
where
    status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
    and mailbox_position is not null
group by service, key having count(*) > 1
limit :limit;

-- name: shared_places
-- (service, key, position) of places in mailboxes that several messages have.
select service, key, mailbox_position from invocations
where status = 'pending' and status <> 'completed' and mailbox_position is not null
group by service, key, mailbox_position having count(*) > 1
limit :limit;

-- name: missing_outcomes
-- (number) of invocations that have ended and have no outcome.
select number from invocations where status = 'completed' and outcome is null limit :limit;

-- name: kept_for_ever
-- (number) of invocations that have ended and that nothing will remove.
select number from invocations where status = 'completed' and expires_at is null limit :limit;

-- name: late_positions
-- (table, position) of what stands in the log behind its end, as the owner's row has it.
select place, position
from (
    select 'invocations' as place, max(number) as position from invocations
    union all select 'the mailboxes', max(mailbox_position) from invocations
    union all select 'completions', max(position) from completions
    union all select 'signals', max(position) from signals
    union all select 'orders', max(position) from orders
    union all select 'events', max(position) from events
)
where position > (select last_position from owner)
limit :limit;

-- name: wrong_counts
-- (service, key, field, as counted, there) of dictionaries that have another number of entries than their row says.
select service, key, field, counted, there
from (
    select
        service, key, field, count(*) as there,
        coalesce(
            (
                select entry_counts.entries from entry_counts
                where
                    entry_counts.service = entries.service and entry_counts.key = entries.key
                    and entry_counts.field = entries.field
            ),
            0
        ) as counted
    from entries where name <> '' group by service, key, field
)
where counted <> there
union all
select service, key, field, entries, 0 from entry_counts
where
    not exists (
        select 1 from entries
        where
            entries.service = entry_counts.service and entries.key = entry_counts.key
            and entries.field = entry_counts.field and name <> ''
    )
limit :limit;

-- name: owner_rows
-- How many rows say who owns the store.
select count(*) from owner;

-- name: layout_of
-- (kind, name, definition) of tables, indexes and triggers, but for those of models, which follow from the state.
select type, name, sql from sqlite_master
where name not like 'sqlite_%' and name not like 'model\_%' escape '\' order by type, name;

-- name: tables_of
-- (name) of tables.
select name from sqlite_master where type = 'table' and name not like 'sqlite_%' order by name;

-- name: check_table
-- Whether the pages and indexes of a table fit together: one row that says ok.
select integrity_check from pragma_integrity_check(?);

-- name: services_with_state
-- (service) of the classes whose objects have state, entries or promises.
select distinct service from state
union select distinct service from entries
union select distinct service from promises order by 1;

-- name: fields_with_entries
-- (service, key, field) of fields that keep entries, in order.
select distinct service, key, field from entries
where (service, key, field) > (:service, :key, :field) order by service, key, field limit :limit;

-- name: streams
-- (stream) of all events.
select distinct stream from events order by 1;

-- name: count_to_examine
-- How much there is to look at: invocations, and fields of objects.
select (select count(*) from invocations), (select count(*) from state);

-- name: id_of
-- (id, service, key, handler) of an invocation, for people.
select id, service, key, handler from invocations where number = ?;
