-- name: synchronous
-- A commit returns only when it would survive the loss of power.
pragma synchronous = full;

-- name: full_fsync
-- macOS acknowledges an ordinary fsync before the disk has the data (rule X6). Nothing elsewhere.
pragma fullfsync = 1;

-- name: checkpoint_full_fsync
-- The same for checkpoints.
pragma checkpoint_fullfsync = 1;

-- name: no_automatic_checkpoint
-- Checkpoints run on a connection of their own, so that no commit waits for one (rule X6).
pragma wal_autocheckpoint = 0;

-- name: temporary_tables_in_memory
-- The temporary structures of a statement never become files: questions of people would fill the disk with them.
pragma temp_store = memory;

-- name: write_ahead_log
-- Readers and the writer do not wait for each other.
pragma journal_mode = wal;

-- name: read_only
-- A connection for reads refuses every write.
pragma query_only = 1;

-- name: letters_as_they_are
-- LIKE tells large letters from small ones, as Postgres does.
pragma case_sensitive_like = 1;

-- name: lock_for_oneself
-- What this connection has locked it keeps, until it is closed.
pragma locking_mode = exclusive;

-- name: rollback_journal
-- Copy the write-ahead log into the database and do without one. Fails where another connection has it open.
pragma journal_mode = delete;

-- name: no_journal
-- For a file that is thrown away unless it is finished.
pragma journal_mode = off;

-- name: not_synchronous
-- The same: it is made durable as a whole, at the end.
pragma synchronous = off;

-- name: check_all
-- Whether the pages of the file fit together: one row that says ok.
pragma integrity_check;

-- name: list_columns
-- The columns of a table in order, each with its type and its place in the primary key, which is 0 outside it.
select name, type, pk from pragma_table_info(?) order by cid;

-- name: application
-- Says which application the file belongs to; 0 where none is set.
pragma application_id;

-- name: version
-- The number of the last migration that this file has been through.
pragma user_version;

-- name: count_tables
-- A file without any is new, and may become ours.
select count(*) from sqlite_schema;

-- name: begin
-- Take the right to write before looking at what is there.
begin immediate;

-- name: begin_reading
-- Let several statements read one snapshot (rule L2).
begin;

-- name: end
-- Make the transaction durable.
commit;

-- name: give_up
-- Undo the transaction.
rollback;

-- name: take_over
-- A new owner: the one with the epoch before cannot commit any more (rule X4).
update owner set epoch = epoch + 1, host = ?, process_id = ?, since = ?;

-- name: current_owner
-- Which store this is, how far it has come, and whose it is.
select store_id, epoch, last_position, host, process_id, since from owner;

-- name: is_encoded
-- Whether a codec has written here: the marker of the store then has a field besides `plain`.
select exists (select 1 from state where service = '' and key = 'durably' and field <> 'plain');

-- name: has_schedules
-- Whether the store knows schedules of handlers.
select exists (select 1 from state where service = '' and key = 'schedules');

-- name: has_subscriptions
-- Whether the store knows subscriptions to events.
select exists (select 1 from state where service = '' and key = 'subscriptions');

-- name: has_events
-- Whether there are published events: those of users' streams, whose names have a slash. It reads a row for each stream.
with recursive streams (name) as (
    select min(stream) from events
    union all
    select (select min(stream) from events where stream > streams.name) from streams where streams.name is not null
)
select exists (select 1 from streams where instr(name, '/') > 0);

-- name: has_places
-- Whether an unfinished invocation runs on a place of a limit.
select exists (select 1 from places);

-- name: marker
-- What the store says of the codecs that have written to it.
select field, value from state where service = '' and key = 'durably';

-- name: stored_identity
-- What tells a database from another store, and from an older copy.
select store_id, epoch, last_position from owner;

-- name: checkpoint_beside_writer
-- Copy what can be copied into the database while the writer goes on. Answers (blocked, frames, frames copied).
pragma wal_checkpoint(passive);

-- name: checkpoint_and_reuse
-- Copy the rest and begin the log anew in the same file: overwriting it is twice as fast as growing it again.
pragma wal_checkpoint(restart);

-- name: checkpoint_and_shrink
-- Copy everything and cut the log to nothing.
pragma wal_checkpoint(truncate);
