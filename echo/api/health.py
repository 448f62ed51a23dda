"""Is the server there, what is it, how busy is it."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from echo import __version__
from echo.engine import Engine


class Health(BaseModel):
    status: str = "ok"
    version: str = __version__
    model: str
    device: str
    sample_rate: int = Field(description="Hz, of the model.")
    active: int = Field(description="Requests being generated.")
    queued: int = Field(description="Requests waiting.")


class Ready(BaseModel):
    status: str = "ready"


class Welcome(BaseModel):
    name: str = "echo-tts"
    version: str = __version__
    endpoints: list[str]


def health_router(engine: Engine, app: FastAPI) -> APIRouter:
    """``/health`` over ``engine``, and ``/`` with what ``app`` offers."""
    router = APIRouter(tags=["server"])

    @router.get("/health", summary="State of the server")
    async def health() -> Health:
        stats = engine.stats()
        return Health(
            model=engine.config.model.name,
            device=str(engine.components.model.device),
            sample_rate=engine.sample_rate,
            active=stats["active"],
            queued=stats["queued"],
        )

    @router.get("/ready", summary="Whether speech can be asked for")
    async def ready() -> Ready:
        """The port opens when the model is loaded and warmed up, so whoever reads this can go on;
        refused connections mean not yet.
        """
        return Ready()

    @router.get("/", summary="What this server offers")
    async def welcome() -> Welcome:
        return Welcome(endpoints=_endpoints(app))

    return router


def _endpoints(app: FastAPI) -> list[str]:
    """``METHOD /path`` of every documented route, and where the documentation is."""
    paths = app.openapi()["paths"]
    listed = [f"{method.upper()} {path}" for path, item in paths.items() for method in item]
    return [*listed, f"GET {app.docs_url}"]
