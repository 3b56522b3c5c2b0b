-- name: count_rows
-- How many rows a store has, but for its marker.
select
    (select count(*) from owner) +
    (select count(*) from invocations) +
    (select count(*) from arguments) +
    (select count(*) from steps) +
    (select count(*) from completions) +
    (select count(*) from timers) +
    (select count(*) from attachments) +
    (select count(*) from signals) +
    (select count(*) from aliases) +
    (select count(*) from orders) +
    (select count(*) from places) +
    (select count(*) from events) +
    (select count(*) from promises) +
    (select count(*) from kept_journals) +
    (select count(*) from object_expiries) +
    (select count(*) from entries) +
    (select count(*) from entry_counts) +
    (select count(*) from state)
    - (select count(*) from state where service = '' and key = 'durably');

-- name: read_owner
-- Every row of owner, in order.
select * from owner order by singleton;

-- name: write_owner
-- The owner, in the place of the one that a new database begins with.
insert or replace into owner values (?, ?, ?, ?, ?, ?, ?);

-- name: read_invocations
-- Every row of invocations, in order.
select * from invocations order by number;

-- name: write_invocations
-- A row of invocations, all of its columns.
insert into invocations values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: read_arguments
-- Every row of arguments, in order.
select * from arguments order by number;

-- name: write_arguments
-- A row of arguments, all of its columns.
insert into arguments values (?, ?);

-- name: read_steps
-- Every row of steps, in order.
select * from steps order by number, idx;

-- name: write_steps
-- A row of steps, all of its columns.
insert into steps values (?, ?, ?);

-- name: read_completions
-- Every row of completions, in order.
select * from completions order by number, command;

-- name: write_completions
-- A row of completions, all of its columns.
insert into completions values (?, ?, ?, ?, ?);

-- name: read_timers
-- Every row of timers, in order.
select * from timers order by number, kind, command;

-- name: write_timers
-- A row of timers, all of its columns.
insert into timers values (?, ?, ?, ?, ?, ?, ?);

-- name: read_attachments
-- Every row of attachments, in order.
select * from attachments order by number, caller_number, caller_command;

-- name: write_attachments
-- A row of attachments, all of its columns.
insert into attachments values (?, ?, ?, ?, ?);

-- name: read_signals
-- Every row of signals, in order.
select * from signals order by number, position;

-- name: write_signals
-- A row of signals, all of its columns.
insert into signals values (?, ?, ?, ?, ?);

-- name: read_aliases
-- Every row of aliases, in order.
select * from aliases order by id;

-- name: write_aliases
-- A row of aliases, all of its columns.
insert into aliases values (?, ?);

-- name: read_orders
-- Every row of orders, in order.
select * from orders order by position;

-- name: write_orders
-- A row of orders, all of its columns.
insert into orders values (?, ?, ?, ?, ?, ?, ?);

-- name: read_places
-- Every row of places, in order.
select * from places order by number, name, key;

-- name: write_places
-- A row of places, all of its columns.
insert into places values (?, ?, ?, ?, ?, ?);

-- name: read_events
-- Every row of events, in order.
select * from events order by position;

-- name: write_events
-- A row of events, all of its columns.
insert into events values (?, ?, ?, ?, ?, ?, ?);

-- name: read_promises
-- Every row of promises, in order.
select * from promises order by service, key, name;

-- name: write_promises
-- A row of promises, all of its columns.
insert into promises values (?, ?, ?, ?, ?, ?);

-- name: read_kept_journals
-- Every row of kept_journals, in order.
select * from kept_journals order by number;

-- name: write_kept_journals
-- A row of kept_journals, all of its columns.
insert into kept_journals values (?, ?, ?);

-- name: read_object_expiries
-- Every row of object_expiries, in order.
select * from object_expiries order by service, key;

-- name: write_object_expiries
-- A row of object_expiries, all of its columns.
insert into object_expiries values (?, ?, ?);

-- name: read_state
-- Every field of every object; not the marker, which is written for the new codec.
select * from state where not (service = '' and key = 'durably') order by service, key, field;

-- name: write_state
-- A row of state, all of its columns.
insert into state values (?, ?, ?, ?);

-- name: read_entries
-- Every entry of every field, in order.
select * from entries order by service, key, field, position, name;

-- name: write_entries
-- A row of entries, all of its columns.
insert into entries values (?, ?, ?, ?, ?, ?);

-- name: read_entry_counts
-- Every row of entry_counts, in order.
select * from entry_counts order by service, key, field;

-- name: write_entry_counts
-- A row of entry_counts, all of its columns; the entries that were written before have counted themselves.
insert or replace into entry_counts values (?, ?, ?, ?);
