-- What has been published: an event is a row in the transition that published it (rule P1). Those of a stream are in the
-- order of their positions. `key` is what the event is about, as the id of an object.
create table events (
    position integer primary key,
    stream text not null,
    key text not null,
    name text not null,
    id text not null,
    at integer not null,
    value any not null
) strict;

create unique index event_by_id on events (id);

create index events_of_stream on events (stream, position);

create index events_of_key on events (stream, key, position);
