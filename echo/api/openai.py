"""OpenAI's protocol: ``POST /v1/audio/speech``."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from echo.api import events
from echo.api.body import read_json
from echo.api.describe import WITH_BODY, Responses, json_body, openai_errors
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
        other gets OpenAI's (mp3; pcm at 24 kHz).
        """
        order = parse_speech(await read_json(request))
        return SpeechReply(engine, order.request, order.output, as_events=order.as_events)

    return router


_SPEECH_BODY = json_body(
    SpeechBody,
    {
        "OpenAI's defaults": {
            "model": "tts-1",
            "input": "Hello, this is Echo.",
            "voice": "alloy",
            "response_format": "wav",
        },
        "Echo's defaults": {
            "input": "[S1] Hello. [S2] (laughs) Hello, you.",
            "voice": "alloy",
            "stream": True,
            "extra_body": {"seed": 7, "cfg_scale_text": 3.0},
        },
        "Events": {"input": "Hello.", "stream_format": "sse", "response_format": "pcm"},
    },
)
_EVENTS = """data: {"type":"speech.audio.delta","audio":"SUQzBAAAAAAAI1RTU0UAAAAPAAADTGF2"}

data: {"type":"speech.audio.done","usage":{"input_tokens":25,"output_tokens":40,"total_tokens":65}}

"""
_AUDIO = {"schema": {"type": "string", "format": "binary"}}
_SPEECH_RESPONSES: Responses = {
    200: {
        "description": "The audio. `audio/pcm` has parameters: `audio/pcm;rate=44100;channels=1` "
        "is 16-bit little-endian mono.",
        "content": {
            **{fmt.media_type.partition(";")[0]: _AUDIO for fmt in FORMATS.values()},
            events.MEDIA_TYPE: {"example": _EVENTS},  # a schema would be of one event
        },
        "headers": {
            SAMPLE_RATE_HEADER: {"description": "Hz", "schema": {"type": "integer"}},
            TIMING_HEADER: {
                "description": "Milliseconds in the queue, for the voice, to the first audio.",
                "schema": {"type": "string"},
            },
        },
    },
    **openai_errors(*WITH_BODY, 503),
}
