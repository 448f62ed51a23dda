"""The models of OpenAI's protocol: one, under its own name and those that clients have built in."""

from __future__ import annotations

import time

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from echo.api.describe import READING, openai_errors
from echo.api.errors import ModelNotFoundError

OWN_NAME = "echo-tts"
NAMES = (OWN_NAME, "tts-1", "tts-1-hd", "gpt-4o-mini-tts")

_MODEL_ID = Path(
    description="A name that `/v1/models` lists.",
    examples=[OWN_NAME],
    json_schema_extra={"maxLength": 100},  # a longer one: 404
)


class Model(BaseModel):
    id: str = Field(examples=[OWN_NAME])
    object: str = "model"
    created: int = Field(
        description="Start of the server, in seconds since 1970.", examples=[1_790_000_000]
    )
    owned_by: str = OWN_NAME


class ModelList(BaseModel):
    object: str = "list"
    data: list[Model]


class SpeechModel(BaseModel):
    id: str = Field(examples=[OWN_NAME])


class SpeechModelList(BaseModel):
    models: list[SpeechModel]


def models_router() -> APIRouter:
    """``/v1/models``: for clients that want to choose one. Speech requests may name any."""
    router = APIRouter(prefix="/v1", tags=["speech"])
    created = int(time.time())

    @router.get(
        "/audio/models", summary="List the models, in short", responses=openai_errors(*READING)
    )
    async def list_speech_models() -> SpeechModelList:
        """The same names in the shape that Open WebUI asks for."""
        return SpeechModelList(models=[SpeechModel(id=name) for name in NAMES])

    @router.get("/models", summary="List the models", responses=openai_errors(*READING))
    async def list_models() -> ModelList:
        """All names stand for the one model that the server has loaded."""
        return ModelList(data=[Model(id=name, created=created) for name in NAMES])

    @router.get(
        "/models/{model_id:path}", summary="One model", responses=openai_errors(*READING, 404)
    )
    async def get_model(model_id: str = _MODEL_ID) -> Model:
        """One of the names of the model."""
        if model_id not in NAMES:
            raise ModelNotFoundError(
                f"no model {model_id[:100]!r}; there are {', '.join(NAMES)}", param="model"
            )
        return Model(id=model_id, created=created)

    return router
