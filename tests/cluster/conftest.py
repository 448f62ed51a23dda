"""Two replicas of the shipped model on a Ray of their own, on loopback, gone after the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from echo.cluster.server import LOOPBACK_ONLY
from echo.config import EchoConfig, compose

os.environ.setdefault(LOOPBACK_ONLY, "0")  # Ray, which tests here import, reads it when it is

ROOT = Path(__file__).parents[2]
READY_S = 120.0
KEY = {"authorization": "Bearer sesame"}


@dataclass
class Cluster:
    """A running one and a client that is connected to it."""

    url: str
    client: httpx.Client
    config: Callable[..., EchoConfig]

    def speak(self, **body: object) -> httpx.Response:
        return self.client.post("/v1/audio/speech", json={"seed": 7, **body})

    def stream(self, **body: object):
        fields = {"stream": True, "seed": 7, **body}
        return self.client.stream("POST", "/v1/audio/speech", json=fields)

    def replicas(self) -> set[str]:
        """Ids of those that run, drained ones among them until they are gone."""
        from ray.util import list_named_actors

        names = [actor["name"] for actor in list_named_actors(all_namespaces=True)]
        return {n.rpartition("#")[2] for n in names if n.startswith("SERVE_REPLICA::echo#Echo#")}

    def kill(self, replica: str) -> None:
        import ray

        name = f"SERVE_REPLICA::echo#Echo#{replica}"
        ray.kill(ray.get_actor(name, namespace="serve"), no_restart=True)

    def socket(self, **headers: str) -> ClientConnection:
        """A WebSocket to Inworld's protocol."""
        address = f"{self.url.replace('http', 'ws')}/tts/v1/voice:streamBidirectional"
        return connect(address, additional_headers=headers)

    def settle(self) -> None:
        """Until no replica works on anything."""
        idle: set[str] = set()
        end = time.monotonic() + READY_S
        while idle < self.replicas():
            assert time.monotonic() < end
            answer = self.client.get("/health")
            name, busy = answer.headers["x-echo-replica"], answer.json()["active"]
            idle = idle - {name} if busy else idle | {name}
            time.sleep(0.02)

    def wait_for(self, count: int) -> set[str]:
        """Until so many replicas answer; their ids."""
        seen: Counter[str] = Counter()
        end = time.monotonic() + READY_S
        while len([name for name in seen if seen[name] > 1]) < count:
            assert time.monotonic() < end, seen
            answer = self.client.get("/health")
            seen[answer.headers.get("x-echo-replica", "none")] += answer.status_code == 200
            time.sleep(0.05)
        return set(seen) - {"none"}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray.serve", reason="needs the extra cluster")
    from echo.cluster.server import deployed

    # Short: Ray makes sockets in it, whose paths may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))

    def config(*overrides: str) -> EchoConfig:
        return compose(
            [
                "cluster=ray",
                "cluster.replicas=2",
                "cluster.cpus_per_replica=0.5",
                "cluster.gpus_per_replica=0",
                "cluster.drain_seconds=600",
                "cluster.address=null",
                "model=tiny",
                "model.device=cpu",
                "model.codec_device=cpu",
                "engine.max_load=null",
                "inworld.clone_enabled=true",
                "server.host=127.0.0.1",
                "server.port=0",
                "server.metrics=true",
                "server.api_keys=sesame",
                f"voices.roots=[{ROOT / 'audio_prompts'}]",
                f"voices.clone_root={folder / 'clones'}",
                f"voices.shared={folder / 'shared'}",
                f"voices.shared_cache={folder / 'copies'}",
                "voices.shared_poll_seconds=0.5",
                *overrides,
            ]
        )

    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ECHO_", "RAY_")):
                patch.delenv(name)
        patch.setenv("PYTHONPATH", str(ROOT))  # for Ray's own processes
        patch.setenv("RAY_TMPDIR", str(folder))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        patch.setenv("RAY_worker_register_timeout_seconds", "300")  # of a busy machine
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")
        patch.setenv("OMP_NUM_THREADS", "1")
        try:
            with (
                deployed(config()) as url,
                httpx.Client(base_url=url, timeout=120, headers=KEY) as client,
            ):
                yield Cluster(url, client, config)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
