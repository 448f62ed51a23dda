"""The application: protocols, errors and limits around one engine."""

from __future__ import annotations

from fastapi import FastAPI

from echo import __version__
from echo.api.errors import install_error_handlers
from echo.api.health import health_router
from echo.api.middleware import BodyLimit, RequestEdge
from echo.api.openai import openai_router
from echo.config import EchoConfig
from echo.engine import Engine


def create_app(engine: Engine, config: EchoConfig) -> FastAPI:
    """An ASGI application over ``engine``, which stays the caller's to close."""
    app = FastAPI(
        title="Echo",
        version=__version__,
        summary="Text to speech in a cloned voice, streamed",
    )
    install_error_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, max_bytes=config.server.max_body_bytes)
    app.add_middleware(RequestEdge)
    app.include_router(openai_router(engine))
    app.include_router(health_router(engine, app))
    return app
