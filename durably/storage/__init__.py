"""What has happened: the `Store` seam, the records it keeps, and the stores that are shipped."""

from durably.storage.connect import store_from_url as store_from_url
from durably.storage.introspection import InspectableStore as InspectableStore
from durably.storage.introspection import Introspection as Introspection
from durably.storage.memory import MemoryStore as MemoryStore
from durably.storage.records import Batch as Batch
from durably.storage.records import Opened as Opened
from durably.storage.records import Owner as Owner
from durably.storage.sqlite import SqliteStore as SqliteStore
from durably.storage.store import Store as Store
