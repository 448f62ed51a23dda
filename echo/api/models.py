"""The models of OpenAI's protocol: one, under its own name and those that clients have built in."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from echo.api.errors import ErrorBody, ModelNotFoundError

OWN_NAME = "echo-tts"
NAMES = (OWN_NAME, "tts-1", "tts-1-hd", "gpt-4o-mini-tts")

_NOT_FOUND: dict[int | str, dict[str, Any]] = {
    404: {"model": ErrorBody, "description": "No such model."}
}


class Model(BaseModel):
    id: str
    object: str = "model"
    created: int = Field(description="Start of the server, in seconds since 1970.")
    owned_by: str = OWN_NAME


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


def models_router() -> APIRouter:
    """``/v1/models``: for clients that want to choose one. Speech requests may name any."""
    router = APIRouter(prefix="/v1/models", tags=["speech"])
    created = int(time.time())

    @router.get("", summary="List the models")
    async def list_models() -> ModelList:
        """All names stand for the one model that the server has loaded."""
        return ModelList(data=[Model(id=name, created=created) for name in NAMES])

    @router.get("/{model_id:path}", summary="One model", responses=_NOT_FOUND)
    async def get_model(model_id: str) -> Model:
        if model_id not in NAMES:
            raise ModelNotFoundError(
                f"no model {model_id[:100]!r}; there are {', '.join(NAMES)}", param="model"
            )
        return Model(id=model_id, created=created)

    return router
