-- What is kept after an end, and for how long. Invocations and objects of which nothing is kept have no row here.

-- Invocations that have ended and whose steps and completions are still there; `steps` says how many, for the cleaner.
create table kept_journals (
    number integer primary key,
    expires_at integer not null,
    steps integer not null
) strict;

create index kept_journals_by_expiry on kept_journals (expires_at, number);

-- When the state of an object goes, unless an exclusive handler ends there before.
create table object_expiries (
    service text not null,
    key text not null,
    expires_at integer not null,
    primary key (service, key)
) strict, without rowid;

create index object_expiries_by_moment on object_expiries (expires_at, service, key);
