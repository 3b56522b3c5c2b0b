"""`PostgresStore`: all records in a schema of a PostgreSQL database (extra `durably[postgres]`)."""

from durably.storage.postgres.store import PostgresStore as PostgresStore
