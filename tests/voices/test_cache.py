from __future__ import annotations

import threading

from echo.voices.cache import ByteBoundedCache, CacheStats


def test_what_was_put_is_there_until_something_newer_needs_the_room():
    cache: ByteBoundedCache[str, bytes] = ByteBoundedCache(10)
    for key in ("a", "b"):
        cache.put(key, bytes(4), 4)
    assert cache.get("a") == bytes(4)
    cache.put("c", bytes(4), 4)  # b is the least recently used
    assert cache.get("b") is None
    assert "a" in cache
    assert "c" in cache
    assert cache.stats() == CacheStats(hits=1, misses=1, entries=2, bytes=8)


def test_asking_whether_a_key_is_there_does_not_count_as_use():
    cache: ByteBoundedCache[str, bytes] = ByteBoundedCache(8)
    cache.put("a", bytes(4), 4)
    cache.put("b", bytes(4), 4)
    assert "a" in cache
    cache.put("c", bytes(4), 4)
    assert "a" not in cache


def test_a_value_larger_than_the_cache_is_not_kept():
    cache: ByteBoundedCache[str, bytes] = ByteBoundedCache(10)
    cache.put("small", bytes(10), 10)
    cache.put("large", bytes(11), 11)
    assert "large" not in cache
    assert "small" in cache


def test_a_value_put_again_counts_once():
    cache: ByteBoundedCache[str, bytes] = ByteBoundedCache(10)
    cache.put("a", bytes(6), 6)
    cache.put("a", bytes(3), 3)
    assert cache.stats().bytes == 3
    cache.put("a", bytes(11), 11)
    assert cache.stats() == CacheStats(hits=0, misses=0, entries=0, bytes=0)


def test_clearing_empties_it():
    cache: ByteBoundedCache[str, bytes] = ByteBoundedCache(10)
    cache.put("key", b"x", 1)
    cache.clear()
    assert cache.get("key") is None
    assert cache.stats() == CacheStats(hits=0, misses=1, entries=0, bytes=0)


def test_many_threads_keep_the_count_of_bytes_right():
    cache: ByteBoundedCache[int, bytes] = ByteBoundedCache(500)
    start = threading.Barrier(8)

    def work(seed: int) -> None:
        start.wait()
        for step in range(500):
            key = (seed * 7 + step) % 40
            if cache.get(key) is None:
                cache.put(key, bytes(key), key)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = cache.stats()
    assert stats.hits + stats.misses == 8 * 500
    assert 0 < stats.bytes <= 500
    assert stats.bytes == sum(key for key in range(40) if key in cache)
