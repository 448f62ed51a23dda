"""Is the server there, what is it, how busy is it."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field
from starlette.routing import Mount

from echo import __version__
from echo.api.describe import openai_errors
from echo.engine import Engine
from echo.spec import SAMPLE_RATE


class Health(BaseModel):
    status: str = "ok"
    version: str = __version__
    model: str = Field(examples=["tiny"])
    device: str = Field(examples=["cpu"])
    weights: Literal["loaded", "loading", "unloaded"] = Field(
        description="unloaded: they left memory, as nobody asked; the next request loads them.",
        examples=["loaded"],
    )
    sample_rate: int = Field(description="Hz, of the model.", examples=[SAMPLE_RATE])
    active: int = Field(ge=0, description="Requests being generated.", examples=[1])
    queued: int = Field(ge=0, description="Requests waiting.", examples=[0])


class Ready(BaseModel):
    status: str = "ready"


class Welcome(BaseModel):
    name: str = "echo-tts"
    version: str = __version__
    endpoints: list[str] = Field(examples=[["POST /v1/audio/speech", "GET /docs"]])


def health_router(engine: Engine, app: FastAPI) -> APIRouter:
    """``/health`` over ``engine``, and ``/`` with what ``app`` offers."""
    router = APIRouter(tags=["server"], responses=openai_errors(403, 500))

    @router.get("/health", summary="State of the server")
    async def health() -> Health:
        """Answers while the server lives, however busy it is; an error where it has to be
        started again.
        """
        engine.check()
        stats = engine.stats()
        return Health(
            model=engine.config.model.name,
            device=str(engine.device),
            weights=stats["weights"]["state"],
            sample_rate=engine.sample_rate,
            active=stats["active"],
            queued=stats["queued"],
        )

    @router.get("/ready", summary="Whether speech can be asked for")
    async def ready() -> Ready:
        """The port opens when the model is loaded and warmed up, so whoever reads this can go on;
        refused connections mean not yet, an error that no speech can be expected any more.
        """
        engine.check()
        return Ready()

    @router.get("/", summary="What this server offers")
    async def welcome() -> Welcome:
        """Its endpoints, and where they are described."""
        return Welcome(endpoints=_endpoints(app))

    return router


def _endpoints(app: FastAPI) -> list[str]:
    """``METHOD /path`` of every documented route, and where page and documentation are."""
    paths = app.openapi()["paths"]
    listed = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    pages = [f"GET {route.path}" for route in app.routes if isinstance(route, Mount)]
    return [*listed, *pages, f"GET {app.docs_url}"]
