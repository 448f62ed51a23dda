"""A cache bounded in bytes, least recently used out first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True)
class CacheStats:
    """Counts since the start, and what is held now."""

    hits: int
    misses: int
    entries: int
    bytes: int


class ByteBoundedCache(Generic[K, V]):
    """Thread-safe. Values must not be changed by those who get them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._bytes = self._hits = self._misses = 0

    def __contains__(self, key: object) -> bool:
        """Whether ``key`` is there now; does not count as use."""
        with self._lock:
            return key in self._entries

    def get(self, key: K) -> V | None:
        """The value of ``key``, now the most recently used, or None."""
        with self._lock:
            if key not in self._entries:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: K, value: V, size: int) -> None:
        """Keep ``value`` of ``size`` bytes; one larger than the whole cache is not kept."""
        with self._lock:
            if key in self._entries:
                self._bytes -= self._entries.pop(key)[1]
            if size > self._max_bytes:
                return
            self._entries[key] = (value, size)
            self._bytes += size
            while self._bytes > self._max_bytes:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._bytes -= dropped

    def remove(self, key: K) -> None:
        """Drop ``key``, if it is there."""
        with self._lock:
            if key in self._entries:
                self._bytes -= self._entries.pop(key)[1]

    def clear(self) -> None:
        """Drop all entries; the counts stay."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def stats(self) -> CacheStats:
        with self._lock:
            return CacheStats(self._hits, self._misses, len(self._entries), self._bytes)
