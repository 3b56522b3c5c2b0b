-- The tables of a store, in a schema of its own. The layout is that of the SQLite file (durably/storage/sql/migrations),
-- with real types, and with one difference: all payloads are text, because a large value lies outside its row here
-- anyway. `%INLINE_BYTES%` is the size beyond which an answer holds the size of a payload instead of the payload.
-- Text is compared byte by byte, as everywhere in durably; the collation of the database has no effect.

-- While a store is moved here, the version is that of a layout that no runtime opens.
create table layout (version int not null);

-- How far a move has come; empty otherwise. `source` says which state of which store is moved.
create table moving (
    name text primary key,
    source text not null,
    rows bigint not null
);

create domain name_text as text collate "C";

-- A commit changes this row and nothing else of the kind: who owns the store is renewed in another (`lease`).
create table owner (
    singleton int primary key check (singleton = 1),
    store_id text not null,
    epoch bigint not null,
    last_position bigint not null,
    host text not null,
    process_id bigint not null,
    since bigint not null
) with (fillfactor = 20);

-- Whether the owner is still there, by the clock of this server: it renews the row, from a session that is named here.
-- A commit does not touch it, so a long commit does not keep its own owner from renewing.
create table lease (
    singleton int primary key check (singleton = 1),
    epoch bigint not null,
    is_held boolean not null,
    renewed_at timestamptz not null,
    lease_us bigint not null,
    advertised text not null,
    session_pid int,
    session_start timestamptz,
    writer_pid int,
    writer_start timestamptz
) with (fillfactor = 20);

create table invocations (
    number bigint primary key,
    id name_text not null unique,
    service name_text not null,
    key name_text not null,
    handler name_text not null,
    seed text not null,
    argument text,
    headers text not null,
    scope_service name_text,
    scope_key name_text,
    scope_handler name_text,
    idempotency_key name_text,
    caller_service name_text,
    caller_key name_text,
    caller_number bigint,
    caller_command bigint,
    sender_id name_text,
    deadline bigint,
    accepted_at bigint not null,
    keep_outcome_us bigint,
    status text not null,
    mailbox_position bigint,
    attempts bigint not null,
    failure text,
    outcome text,
    expires_at bigint,
    due bigint
) with (fillfactor = 80);

create index invocations_by_object on invocations (service, key, status, mailbox_position) where status <> 'completed';
create index invocations_by_status on invocations (status, number)
where status in ('running', 'pending', 'backing-off', 'paused');
create unique index invocations_by_scope on invocations (idempotency_key, scope_service, scope_key, scope_handler)
where idempotency_key is not null;
create index invocations_by_expiry on invocations (expires_at, number) where expires_at is not null;

create table steps (
    number bigint not null,
    idx bigint not null,
    content text not null,
    primary key (number, idx)
);

create table completions (
    number bigint not null,
    position bigint not null,
    command bigint not null,
    failed int not null,
    value text not null,
    primary key (number, command)
);

create table timers (
    number bigint not null,
    kind name_text not null,
    command bigint not null,
    due bigint not null,
    service name_text not null,
    key name_text not null,
    asked_at bigint not null,
    primary key (number, kind, command)
);
create index timers_by_due on timers (due, number, kind, command, asked_at);

create table attachments (
    number bigint not null,
    caller_number bigint not null,
    caller_command bigint not null,
    caller_service name_text not null,
    caller_key name_text not null,
    primary key (number, caller_number, caller_command)
);

create table signals (
    number bigint not null,
    position bigint not null,
    name name_text not null,
    failed int not null,
    value text not null,
    primary key (number, position)
);

create table aliases (
    id name_text not null primary key,
    number bigint not null
);
create index aliases_by_number on aliases (number);

create table orders (
    position bigint primary key,
    id name_text not null,
    kind text not null,
    caller_service name_text,
    caller_key name_text,
    caller_number bigint,
    caller_command bigint
);

create table promises (
    service name_text not null,
    key name_text not null,
    name name_text not null,
    failed int not null,
    expires_at bigint,
    value text not null,
    primary key (service, key, name)
);
create index promises_by_expiry on promises (expires_at) where expires_at is not null;

create table state (
    service name_text not null,
    key name_text not null,
    field name_text not null,
    value text not null,
    primary key (service, key, field)
);

create table kept_journals (
    number bigint primary key,
    expires_at bigint not null,
    steps bigint not null
);
create index kept_journals_by_expiry on kept_journals (expires_at, number);

