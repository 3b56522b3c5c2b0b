-- The first layout: one table for each kind of record, and one row that says who owns the store.
-- A payload is text, and 'base64:…' where its bytes are not readable text; a large one is a blob of its plain bytes.
-- Tables that hold payloads are rowid tables: the B-tree that finds a row holds keys only, so a large payload costs
-- nothing where other rows are written. Times are microseconds since 1970 UTC.
-- `number` is the number of an execution. A new execution of an invocation takes a new number, which replaces the old
-- one in `invocations`, `attachments` and `aliases`; the steps, completions and timers of the old number go (rule W1).

-- `store_id` tells this store from every other one: an owner that opens it again after a failure compares it.
create table owner (
    singleton integer primary key check (singleton = 1),
    store_id text not null,
    epoch integer not null,
    last_position integer not null,
    host text not null,
    process_id integer not null,
    since integer not null
) strict;

insert into owner (singleton, store_id, epoch, last_position, host, process_id, since)
values (1, lower(hex(randomblob(16))), 0, 0, '', 0, 0);

create table invocations (
    number integer primary key,
    id text not null unique,
    service text not null,
    key text not null,
    handler text not null,
    seed text not null,
    scope_service text,
    scope_key text,
    scope_handler text,
    idempotency_key text,
    caller_service text,
    caller_key text,
    caller_number integer,
    caller_command integer,
    sender_id text,
    deadline integer,
    accepted_at integer not null,
    keep_outcome_us integer,
    status text not null,
    mailbox_position integer,
    attempts integer not null,
    expires_at integer,
    due integer,
    headers text not null,
    argument text,
    failure any,
    outcome any
) strict;

-- Large arguments: an invocation's row is rewritten at every change of its status, and must not be long.
create table arguments (
    number integer primary key,
    content blob not null
) strict;

-- What an object has to do: its started invocations, and its mailbox in order.
create index invocations_by_object on invocations (service, key, status, mailbox_position)
where status <> 'completed';

-- What recovery and operators look for. Sleepers and finished invocations are the many: they are not in it.
create index invocations_by_status on invocations (status)
where status in ('running', 'pending', 'backing-off', 'paused');

create unique index invocations_by_scope on invocations (idempotency_key, scope_service, scope_key, scope_handler)
where idempotency_key is not null;

create index invocations_by_expiry on invocations (expires_at)
where expires_at is not null;

create table steps (
    number integer not null,
    idx integer not null,
    content any not null,
    primary key (number, idx)
) strict;

create table completions (
    number integer not null,
    position integer not null,
    command integer not null,
    failed integer not null,
    value any not null,
    primary key (number, command)
) strict;

create table timers (
    number integer not null,
    kind text not null,
    command integer not null,
    due integer not null,
    service text not null,
    key text not null,
    asked_at integer not null,
    primary key (number, kind, command)
) strict, without rowid;

-- With `asked_at`, so that a look for timers of a clock that ran ahead reads no row that it does not want.
create index timers_by_due on timers (due, number, kind, command, asked_at);

create table attachments (
    number integer not null,
    caller_number integer not null,
    caller_command integer not null,
    caller_service text not null,
    caller_key text not null,
    primary key (number, caller_number, caller_command)
) strict, without rowid;

create table aliases (
    id text not null primary key,
    number integer not null
) strict, without rowid;

create index aliases_by_number on aliases (number);

-- What one invocation has ordered another to do, until it is carried out.
create table orders (
    position integer primary key,
    id text not null,
    kind text not null,
    caller_service text,
    caller_key text,
    caller_number integer,
    caller_command integer
) strict;

-- Completed promises of workflows. One with an expires_at goes then, unless the workflow has been started by then.
create table promises (
    service text not null,
    key text not null,
    name text not null,
    failed integer not null,
    expires_at integer,
    value any not null,
    primary key (service, key, name)
) strict;

create index promises_by_expiry on promises (expires_at)
where expires_at is not null;

create table state (
    service text not null,
    key text not null,
    field text not null,
    value any not null,
    primary key (service, key, field)
) strict;
