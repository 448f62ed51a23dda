"""How Serve's proxies choose a replica: by voice where they know it, else by load."""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from echo.cluster.affinity import in_order

PROMISE_S = 1.0  # longer than it takes to send a request to the replica that was chosen


class VoiceRouter(RequestRouter):
    """Tries the replicas in the order of the request's voice, which ``edge`` made its session.

    Others, WebSockets among them, go to the less busy of two drawn by lot. Serve passes over
    replicas that have ``max_ongoing_requests`` already.
    """

    _slack = 1.25

    def initialize_state(self, **kwargs: Any) -> None:
        """``slack``: see :func:`~echo.cluster.affinity.in_order`."""
        self._slack = float(kwargs["slack"])
        # Serve counts a request when it is sent. Of several that come at once all would see the
        # same counts, so those chosen for and not yet sent are kept: (replica, until when).
        self._promised: deque[tuple[str, float]] = deque()

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """In ranks, of which the first with a free replica is taken, and in it the least busy."""
        if pending_request is not None:
            pending_request.routing_context.should_backoff = True
        key = pending_request.metadata.session_id if pending_request is not None else ""
        if not key:
            drawn = random.sample(candidate_replicas, min(2, len(candidate_replicas)))
            return [drawn, candidate_replicas]
        by_id = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        order = in_order(key, list(by_id), self._loads(by_id), self._slack)
        self._promised.extend((name, time.monotonic() + PROMISE_S) for name in order[:1])
        return [[by_id[name]] for name in order]

    def on_send_request(self, replica_id: ReplicaID) -> None:
        """Serve's hook: from now on the request is in its count."""
        super().on_send_request(replica_id)
        kept = next((each for each in self._promised if each[0] == replica_id.unique_id), None)
        if kept is not None:
            self._promised.remove(kept)

    def _loads(self, by_id: dict[str, RunningReplica]) -> dict[str, int]:
        while self._promised and self._promised[0][1] < time.monotonic():
            self._promised.popleft()
        promised = Counter(name for name, _ in self._promised)
        cache = self.replica_queue_len_cache
        return {
            name: (cache.get(replica.replica_id) or 0) + promised[name]
            for name, replica in by_id.items()
        }