create table object_expiries (
    service name_text not null,
    key name_text not null,
    expires_at bigint not null,
    primary key (service, key)
);
create index object_expiries_by_moment on object_expiries (expires_at, service, key);

create table places (
    number bigint not null,
    name name_text not null,
    key name_text not null,
    place bigint not null,
    counts int not null,
    id name_text not null,
    primary key (number, name, key)
);

create table entries (
    service name_text not null,
    key name_text not null,
    field name_text not null,
    position bigint not null,
    name name_text not null,
    value text not null,
    primary key (service, key, field, position, name)
);

-- How many entries a dictionary has: counting them would cost a look at each. A list knows its own length.
create table entry_counts (
    service name_text not null,
    key name_text not null,
    field name_text not null,
    entries bigint not null,
    primary key (service, key, field)
);

create table events (
    position bigint primary key,
    stream name_text not null,
    key name_text not null,
    name name_text not null,
    id name_text not null unique,
    at bigint not null,
    value text not null
);
create index events_of_stream on events (stream, position);
create index events_of_key on events (stream, key, position);

-- ---------------------------------------------------------------- entries count themselves, once for a statement

create function entries_are_added() returns trigger language plpgsql as $$
begin
    insert into entry_counts (service, key, field, entries)
    select service, key, field, count(*) from added where name <> '' group by service, key, field
    on conflict (service, key, field) do update set entries = entry_counts.entries + excluded.entries;
    return null;
end $$;

create trigger entries_are_added after insert on entries
referencing new table as added for each statement execute function entries_are_added();

create function entries_are_removed() returns trigger language plpgsql as $$
begin
    update entry_counts as counted set entries = counted.entries - gone.entries
    from (
        select service, key, field, count(*) as entries from removed where name <> '' group by service, key, field
    ) as gone
    where (counted.service, counted.key, counted.field) = (gone.service, gone.key, gone.field);
    delete from entry_counts
    where entries = 0 and (service, key, field) in (select service, key, field from removed where name <> '');
    return null;
end $$;

create trigger entries_are_removed after delete on entries
referencing old table as removed for each statement execute function entries_are_removed();

-- ---------------------------------------------------------------- payloads and records as JSON

-- How many bytes a payload has that is kept as this text.
create function payload_bytes(stored text) returns bigint language sql immutable as $$
    select case
        when starts_with(stored, 'base64:') then (octet_length(rtrim(substr(stored, 8), '=')) * 3 / 4)::bigint
        else octet_length(stored)::bigint
    end
$$;

-- A payload as it stands in an answer: its text, or its size in bytes where it is large.
create function inlined(stored text) returns json language sql stable as $$
    select case
        when octet_length(stored) > %INLINE_BYTES% then to_json(payload_bytes(stored)) else to_json(stored)
    end
$$;

create view encoded_invocations as
select
    *,
    json_build_array(
        number, id, service, key, handler, seed, inlined(argument), headers,
        scope_service, scope_key, scope_handler, idempotency_key,
        caller_service, caller_key, caller_number, caller_command,
        sender_id, deadline, accepted_at, keep_outcome_us,
        status, mailbox_position, attempts, inlined(failure), inlined(outcome), expires_at, due
    ) as record,
    exists (
        select 1 from invocations as sender where sender.id = invocations.sender_id and sender.status <> 'completed'
    )::int as sender_unfinished
from invocations;

create view encoded_journals as
select
    *,
    json_build_array(
        record,
        (
            select coalesce(json_agg(json_build_array(idx, inlined(content)) order by idx), '[]')
            from steps where steps.number = invocation.number
        ),
        (
            select coalesce(
                json_agg(json_build_array(position, command, failed, inlined(value)) order by position, command), '[]'
            )
            from completions where completions.number = invocation.number
        ),
        (
            select coalesce(
                json_agg(
                    json_build_array(caller_number, caller_command, caller_service, caller_key)
                    order by caller_number, caller_command
                ),
                '[]'
            )
            from attachments where attachments.number = invocation.number
        ),
        sender_unfinished,
        (
            select coalesce(
                json_agg(json_build_array(position, name, failed, inlined(value)) order by position), '[]'
            )
            from signals where signals.number = invocation.number
        )
    ) as journal
from encoded_invocations as invocation;

-- ---------------------------------------------------------------- a commit

