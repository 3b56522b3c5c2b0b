-- name: server
-- What this server promises, and whether a pooler stands before it (then its session has another number than it says).
select
    current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync'),
    current_setting('synchronous_commit'), pg_is_in_recovery(), pg_backend_pid();

-- name: configure
-- Settings of a session. Each statement here is made for its indexes, even where the statistics of the server are old.
select
    set_config('search_path', quote_ident(%(schema)s), false),
    set_config(
        'synchronous_commit',
        case
            when not %(is_replicated)s::boolean then 'local'
            when current_setting('synchronous_commit') = 'remote_apply' then 'remote_apply'
            else 'on'
        end,
        false
    ),
    set_config('statement_timeout', %(limit)s, false),
    set_config('idle_in_transaction_session_timeout', '0', false),
    (select set_config(name, '0', false) from pg_settings where name = 'idle_session_timeout'), -- From PostgreSQL 14 on.
    set_config('default_transaction_isolation', 'read committed', false),
    set_config('jit', 'off', false),
    set_config('enable_seqscan', 'off', false),
    set_config('enable_hashjoin', 'off', false),
    set_config('enable_mergejoin', 'off', false),
    set_config('timezone', 'UTC', false);

-- name: one_at_a_time
-- Two processes make the tables of one store: the second waits here until the transaction of the first has ended.
select pg_advisory_xact_lock(hashtextextended('durably ' || %(schema)s, 0));

-- name: find_layout
-- (whether the tables are ours, whether there is anything: functions and types may be left behind).
select
    to_regclass(quote_ident(%(schema)s) || '.layout') is not null and to_regclass(quote_ident(%(schema)s) || '.lease') is not null,
    exists (select 1 from pg_class where relnamespace = to_regnamespace(quote_ident(%(schema)s)))
    or exists (select 1 from pg_proc where pronamespace = to_regnamespace(quote_ident(%(schema)s)))
    or exists (select 1 from pg_type where typnamespace = to_regnamespace(quote_ident(%(schema)s)));

-- name: layout_version
-- Which layout the tables have.
select version from layout;

-- name: make_schema
-- A schema that is not there.
select format('create schema if not exists %%I', %(schema)s::text);

-- name: note_layout
-- Which layout was made.
insert into layout values (%s);

-- name: first_owner
-- The rows of a new store.
insert into owner values (1, replace(gen_random_uuid()::text, '-', ''), 0, 0, '', 0, 0);

-- name: first_lease
-- The same: it is not held.
insert into lease values (1, 0, false, clock_timestamp(), 0, '', null, null, null, null);

-- name: lock_patience
-- How long a take-over waits for the session of the owner before it ends it.
select set_config('lock_timeout', %s, false);

-- name: take_over
-- Become the owner, or hear why not.
select * from take_over(
    %(known_store)s, %(known_epochs)s::bigint[], %(known_position)s, %(known_host)s, %(known_process)s,
    %(known_since)s, %(host)s, %(process)s, %(since)s, %(lease_us)s, %(advertised)s, %(session)s::int
);

-- name: end_writer
-- End the session that is in the way of a take-over: its client may be stopped in the middle of a transaction. For a
-- newcomer (`known_epochs` is null) that of an owner who is one no longer; for an owner that opens again its own from
-- before the failure. The number of an epoch alone does not say whose it is: a successor has the one that was tried for.
select pg_terminate_backend(session.pid)
from lease cross join owner cross join pg_stat_activity as session
where
    session.pid = lease.writer_pid and session.backend_start = lease.writer_start
    and case
        when %(known_epochs)s::bigint[] is null then is_free(lease)
        else
            lease.epoch = any (%(known_epochs)s::bigint[]) and owner.epoch = lease.epoch
            and owner.host = %(host)s and owner.process_id = %(process)s and owner.since = %(since)s
    end;

-- name: holder
-- Who has the store and is there. Unlike `take_over` this locks nothing, so those who only ask keep no owner from
-- renewing.
select owner.host, owner.process_id, owner.since, lease.advertised
from owner cross join lease
where not is_free(lease);

-- name: renew
-- The owner is still there.
update lease
set
    renewed_at = clock_timestamp(), session_pid = pg_backend_pid(),
    session_start = (select backend_start from pg_stat_activity where pid = pg_backend_pid())
where
    epoch = %(epoch)s and is_held
    and exists (select 1 from owner where host = %(host)s and process_id = %(process)s and since = %(since)s)
returning 1;

-- name: let_go
-- The owner leaves.
update lease set is_held = false
where
    epoch = %(epoch)s
    and exists (select 1 from owner where host = %(host)s and process_id = %(process)s and since = %(since)s);

-- name: current_epoch
-- Whose store this is by now (rule X9). Behind a failover to a replica that lagged, two owners can have one epoch.
select epoch, host, process_id, since from owner;

-- name: current_owner
-- The same, for a sentence.
select host, process_id, since from owner;

-- name: marks
-- Whether a codec has written here, and whether there are schedules, subscriptions, places of limits, users' events.
select
    exists (select 1 from state where service = '' and key = 'durably' and field <> 'plain'),
    exists (select 1 from state where service = '' and key = 'schedules'),
    exists (select 1 from state where service = '' and key = 'subscriptions'),
    exists (select 1 from places),
    exists (
        with recursive streams (name) as (
            select min(stream) from events
            union all
            select (select min(stream) from events where stream > streams.name) from streams
            where streams.name is not null
        )
        select 1 from streams where strpos(name, '/') > 0
    );

-- name: hold_epoch
-- Only the owner changes tables of objects: no other takes the store over until the transaction ends (rule X4).
select check_epoch(%s, 0);

-- name: model_tables
-- The tables of objects that there are.
select relname::text from pg_class
where relnamespace = to_regnamespace(quote_ident(current_schema())) and relkind = 'r' and starts_with(relname::text, %s);

-- name: comment_of_table
-- How a table of objects was laid out.
select obj_description(to_regclass(%s), 'pg_class');

-- name: make_model_moment
-- The moment that a field says, in ISO 8601; without a zone it is in UTC. Null is none, so that no commit fails.
create or replace function model_moment(said text) returns timestamptz language plpgsql stable as $$
begin
    if said !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})?$' then
        return null;
    end if;
    return case when said ~ '(Z|[+-][0-9]{2}:[0-9]{2})$' then said else said || 'Z' end::timestamptz;
exception when others then
    return null;
end $$;
