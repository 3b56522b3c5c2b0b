-- name: batch
-- The view that a whole batch is inserted into. Each list is one JSON array of rows; an empty one is null.
create temp view batch as
select
    null as epoch, null as last_position, null as renewed, null as forgotten, null as removed, null as accepted,
    null as woken, null as updated, null as steps, null as completions, null as timers_cleared, null as timers, null as attachments, null as aliases,
    null as state_cleared, null as state, null as signals, null as signals_taken, null as vacated, null as promises,
    null as orders, null as orders_done;

-- name: renewal
-- What a batch inserts its new executions into, if it has any.
create temp view renewal as select null as renewed;

-- name: renewal_is_applied
-- Lets stored invocations go on under new numbers, with who waits for them and the ids that lead to them (rule W1).
create temp trigger renewal_is_applied instead of insert on renewal
begin
    update invocations set number = line ->> 0, seed = line ->> 2, argument = line ->> 3
    from (select value as line from json_each(new.renewed) limit -1)
    where invocations.number = line ->> 1;

    delete from arguments where number in (select value ->> 1 from json_each(new.renewed));

    update attachments set number = line ->> 0
    from (select value as line from json_each(new.renewed) limit -1)
    where attachments.number = line ->> 1;

    update aliases set number = line ->> 0
    from (select value as line from json_each(new.renewed) limit -1)
    where aliases.number = line ->> 1;

    -- No code waits for the awakeables of the old execution any more.
    delete from signals
    where number in (select value ->> 1 from json_each(new.renewed)) and name glob 'sign_1*';

    update signals set number = line ->> 0
    from (select value as line from json_each(new.renewed) limit -1)
    where signals.number = line ->> 1;
end;

-- name: removal
-- What a batch inserts the numbers into whose records go, if there are any.
create temp view removal as select null as forgotten, null as removed;

-- name: removal_is_applied
-- Deletes what belongs to the `forgotten`, and all of the `removed`, which are among them.
create temp trigger removal_is_applied instead of insert on removal
begin
    delete from steps where number in (select value from json_each(new.forgotten));
    delete from completions where number in (select value from json_each(new.forgotten));
    delete from timers where number in (select value from json_each(new.forgotten));
    delete from attachments where number in (select value from json_each(new.forgotten));
    delete from signals where number in (select value from json_each(new.forgotten));

    delete from invocations where number in (select value from json_each(new.removed));
    delete from aliases where number in (select value from json_each(new.removed));
    delete from arguments where number in (select value from json_each(new.removed));

    delete from kept_journals
    where exists (select 1 from kept_journals) and number in (select value from json_each(new.forgotten));
end;

-- name: keeping
-- What a batch inserts the journals into that stay after an end, and when the state of objects goes, if there are any.
create temp view keeping as select null as kept, null as object_expiries;

-- name: keeping_is_applied
-- Keeps journals of what has ended, without what only the living need.
create temp trigger keeping_is_applied instead of insert on keeping
begin
    delete from timers where number in (select value ->> 0 from json_each(new.kept));
    delete from attachments where number in (select value ->> 0 from json_each(new.kept));
    delete from signals where number in (select value ->> 0 from json_each(new.kept));

    insert into kept_journals (number, expires_at, steps)
    select value ->> 0, value ->> 1, value ->> 2 from json_each(new.kept)
    where true
    on conflict (number) do update set expires_at = excluded.expires_at, steps = excluded.steps;

    delete from object_expiries
    where (service, key) in (
        select line ->> 0, line ->> 1
        from (select value as line from json_each(new.object_expiries) limit -1) where line ->> 2 is null
    );

    insert into object_expiries (service, key, expires_at)
    select line ->> 0, line ->> 1, line ->> 2
    from (select value as line from json_each(new.object_expiries) limit -1) where line ->> 2 is not null
    on conflict (service, key) do update set expires_at = excluded.expires_at;
end;

-- name: clearance
-- What a batch inserts the fields into that it clears, if there are any.
create temp view clearance as select null as state_cleared;