-- Rule X4: it takes the row, so a take-over waits for this batch, or this batch finds that the epoch has moved.
create function check_epoch(of_batch bigint, reached bigint) returns void language plpgsql as $$
begin
    update owner set last_position = greatest(last_position, reached) where epoch = of_batch;
    if not found then
        raise exception 'the epoch has moved' using errcode = 'DUR01';
    end if;
end $$;

create function put_fields(changed json) returns void language sql as $$
    insert into state (service, key, field, value)
    select line ->> 0, line ->> 1, line ->> 2, line ->> 3 from json_array_elements(changed) as line
    on conflict (service, key, field) do update set value = excluded.value
$$;

-- A batch that holds nothing but values of fields, which is what plain calls leave.
create function commit_state(of_batch bigint, reached bigint, changed json) returns void language plpgsql as $$
begin
    perform check_epoch(of_batch, reached);
    if changed is not null then
        perform put_fields(changed);
    end if;
end $$;

-- A whole batch. Each list is one JSON array of rows; an empty one is null. The rules are those of
-- durably/storage/sql/commit.sql, in its order.
create function commit_batch(
    of_batch bigint, reached bigint, renewed json, forgotten json, removed json, accepted json, woken json,
    updated json, new_steps json, new_completions json, timers_cleared json, new_timers json, new_attachments json,
    new_aliases json, state_cleared json, changed json, new_signals json, signals_taken json, vacated json,
    new_promises json, new_orders json, orders_done json
) returns void language plpgsql as $$
begin
    perform check_epoch(of_batch, reached);

    if renewed is not null then
        update invocations set number = (line ->> 0)::bigint, seed = line ->> 2, argument = line ->> 3
        from json_array_elements(renewed) as line where invocations.number = (line ->> 1)::bigint;
        update attachments set number = (line ->> 0)::bigint
        from json_array_elements(renewed) as line where attachments.number = (line ->> 1)::bigint;
        update aliases set number = (line ->> 0)::bigint
        from json_array_elements(renewed) as line where aliases.number = (line ->> 1)::bigint;
        delete from signals using json_array_elements(renewed) as line
        where signals.number = (line ->> 1)::bigint and starts_with(signals.name, 'sign_1');
        update signals set number = (line ->> 0)::bigint
        from json_array_elements(renewed) as line where signals.number = (line ->> 1)::bigint;
    end if;

    if forgotten is not null then
        delete from steps where number in (select one::bigint from json_array_elements_text(forgotten) as one);
        delete from completions where number in (select one::bigint from json_array_elements_text(forgotten) as one);
        delete from timers where number in (select one::bigint from json_array_elements_text(forgotten) as one);
        delete from attachments where number in (select one::bigint from json_array_elements_text(forgotten) as one);
        delete from signals where number in (select one::bigint from json_array_elements_text(forgotten) as one);
        delete from kept_journals where number in (select one::bigint from json_array_elements_text(forgotten) as one);
    end if;

    if removed is not null then
        delete from invocations where number in (select one::bigint from json_array_elements_text(removed) as one);
        delete from aliases where number in (select one::bigint from json_array_elements_text(removed) as one);
    end if;

    if accepted is not null then
        insert into invocations (
            number, id, service, key, handler, seed, argument, headers,
            scope_service, scope_key, scope_handler, idempotency_key,
            caller_service, caller_key, caller_number, caller_command,
            sender_id, deadline, accepted_at, keep_outcome_us,
            status, mailbox_position, attempts, failure, outcome, expires_at, due
        )
        select
            (line ->> 0)::bigint, line ->> 1, line ->> 2, line ->> 3, line ->> 4, line ->> 5, line ->> 6, line ->> 7,
            line ->> 8, line ->> 9, line ->> 10, line ->> 11,
            line ->> 12, line ->> 13, (line ->> 14)::bigint, (line ->> 15)::bigint,
            line ->> 16, (line ->> 17)::bigint, (line ->> 18)::bigint, (line ->> 19)::bigint,
            line ->> 20, (line ->> 21)::bigint, (line ->> 22)::bigint, line ->> 23, line ->> 24, (line ->> 25)::bigint,
            (line ->> 26)::bigint
        from json_array_elements(accepted) as line;
    end if;

    if woken is not null then
        update invocations set status = 'running'
        where number in (select one::bigint from json_array_elements_text(woken) as one) and status = 'suspended';
    end if;

    if updated is not null then
        update invocations
        set
            status = line ->> 1,
            mailbox_position = (line ->> 2)::bigint,
            attempts = (line ->> 3)::bigint,
            failure = line ->> 4,
            outcome = coalesce(line ->> 5, outcome),  -- One that is there stays, also where it cannot be read.
            expires_at = (line ->> 6)::bigint
        from json_array_elements(updated) as line where invocations.number = (line ->> 0)::bigint;
    end if;

    if new_steps is not null then
        insert into steps (number, idx, content)
        select (line ->> 0)::bigint, (line ->> 1)::bigint, line ->> 2 from json_array_elements(new_steps) as line;
    end if;

    -- Rule C3: the invocation may no longer wait for it, and only the first answer to a command counts.
    if new_completions is not null then
        insert into completions (number, position, command, failed, value)
        select (line ->> 0)::bigint, (line ->> 1)::bigint, (line ->> 2)::bigint, (line ->> 3)::int, line ->> 4
        from json_array_elements(new_completions) as line
        where exists (select 1 from invocations where number = (line ->> 0)::bigint)
        on conflict (number, command) do nothing;
    end if;

    if timers_cleared is not null then
        delete from timers using json_array_elements(timers_cleared) as line
        where
            timers.number = (line ->> 0)::bigint and timers.kind = line ->> 1
            and timers.command = (line ->> 2)::bigint;
    end if;

    if new_timers is not null then
        insert into timers (number, kind, command, due, service, key, asked_at)
        select
            (line ->> 0)::bigint, line ->> 1, (line ->> 2)::bigint, (line ->> 3)::bigint, line ->> 4, line ->> 5,
            (line ->> 6)::bigint
        from json_array_elements(new_timers) as line
        on conflict (number, kind, command) do update
        set due = excluded.due, service = excluded.service, key = excluded.key, asked_at = excluded.asked_at;
    end if;

    if new_attachments is not null then
        insert into attachments (number, caller_number, caller_command, caller_service, caller_key)
        select (line ->> 0)::bigint, (line ->> 1)::bigint, (line ->> 2)::bigint, line ->> 3, line ->> 4
        from json_array_elements(new_attachments) as line
        where exists (select 1 from invocations where number = (line ->> 0)::bigint)
        on conflict (number, caller_number, caller_command) do nothing;
    end if;

    if new_aliases is not null then
        insert into aliases (id, number)
        select line ->> 0, (line ->> 1)::bigint from json_array_elements(new_aliases) as line;
    end if;

    if signals_taken is not null then
        delete from signals using json_array_elements(signals_taken) as line
        where signals.number = (line ->> 0)::bigint and signals.position = (line ->> 1)::bigint;
    end if;

    -- Signals of an invocation that has ended are ignored.
    if new_signals is not null then
        insert into signals (number, position, name, failed, value)
        select (line ->> 0)::bigint, (line ->> 1)::bigint, line ->> 2, (line ->> 3)::int, line ->> 4
        from json_array_elements(new_signals) as line
        where exists (select 1 from invocations where number = (line ->> 0)::bigint and status <> 'completed');
    end if;

    if vacated is not null then
        delete from state using json_array_elements(vacated) as line
        where state.service = line ->> 0 and state.key = line ->> 1;
        delete from entries using json_array_elements(vacated) as line
        where entries.service = line ->> 0 and entries.key = line ->> 1;
        delete from promises using json_array_elements(vacated) as line
        where promises.service = line ->> 0 and promises.key = line ->> 1;
    end if;

    if new_promises is not null then
        insert into promises (service, key, name, failed, expires_at, value)
        select line ->> 0, line ->> 1, line ->> 2, (line ->> 3)::int, (line ->> 4)::bigint, line ->> 5
        from json_array_elements(new_promises) as line
        on conflict (service, key, name) do update
        set failed = excluded.failed, expires_at = excluded.expires_at, value = excluded.value;
    end if;

    if state_cleared is not null then
        delete from state using json_array_elements(state_cleared) as line
        where state.service = line ->> 0 and state.key = line ->> 1 and state.field = line ->> 2;
    end if;

    if changed is not null then
        perform put_fields(changed);
    end if;

    if orders_done is not null then
        delete from orders where position in (select one::bigint from json_array_elements_text(orders_done) as one);
    end if;

    if new_orders is not null then
        insert into orders (position, id, kind, caller_service, caller_key, caller_number, caller_command)
        select
            (line ->> 0)::bigint, line ->> 1, line ->> 2, line ->> 3, line ->> 4, (line ->> 5)::bigint,
            (line ->> 6)::bigint
        from json_array_elements(new_orders) as line;
    end if;
