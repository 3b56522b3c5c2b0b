-- name: moved
-- How many rows of each table have come: (name, source, rows).
select name, source, rows from moving;

-- name: note_moved
-- Further rows, in the transaction that wrote them.
insert into moving (name, source, rows) values (%s, %s, %s)
on conflict (name) do update set rows = excluded.rows;

-- name: columns_of
-- The columns of a table of ours with their types, in order.
select column_name::text, udt_name::text from information_schema.columns
where table_schema = %s and table_name = %s order by ordinal_position;

-- name: write_rows
-- The statement that takes rows of a table. Names are quoted by the server.
select format(
    'copy %%I (%%s) from stdin', %s::text, (select string_agg(quote_ident(name), ', ') from unnest(%s::text[]) as name)
);

-- name: read_rows
-- The statement that reads them back.
select format(
    'copy (select %%s from %%I) to stdout', (select string_agg(quote_ident(name), ', ') from unnest(%s::text[]) as name), %s::text
);

-- name: moved_owner
-- The store is the same one, as its last owner left it, and is not held.
update owner set store_id = %s, epoch = %s, last_position = %s;

-- name: end_move
-- The store is whole: a runtime may open it.
update layout set version = %s;

-- name: forget_move
-- What a move knew is of no interest any more.
delete from moving;
