"""Stores for tests: wrapped ones that fail or are held back. `stores.contract` is what every store has to pass."""

from __future__ import annotations

from durably.testing.stores.wrapped import Barrier as Barrier
from durably.testing.stores.wrapped import FailingStore as FailingStore
from durably.testing.stores.wrapped import HeldReads as HeldReads
from durably.testing.stores.wrapped import HeldStore as HeldStore
from durably.testing.stores.wrapped import WrappedStore as WrappedStore