end $$;

-- Journals that stay after ends, without what only the living need, and when the state of objects goes.
create function commit_kept(kept json, expiries json) returns void language plpgsql as $$
begin
    if kept is not null then
        delete from timers where number in (select (line ->> 0)::bigint from json_array_elements(kept) as line);
        delete from attachments where number in (select (line ->> 0)::bigint from json_array_elements(kept) as line);
        delete from signals where number in (select (line ->> 0)::bigint from json_array_elements(kept) as line);
        insert into kept_journals (number, expires_at, steps)
        select (line ->> 0)::bigint, (line ->> 1)::bigint, (line ->> 2)::bigint
        from json_array_elements(kept) as line
        on conflict (number) do update set expires_at = excluded.expires_at, steps = excluded.steps;
    end if;
    if expiries is not null then
        delete from object_expiries as stored using json_array_elements(expiries) as line
        where stored.service = line ->> 0 and stored.key = line ->> 1 and line ->> 2 is null;
        insert into object_expiries (service, key, expires_at)
        select line ->> 0, line ->> 1, (line ->> 2)::bigint
        from json_array_elements(expiries) as line where line ->> 2 is not null
        on conflict (service, key) do update set expires_at = excluded.expires_at;
    end if;
end $$;

-- Deletes all entries of the `cleared` fields and those that are `removed`, then keeps the `changed`.
create function commit_entries(cleared json, removed json, changed json) returns void language plpgsql as $$
begin
    if cleared is not null then
        delete from entries using json_array_elements(cleared) as line
        where entries.service = line ->> 0 and entries.key = line ->> 1 and entries.field = line ->> 2;
    end if;
    if removed is not null then
        delete from entries using json_array_elements(removed) as line
        where
            entries.service = line ->> 0 and entries.key = line ->> 1 and entries.field = line ->> 2
            and entries.position = (line ->> 3)::bigint and entries.name = line ->> 4;
    end if;
    if changed is not null then
        insert into entries (service, key, field, position, name, value)
        select line ->> 0, line ->> 1, line ->> 2, (line ->> 3)::bigint, line ->> 4, line ->> 5
        from json_array_elements(changed) as line
        on conflict (service, key, field, position, name) do update set value = excluded.value;
    end if;