-- name: clearance_is_applied
-- Deletes fields of objects.
create temp trigger clearance_is_applied instead of insert on clearance
begin
    delete from state
    where (service, key, field) in (
        select line ->> 0, line ->> 1, line ->> 2
        from (select value as line from json_each(new.state_cleared) limit -1) where line is not null
    );
end;

-- name: signalling
-- What a batch inserts signals into that wait, and the (number, position) of those that do so no longer, if there are any.
create temp view signalling as select null as signals, null as signals_taken;

-- name: signalling_is_applied
-- Signals of an invocation that has ended are ignored.
create temp trigger signalling_is_applied instead of insert on signalling
begin
    delete from signals
    where (number, position) in (
        select line ->> 0, line ->> 1
        from (select value as line from json_each(new.signals_taken) limit -1) where line is not null
    );

    insert into signals (number, position, name, failed, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4
    from (select value as line from json_each(new.signals) limit -1)
    where exists (select 1 from invocations where number = line ->> 0 and status <> 'completed');
end;

-- name: workflow_changes
-- What a batch inserts the objects into that it vacates, and the promises that it completes, if there are any.
create temp view workflow_changes as select null as vacated, null as promises;

-- name: workflow_changes_are_applied
-- Deletes state, entries and promises of the `vacated`; then keeps what has been completed.
create temp trigger workflow_changes_are_applied instead of insert on workflow_changes
begin
    delete from state
    where (service, key) in (
        select line ->> 0, line ->> 1
        from (select value as line from json_each(new.vacated) limit -1) where line is not null
    );

    delete from entries
    where (service, key) in (
        select line ->> 0, line ->> 1
        from (select value as line from json_each(new.vacated) limit -1) where line is not null
    );

    delete from promises
    where (service, key) in (
        select line ->> 0, line ->> 1
        from (select value as line from json_each(new.vacated) limit -1) where line is not null
    );

    insert into promises (service, key, name, failed, expires_at, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5
    from (select value as line from json_each(new.promises) limit -1) where line is not null
    on conflict (service, key, name) do update
    set failed = excluded.failed, expires_at = excluded.expires_at, value = excluded.value;
end;

-- name: ordering
-- What a batch inserts its orders into, and the positions of those that are carried out, if there are any.
create temp view ordering as select null as orders, null as orders_done;

-- name: ordering_is_applied
-- Keeps orders until they are carried out (rules E1, E2).
create temp trigger ordering_is_applied instead of insert on ordering
begin
    delete from orders where position in (select value from json_each(new.orders_done));

    insert into orders (position, id, kind, caller_service, caller_key, caller_number, caller_command)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5, line ->> 6
    from (select value as line from json_each(new.orders) limit -1) where line is not null;
end;

-- name: batch_is_applied
-- Applies a batch. All of it is one statement, so it is one transaction and hands the interpreter's lock back once (rule X5).
-- SQLite renders json_each's `value` anew wherever it is mentioned. A subquery with a limit below a `where` is not merged
-- into the query around it and so renders each line once (measured: 10 instead of 22 ms for 1,000 invocations).
create temp trigger batch_is_applied instead of insert on batch
when coalesce(
    new.renewed, new.forgotten, new.accepted, new.woken, new.updated, new.steps, new.completions, new.timers_cleared,
    new.timers, new.attachments, new.aliases, new.signals, new.signals_taken, new.vacated, new.promises, new.orders,
    new.orders_done
) is not null
begin
    -- Rule X4.
    select raise(abort, 'the epoch has moved') where (select epoch from owner) is not new.epoch;

    update owner set last_position = max(last_position, new.last_position);

    insert into renewal select new.renewed where new.renewed is not null;
    insert into removal select new.forgotten, new.removed where new.forgotten is not null;

    insert into invocations (
        number, id, service, key, handler, seed, argument, headers,
        scope_service, scope_key, scope_handler, idempotency_key,
        caller_service, caller_key, caller_number, caller_command,
        sender_id, deadline, accepted_at, keep_outcome_us,
        status, mailbox_position, attempts, failure, outcome, expires_at, due
    )
    select
        line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5, line ->> 6, line ->> 7,
        line ->> 8, line ->> 9, line ->> 10, line ->> 11,
        line ->> 12, line ->> 13, line ->> 14, line ->> 15,
        line ->> 16, line ->> 17, line ->> 18, line ->> 19,
        line ->> 20, line ->> 21, line ->> 22, line ->> 23, line ->> 24, line ->> 25,
        line ->> 26
    from (select value as line from json_each(new.accepted) limit -1) where line is not null;

    update invocations set status = 'running'
    where number in (select value from json_each(new.woken)) and status = 'suspended';

    update invocations
    set
        status = change.line ->> 1,
        mailbox_position = change.line ->> 2,
        attempts = change.line ->> 3,
        failure = change.line ->> 4,
        outcome = coalesce(change.line ->> 5, outcome),  -- One that is there stays, also where it cannot be read.
        expires_at = change.line ->> 6
    from (select value as line from json_each(new.updated) limit -1) as change
    where invocations.number = change.line ->> 0;

    insert into steps (number, idx, content)
    select line ->> 0, line ->> 1, line ->> 2
    from (select value as line from json_each(new.steps) limit -1) where line is not null;

    -- Rule C3: the invocation may no longer wait for it, and only the first answer to a command counts.
    insert or ignore into completions (number, position, command, failed, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4
    from (select value as line from json_each(new.completions) limit -1)
    where exists (select 1 from invocations where number = line ->> 0);

    delete from timers
    where (number, kind, command) in (
        select line ->> 0, line ->> 1, line ->> 2
        from (select value as line from json_each(new.timers_cleared) limit -1) where line is not null
    );

    insert or replace into timers (number, kind, command, due, service, key, asked_at)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5, line ->> 6
    from (select value as line from json_each(new.timers) limit -1) where line is not null;

    insert or ignore into attachments (number, caller_number, caller_command, caller_service, caller_key)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4
    from (select value as line from json_each(new.attachments) limit -1)
    where exists (select 1 from invocations where number = line ->> 0);

    insert into aliases (id, number)
    select line ->> 0, line ->> 1
    from (select value as line from json_each(new.aliases) limit -1) where line is not null;

    insert into signalling select new.signals, new.signals_taken
    where coalesce(new.signals, new.signals_taken) is not null;

    insert into workflow_changes select new.vacated, new.promises
    where coalesce(new.vacated, new.promises) is not null;

    insert into clearance select new.state_cleared where new.state_cleared is not null;

    insert into state (service, key, field, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3
    from (select value as line from json_each(new.state) limit -1) where line is not null
    on conflict (service, key, field) do update set value = excluded.value;

    insert into ordering select new.orders, new.orders_done
    where coalesce(new.orders, new.orders_done) is not null;
end;

-- name: state_is_applied
-- The same for a batch that holds nothing but state, which is what plain calls leave: without the statements that would
-- find nothing to do (measured: 15 instead of 48 microseconds for one call).
create temp trigger state_is_applied instead of insert on batch
when coalesce(
    new.renewed, new.forgotten, new.accepted, new.woken, new.updated, new.steps, new.completions, new.timers_cleared,
    new.timers, new.attachments, new.aliases, new.signals, new.signals_taken, new.vacated, new.promises, new.orders,
    new.orders_done
) is null
begin
    -- Rule X4.
    select raise(abort, 'the epoch has moved') where (select epoch from owner) is not new.epoch;

    update owner set last_position = max(last_position, new.last_position);

    insert into clearance select new.state_cleared where new.state_cleared is not null;

    insert into state (service, key, field, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3
    from (select value as line from json_each(new.state) limit -1) where line is not null
    on conflict (service, key, field) do update set value = excluded.value;
end;

-- name: entry_changes
-- What follows a batch in its transition is inserted into this view: entries of collections. Each list is as in a batch.
create temp view entry_changes as select null as cleared, null as removed, null as entries;

-- name: entry_changes_are_applied
-- Deletes all entries of the `cleared` fields and those that are `removed`, then keeps the `entries`.
create temp trigger entry_changes_are_applied instead of insert on entry_changes
begin
    delete from entries
    where (service, key, field) in (
        select line ->> 0, line ->> 1, line ->> 2
        from (select value as line from json_each(new.cleared) limit -1) where line is not null
    );

    delete from entries
    where (service, key, field, position, name) in (
        select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4
        from (select value as line from json_each(new.removed) limit -1) where line is not null
    );

    insert into entries (service, key, field, position, name, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5
    from (select value as line from json_each(new.entries) limit -1) where line is not null
    on conflict (service, key, field, position, name) do update set value = excluded.value;
end;

-- name: commit_entries
-- Changed entries, in the transaction of their batch. Batches without any do not come here.
insert into entry_changes (cleared, removed, entries) values (cast(? as text), cast(? as text), cast(? as text));

-- name: put_entry
-- An entry with a large value.
insert into entries (value, service, key, field, position, name) values (?, ?, ?, ?, ?, ?)
on conflict (service, key, field, position, name) do update set value = excluded.value;

-- name: commit_batch
-- A commit. JSON comes as bytes: reading them as text costs nothing here, and a decoding and an encoding in Python.
insert into batch values (
    ?, ?, cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text),
    cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text),
    cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text), cast(? as text)
);

-- name: commit_state
-- The same of a batch that holds nothing but values of fields.
insert into batch (epoch, last_position, state) values (?, ?, cast(? as text));

-- name: commit_kept
-- What stays after ends, in the transaction of its batch: a statement of its own, because most batches have nothing of it.
insert into keeping values (cast(? as text), cast(? as text));

-- name: trim_entries
-- The first entries of an object go: so many at most.
delete from entries
where rowid in (
    select rowid from entries where service = ? and key = ? order by service, key, field, position, name limit ?
);

-- name: trim_steps
-- The last steps of a journal go: so many at most.
delete from steps where rowid in (select rowid from steps where number = ? order by idx desc limit ?);

-- name: trim_completions
-- The last completions of a journal go, by command: so many at most.
delete from completions where rowid in (select rowid from completions where number = ? order by command desc limit ?);

-- name: put_argument
-- A large argument, which is no part of its invocation's row.
insert into arguments (content, number) values (?, ?);

-- name: put_failure
-- A large failure, after the row of its invocation has been written without it.
update invocations set failure = ? where number = ?;

-- name: put_outcome
-- A large outcome, after the row of its invocation has been written without it.
update invocations set outcome = ? where number = ?;

-- name: put_step
-- A step with large content.
insert into steps (content, number, idx) values (?, ?, ?);

-- name: put_completion
-- A completion with a large value; rule C3 as in a batch.
insert or ignore into completions (value, number, position, command, failed)
select ?, ?, ?, ?, ?
where exists (select 1 from invocations where number = ?);

-- name: put_signal
-- A signal with a large value, as in a batch.
insert into signals (value, number, position, name, failed)
select ?, ?, ?, ?, ?
where exists (select 1 from invocations where number = ? and status <> 'completed');

-- name: put_state
-- A field with a large value.
insert into state (value, service, key, field) values (?, ?, ?, ?)
on conflict (service, key, field) do update set value = excluded.value;

-- name: put_promise
-- A promise with a large value.
insert into promises (value, service, key, name, failed, expires_at) values (?, ?, ?, ?, ?, ?)
on conflict (service, key, name) do update
set failed = excluded.failed, expires_at = excluded.expires_at, value = excluded.value;

-- name: put_events
-- What has been published, but for events with a large value.
insert into events (position, stream, key, name, id, at, value)
select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5, line ->> 6
from (select value as line from json_each(cast(? as text)) limit -1) where line is not null;

-- name: put_event
-- An event with a large value.
insert into events (value, position, stream, key, name, id, at) values (?, ?, ?, ?, ?, ?, ?);

-- name: drop_events
-- Events that are wanted no longer, by position.
delete from events where position in (select value from json_each(cast(? as text)));

-- name: drop_places
-- Invocations that run on no place of a limit any more.
delete from places where number in (select value from json_each(cast(? as text)));

-- name: put_places
-- Which invocations run on which places of limits.
insert or replace into places (number, id, name, key, place, counts)
select line ->> 0, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5
from (select value as line from json_each(cast(? as text)) limit -1) where line is not null;
