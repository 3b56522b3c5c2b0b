-- name: begin
-- A batch in several statements is one transaction.
begin;

-- name: end
-- Make it durable.
commit;

-- name: give_up
-- Undo it.
rollback;

-- name: commit_state
-- A batch that holds nothing but values of fields.
select commit_state(%s, %s, %s::json);

-- name: commit_batch
-- A commit: one call, so one trip and one transaction (rule X5).
select commit_batch(
    %s, %s, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json,
    %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json, %s::json
);

-- name: commit_entries
-- Changed entries of a batch.
select commit_entries(%s::json, %s::json, %s::json);

-- name: commit_kept
-- What stays after ends.
select commit_kept(%s::json, %s::json);

-- name: put_entry
-- An entry with a large value.
insert into entries (value, service, key, field, position, name) values (%s, %s, %s, %s, %s, %s)
on conflict (service, key, field, position, name) do update set value = excluded.value;

-- name: trim_entries
-- The first entries of an object go: so many at most.
delete from entries
where ctid in (
    select ctid from entries where service = %s and key = %s order by service, key, field, position, name limit %s
);

-- name: trim_steps
-- The last steps of a journal go: so many at most.
delete from steps where ctid in (select ctid from steps where number = %s order by idx desc limit %s);

-- name: trim_completions
-- The last completions of a journal go, by command: so many at most.
delete from completions where ctid in (select ctid from completions where number = %s order by command desc limit %s);

-- name: put_argument
-- A large argument, after the row of its invocation has been written without it.
update invocations set argument = %s where number = %s;

-- name: put_failure
-- A large failure.
update invocations set failure = %s where number = %s;

-- name: put_outcome
-- A large outcome.
update invocations set outcome = %s where number = %s;

-- name: put_step
-- A step with large content.
insert into steps (content, number, idx) values (%s, %s, %s);

-- name: put_completion
-- A completion with a large value; rule C3 as in a batch.
insert into completions (value, number, position, command, failed)
select %s::text, %s::bigint, %s::bigint, %s::bigint, %s::int
where exists (select 1 from invocations where number = %s)
on conflict (number, command) do nothing;

-- name: put_signal
-- A signal with a large value, as in a batch.
insert into signals (value, number, position, name, failed)
select %s::text, %s::bigint, %s::bigint, %s::text, %s::int
where exists (select 1 from invocations where number = %s and status <> 'completed');

-- name: put_state
-- A field with a large value.
insert into state (value, service, key, field) values (%s, %s, %s, %s)
on conflict (service, key, field) do update set value = excluded.value;

-- name: put_promise
-- A promise with a large value.
insert into promises (value, service, key, name, failed, expires_at) values (%s, %s, %s, %s, %s, %s)
on conflict (service, key, name) do update
set failed = excluded.failed, expires_at = excluded.expires_at, value = excluded.value;

-- name: put_events
-- What has been published, but for events with a large value.
insert into events (position, stream, key, name, id, at, value)
select
    (line ->> 0)::bigint, line ->> 1, line ->> 2, line ->> 3, line ->> 4, (line ->> 5)::bigint, line ->> 6
from json_array_elements(%s::json) as line;

-- name: put_event
-- An event with a large value.
insert into events (value, position, stream, key, name, id, at) values (%s, %s, %s, %s, %s, %s, %s);

-- name: drop_events
-- Events that are wanted no longer, by position.
delete from events where position in (select one::bigint from json_array_elements_text(%s::json) as one);

-- name: drop_places
-- Invocations that run on no place of a limit any more.
delete from places where number in (select one::bigint from json_array_elements_text(%s::json) as one);

-- name: put_places
-- Which invocations run on which places of limits.
insert into places (number, id, name, key, place, counts)
select
    (line ->> 0)::bigint, line ->> 1, line ->> 2, line ->> 3, (line ->> 4)::bigint, (line ->> 5)::int
from json_array_elements(%s::json) as line
on conflict (number, name, key) do update
set id = excluded.id, place = excluded.place, counts = excluded.counts;
