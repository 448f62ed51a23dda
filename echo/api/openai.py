"""OpenAI's protocol: ``POST /v1/audio/speech``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from echo.api import events
from echo.api.body import read_json
from echo.api.errors import ErrorBody
from echo.api.reply import SAMPLE_RATE_HEADER, TIMING_HEADER, SpeechReply
from echo.api.speech import SpeechBody, parse_speech
from echo.audio.encode import FORMATS
from echo.engine import Engine


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
        """Audio is sent as it is generated; with `stream: false`, as one file with exact sizes;
        with `stream_format: "sse"`, in server-sent events.

        A body with `stream` or a nested `extra_body` gets Echo's defaults (44.1 kHz pcm), any
        other gets OpenAI's (mp3; pcm at 24 kHz; wav as one file).
        """
        order = parse_speech(await read_json(request))
        return SpeechReply(engine, order.request, order.output, as_events=order.as_events)

    return router


_SPEECH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": SpeechBody.model_json_schema()}},
    }
}
_ERRORS = {
    400: "An impossible request; `param` names the field.",
    401: "No right key, where the server has some.",
    403: "A Host or Origin that is not allowed.",
    408: "The body stopped arriving.",
    413: "A body over `server.max_body_bytes`.",
    415: "A body that is not JSON.",
    429: "Too much at once; see `Retry-After`.",
    500: "The generation failed.",
}
_SPEECH_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The audio.",
        "content": {
            fmt.media_type.format(rate=44_100): {"schema": {"type": "string", "format": "binary"}}
            for fmt in FORMATS.values()
        }
        | {events.MEDIA_TYPE: {"schema": {"type": "string"}}},
        "headers": {
            SAMPLE_RATE_HEADER: {"description": "Hz", "schema": {"type": "integer"}},
            TIMING_HEADER: {
                "description": "Milliseconds in the queue, for the voice, to the first audio.",
                "schema": {"type": "string"},
            },
        },
    },
    **{status: {"model": ErrorBody, "description": text} for status, text in _ERRORS.items()},
}