end $$;

-- ---------------------------------------------------------------- one owner

-- Whether the store has no owner any more: it was let go, or its time has run out by the clock of this server, or the
-- session that renews it has ended. What a role may not see of a session counts as being there.
create function is_free(held lease) returns boolean language sql volatile as $$
    select not held.is_held
    or held.renewed_at + held.lease_us * interval '1 microsecond' < clock_timestamp()
    or not exists (
        select 1 from pg_stat_activity as session
        where session.pid = held.session_pid and coalesce(session.backend_start, held.session_start) = held.session_start
    )
$$;

-- Rule X4. A newcomer (`known_epochs` is null) takes what is free. An owner that opens again takes what it had, and only
-- if there was no other owner in between (rule X9). One call, so a process that is stopped in the middle locks nothing.
create function take_over(
    known_store text, known_epochs bigint[], known_position bigint, known_host text, known_process bigint,
    known_since bigint, new_host text, new_process bigint, new_since bigint, new_lease_us bigint, new_advertised text,
    new_session int, out verdict text, out of_store text, out of_epoch bigint, out of_position bigint, out of_host text,
    out of_process bigint, out of_since bigint, out of_advertised text
) language plpgsql as $$
declare
    held lease;
    before owner;
begin
    select * into strict held from lease for update;
    select * into strict before from owner;
    verdict := case
        when known_epochs is null and not is_free(held) then 'in use'
        when known_epochs is null then 'taken'
        when before.store_id <> known_store then 'another'
        when before.epoch <> all (known_epochs)
            or (before.host, before.process_id, before.since) <> (known_host, known_process, known_since)
        then 'taken over'
        when before.last_position < known_position then 'older'
        else 'taken'
    end;
    of_advertised := held.advertised;
    if verdict = 'taken' then
        update owner
        set epoch = epoch + 1, host = new_host, process_id = new_process, since = new_since
        returning * into before;
        update lease
        set
            epoch = before.epoch, is_held = true, renewed_at = clock_timestamp(), lease_us = new_lease_us,
            advertised = new_advertised, session_pid = new_session,
            session_start = (select backend_start from pg_stat_activity where pid = new_session),
            writer_pid = pg_backend_pid(),
            writer_start = (select backend_start from pg_stat_activity where pid = pg_backend_pid());
    end if;
    of_store := before.store_id;
    of_epoch := before.epoch;
    of_position := before.last_position;
    of_host := before.host;
    of_process := before.process_id;
    of_since := before.since;
