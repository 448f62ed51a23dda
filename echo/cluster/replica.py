"""One engine and the application over it, in an actor of Serve's."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ray import serve
from ray.util.metrics import Gauge
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.api.logs import configure_logging
from echo.cluster.edge import REPLICA
from echo.cluster.metrics import Exporter
from echo.config import EchoConfig

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)


class Replica:
    """What Serve makes on a node. The engine is loaded and warm before requests come."""

    def __init__(self, config: EchoConfig) -> None:
        self._closing = ExitStack()  # first: what could not be made is deleted, too
        from echo.engine import Engine  # torch: whoever only deploys needs none

        configure_logging(debug=config.engine.debug, format=config.server.log_format)
        self._context = serve.get_replica_context()
        self._config = config_of_replica(config)
        self._engine = self._closing.enter_context(Engine.from_config(self._config))
        self._engine.warm_up()
        log.info("replica %s is ready", self._context.replica_id.unique_id)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve's hook, called once: the same application as in a single server."""
        from echo.api.app import create_app
        from echo.api.metrics import Metrics

        metrics = None
        if self._config.server.metrics:
            metrics = Metrics(self._engine)
            tags = {
                "application": self._context.app_name,
                "deployment": self._context.deployment,
                "replica": self._context.replica_id.unique_id,
            }
            exporter = Exporter(metrics.collect, tags, Gauge)
            exporter.start()
            self._closing.callback(exporter.close)
        off = replace(self._config.server, metrics=False)
        app = create_app(self._engine, replace(self._config, server=off), observer=metrics)
        app.add_middleware(_Signed, replica=self._context.replica_id.unique_id)
        return app

    def check_health(self) -> None:
        """Serve's hook: a replica that raises here is replaced."""
        self._engine.check()

    def __del__(self) -> None:
        """Serve calls this after the last stream has ended."""
        self._closing.close()


def config_of_replica(config: EchoConfig) -> EchoConfig:
    """Its threads are the cores it was given, not all of the machine."""
    if config.engine.cpu_threads is not None:
        return config
    threads = max(1, int(config.cluster.cpus_per_replica))
    return replace(config, engine=replace(config.engine, cpu_threads=threads))


class _Signed:
    """Says in every answer which replica gave it."""

    def __init__(self, app: ASGIApp, replica: str) -> None:
        self._app = app
        self._replica = replica

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.accept"):
                MutableHeaders(scope=message)[REPLICA] = self._replica
            await send(message)

        await self._app(scope, receive, signed)
