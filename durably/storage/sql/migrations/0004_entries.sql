-- Entries of collections, and fields that are loaded only when they are asked for (rule V7): a row for each.
-- The key of an entry is (position, name). Entries of a list have positions and no names, those of a dictionary a name
-- that begins with '=' (text) or is '#' (the position is the key). A field that is loaded lazily has one entry, (0, '').
-- Like other tables of payloads it is a rowid table: the B-tree that finds a row holds keys only.
create table entries (
    service text not null,
    key text not null,
    field text not null,
    position integer not null,
    name text not null,
    value any not null,
    primary key (service, key, field, position, name)
) strict;

-- How many entries a dictionary has: counting them would cost a look at each. A list knows its own length.
create table entry_counts (
    service text not null,
    key text not null,
    field text not null,
    entries integer not null,
    primary key (service, key, field)
) strict, without rowid;

create trigger entry_is_added after insert on entries when new.name <> ''
begin
    insert into entry_counts (service, key, field, entries) values (new.service, new.key, new.field, 1)
    on conflict (service, key, field) do update set entries = entries + 1;
end;

create trigger entry_is_removed after delete on entries when old.name <> ''
begin
    update entry_counts set entries = entries - 1
    where service = old.service and key = old.key and field = old.field;

    delete from entry_counts
    where service = old.service and key = old.key and field = old.field and entries = 0;
end;
