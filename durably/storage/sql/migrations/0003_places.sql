-- Which unfinished invocations run on places of limits (rule C9): most of them on none.
-- `place` is the number of who took the place. What that one calls runs on it too; `counts` says who keeps it taken.
create table places (
    number integer not null,
    name text not null,
    key text not null,
    place integer not null,
    counts integer not null,
    id text not null,
    primary key (number, name, key)
) strict, without rowid;
