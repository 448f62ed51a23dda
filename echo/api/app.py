"""The application: protocols, errors and limits around one engine."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from echo import __version__
from echo.api.access import ConcurrencyLimit, KeyCheck, Keys, OriginCheck
from echo.api.call import Observer
from echo.api.describe import DescribedApp
from echo.api.errors import install_error_handlers
from echo.api.health import health_router
from echo.api.inworld.router import inworld_router
from echo.api.metrics import Metrics, metrics_router
from echo.api.middleware import REQUEST_ID, BodyLimit, HeadAsGet, RequestEdge
from echo.api.models import models_router
from echo.api.openai import openai_router
from echo.api.reply import SAMPLE_RATE_HEADER, TIMING_HEADER
from echo.api.traces import Traces
from echo.api.voices import voices_router
from echo.api.watch import Watch
from echo.config import EchoConfig
from echo.engine import Engine

CLONE_OVERHEAD_BYTES = 65_536  # of a body that uploads a voice, beside the sample


def create_app(
    engine: Engine,
    config: EchoConfig,
    *,
    traces: Traces | None = None,
    observer: Observer | None = None,
) -> FastAPI:
    """An ASGI application over ``engine``, which stays the caller's to close.

    ``traces``: None: as ``config`` says. ``observer``: told of every call in place of ``/metrics``,
    which then is not offered.

    Raises ConfigError for wrong keys, and for traces without OpenTelemetry.
    """
    keys = Keys.of(config.server)
    app = DescribedApp(
        keyed=bool(keys),
        title="Echo",
        version=__version__,
        summary="Text to speech in a cloned voice, streamed",
    )
    install_error_handlers(app)
    _add_limits(app, config, keys)
    metrics = Metrics(engine) if config.server.metrics and observer is None else None
    if traces is None and config.server.traces:
        traces = Traces.from_environment()
    app.add_middleware(Watch, observer=observer or metrics, traces=traces)
    app.include_router(openai_router(engine))
    app.include_router(voices_router(engine))
    app.include_router(models_router())
    if config.inworld.clone_enabled:
        engine.clones.recover()
    if config.inworld.compat:
        app.include_router(inworld_router(engine))
    app.include_router(health_router(engine, app))
    if metrics is not None:
        app.include_router(metrics_router(metrics))
    return app


def _add_limits(app: FastAPI, whole: EchoConfig, keys: Keys) -> None:
    """What a request passes before its route; the last one added is the outermost."""
    config, inworld = whole.server, whole.inworld
    clone_bytes = inworld.max_sample_size * 4 // 3 + CLONE_OVERHEAD_BYTES  # in base64
    app.add_middleware(HeadAsGet)
    app.add_middleware(
        BodyLimit,
        max_bytes=config.max_body_bytes,
        timeout_s=config.body_timeout_seconds,
        clone_max_bytes=clone_bytes if inworld.clone_enabled else 0,
    )
    app.add_middleware(ConcurrencyLimit, config=config)
    app.add_middleware(KeyCheck, keys=keys, page_locked=whole.ui.password is not None)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=("GET", "POST", "PATCH", "DELETE"),
            allow_headers=("*",),
            expose_headers=(SAMPLE_RATE_HEADER, TIMING_HEADER, REQUEST_ID, "Retry-After"),
        )
    app.add_middleware(OriginCheck, config=config)
    app.add_middleware(RequestEdge)
