"""How Serve's proxies choose a replica: by voice where they know it, else by load."""

from __future__ import annotations

import random
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from echo.cluster.affinity import in_order


class VoiceRouter(RequestRouter):
    """Tries the replicas in the order of the request's voice, which ``edge`` made its session.

    Others, WebSockets among them, go to the less busy of two drawn by lot. Serve passes over
    replicas that have ``max_ongoing_requests`` already.
    """

    _slack = 1.25

    def initialize_state(self, **kwargs: Any) -> None:
        """``slack``: see :func:`~echo.cluster.affinity.in_order`."""
        self._slack = float(kwargs["slack"])

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
        cache = self.replica_queue_len_cache
        loads = {name: cache.get(replica.replica_id) or 0 for name, replica in by_id.items()}
        return [[by_id[name]] for name in in_order(key, list(by_id), loads, self._slack)]
