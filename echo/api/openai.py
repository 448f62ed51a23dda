"""OpenAI's protocol: ``POST /v1/audio/speech`` and the list of voices."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from echo.api.body import read_json
from echo.api.errors import ErrorBody
from echo.api.reply import SAMPLE_RATE_HEADER, SpeechReply
from echo.api.speech import SpeechBody, parse_speech
from echo.audio.encode import FORMATS
from echo.engine import Engine
from echo.voices.store import VoiceInfo


class VoiceMetadata(BaseModel):
    source: str = Field(description="The folder of voices it comes from.")
    type: str = Field(description="file, or folder for one whose clips are joined.")


class Voice(BaseModel):
    object: str = "voice"
    id: str = Field(description="What `voice` in a speech request names.")
    name: str
    metadata: VoiceMetadata


class VoiceList(BaseModel):
    object: str = "list"
    data: list[Voice]


def openai_router(engine: Engine) -> APIRouter:
    """The routes, over ``engine``."""
    router = APIRouter(prefix="/v1", tags=["speech"])

    @router.post(
        "/audio/speech",
        response_class=StreamingResponse,
        responses=_SPEECH_RESPONSES,
        openapi_extra=_SPEECH_BODY,
        summary="Speak a text",
    )
    async def create_speech(request: Request) -> SpeechReply:
        """Audio is sent as it is generated; with `stream: false`, as one file with exact sizes.

        A body with `stream` or a nested `extra_body` gets Echo's defaults (44.1 kHz pcm), any
        other gets OpenAI's (mp3; pcm at 24 kHz; wav as one file).
        """
        order = parse_speech(await read_json(request))
        return SpeechReply(engine, order.request, order.output)

    @router.get("/voices", summary="List the voices")
    def list_voices() -> VoiceList:
        return VoiceList(data=[_voice(info) for info in engine.voices.list()])

    return router


def _voice(info: VoiceInfo) -> Voice:
    metadata = VoiceMetadata(source=info.source, type=info.type)
    return Voice(id=info.id, name=info.name, metadata=metadata)


_SPEECH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SpeechBody.model_json_schema()}},
    }
}
_ERRORS = {
    400: "An impossible request; `param` names the field.",
    413: "A body over `server.max_body_bytes`.",
    415: "A body that is not JSON.",
    429: "The queue is full; see `Retry-After`.",
    500: "The generation failed.",
}
_SPEECH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio.",
        "content": {
            fmt.media_type.format(rate=44_100): {"schema": {"type": "string", "format": "binary"}}
            for fmt in FORMATS.values()
        },
        "headers": {
            SAMPLE_RATE_HEADER: {"description": "Hz", "schema": {"type": "integer"}},
        },
    },
    **{status: {"model": ErrorBody, "description": text} for status, text in _ERRORS.items()},
}
