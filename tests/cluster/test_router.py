from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

pytest.importorskip("ray.serve", reason="needs the extra cluster")

from echo.cluster.affinity import in_order
from echo.cluster.router import VoiceRouter

T = TypeVar("T")
IDS = [f"replica{number}" for number in range(4)]
REPLICAS = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in IDS]


class Router(VoiceRouter):
    """Without Serve around it: knows how long the queues are, and no more."""

    def __init__(self, loads: dict[str, int]) -> None:
        self._counted = loads
        self.initialize_state(slack=1.25)
        self._use_replica_queue_len_cache = False

    @property
    def replica_queue_len_cache(self):
        return SimpleNamespace(get=lambda replica_id: self._counted.get(replica_id.unique_id))


def finished(work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``, in a loop of its own, whatever runs in this thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def pending(session: str) -> SimpleNamespace:
    return SimpleNamespace(
        metadata=SimpleNamespace(session_id=session),
        routing_context=SimpleNamespace(should_backoff=False),
    )


def ranks(session: str, loads: dict[str, int]) -> list[list[str]]:
    request = pending(session)
    chosen = finished(Router(loads).choose_replicas(REPLICAS, request))
    assert request.routing_context.should_backoff
    return [[replica.replica_id.unique_id for replica in rank] for rank in chosen]


def test_a_voice_tries_its_replicas_one_by_one_in_its_order():
    loads = {IDS[0]: 3, IDS[1]: 1}
    assert ranks("voice", loads) == [[name] for name in in_order("voice", IDS, loads, 1.25)]


def test_of_requests_that_come_at_once_each_counts_the_ones_before():
    async def come_at_once(router: Router, count: int) -> list[str]:
        first = []
        for _ in range(count):
            [[chosen], *_] = await router.choose_replicas(REPLICAS, pending("voice"))
            first.append(chosen.replica_id.unique_id)
        return first

    router = Router({})
    chosen = finished(come_at_once(router, 8))
    assert max(Counter(chosen).values()) <= 3  # 1.25 times the mean of 2, rounded up
    for name in chosen:
        router.on_send_request(SimpleNamespace(unique_id=name))
    assert not router._promised


def test_a_request_without_a_voice_goes_to_the_less_busy_of_two_and_else_to_any():
    drawn = {tuple(sorted(ranks("", {})[0])) for _ in range(200)}
    assert {len(pair) for pair in drawn} == {2}
    assert len(drawn) == 6
    assert sorted(ranks("", {})[1]) == IDS