end $$;

-- ---------------------------------------------------------------- for people with psql, by the names of the admin API

-- The bytes of a payload.
create function payload(stored text) returns bytea language sql immutable as $$
    select case
        when starts_with(stored, 'base64:') then decode(substr(stored, 8), 'base64') else convert_to(stored, 'UTF8')
    end
$$;

create function moment(us bigint) returns timestamptz language sql immutable as $$
    select timestamptz '1970-01-01 00:00:00+00' + us * interval '1 microsecond'
$$;

create function target_of(service text, key text, id text, handler text) returns text language sql immutable as $$
    select service || '/' || case when key = id then '' else key || '/' end || handler
$$;

-- `status` is what the store knows: whether a pending invocation runs at this moment is in the memory of its owner.
create view sys_invocation as
select
    one.id,
    target_of(one.service, one.key, one.id, one.handler) as target,
    one.service as target_service_name,
    nullif(one.key, one.id) as target_service_key,
    one.handler as target_handler_name,
    nullif(one.idempotency_key, '') as idempotency_key,
    case when one.caller_number is null and one.sender_id is null then 'ingress' else 'service' end as invoked_by,
    coalesce(one.sender_id, caller.id) as invoked_by_id,
    coalesce(one.caller_service, sender.service) as invoked_by_service_name,
    coalesce(
        target_of(caller.service, caller.key, caller.id, caller.handler),
        target_of(sender.service, sender.key, sender.id, sender.handler)
    ) as invoked_by_target,
    (select count(*) from steps where steps.number = one.number) as journal_steps,
    moment(one.accepted_at) as created_at,
    moment(one.due) as scheduled_start_at,
    case when one.status = 'completed' then moment(one.expires_at - one.keep_outcome_us) end as completed_at,
    one.keep_outcome_us * interval '1 microsecond' as completion_retention,
    one.attempts as retry_count,
    (
        select moment(timers.due) from timers where timers.number = one.number and timers.kind = 'retry'
    ) as next_retry_at,
    case when one.status <> 'completed' then one.failure end as last_failure,
    case when one.status = 'pending' and one.mailbox_position is null then 'ready' else one.status end as status,
    case when one.status = 'completed' then
        case when starts_with(one.outcome, '!') then 'failure' when one.outcome is not null then 'success' end
    end as completion_result,
    case when starts_with(one.outcome, '!') then substr(one.outcome, 2) end as completion_failure
from invocations as one
left join invocations as caller on caller.number = one.caller_number
left join invocations as sender on sender.id = one.sender_id;

-- The steps of journals, each with what the handler did in it.
create view sys_journal as
select invocations.id, steps.idx as index, steps.content as entry_json, octet_length(steps.content) as raw_length
from steps join invocations using (number);

-- The table `state` has the same, as the store keeps it.
create view sys_state as
select
    service as service_name, key as service_key, field as key,
    case when not starts_with(value, 'base64:') then value end as value_utf8,
    payload(value) as value, payload_bytes(value) as value_length
from state where service <> '' and field not like 'durably:%';

create view sys_inbox as
select
    service as service_name, key as service_key, id, mailbox_position as sequence_number, moment(accepted_at) as created_at
from invocations where status = 'pending' and status <> 'completed' and mailbox_position is not null;

create view sys_keyed_service_status as
select service as service_name, key as service_key, id as invocation_id
from invocations
where
    status in ('running', 'backing-off', 'suspended', 'paused') and status <> 'completed'
    and mailbox_position is not null;

create view sys_idempotency as
select
    service as service_name, nullif(key, id) as service_key, handler as service_handler, idempotency_key,
    id as invocation_id
from invocations where idempotency_key <> '';

create view sys_promise as
select
    service as service_name, key as service_key, name as key, true as completed,
    case when failed = 0 and not starts_with(value, 'base64:') then value end as completion_success_value_utf8,
    case when failed = 0 then payload(value) end as completion_success_value,
    case when failed <> 0 then value end as completion_failure
from promises;

-- Whose store it is, and when it was heard of last.
create view sys_owner as
select
    owner.host, owner.process_id, moment(owner.since) as since, owner.epoch, owner.last_position,
    lease.advertised as address, lease.is_held, lease.renewed_at, lease.lease_us * interval '1 microsecond' as lease
from owner cross join lease;
