"""The body of ``POST /v1/audio/speech``: its fields, and which defaults it gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from echo.api.audio import Output, preferred_format
from echo.api.errors import validation_error
from echo.audio.encode import FORMATS, MAX_RATE, MIN_RATE, get_format
from echo.audio.tempo import MAX_SPEED, MIN_SPEED
from echo.config.help import HELP
from echo.engine import SpeechRequest
from echo.engine.request import MAX_SEED, OVERRIDES, override_schemas
from echo.errors import InvalidRequestError
from echo.spec import SAMPLE_RATE

OPENAI_PCM_RATE = 24_000  # Hz; clients of OpenAI's API have it built in


def _voice_name(value: object) -> object:
    """The name in ``{"id": name}``."""
    if isinstance(value, dict):
        value = value.get("id", 0)
        value = 0 if value is None else value  # an object must name one
    if value is not None and not isinstance(value, str):
        raise ValueError('must be a name, base64 audio, or {"id": name}')
    return value


_VOICE_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        {"type": "null"},
    ]
}
_SEED_SCHEMA = {"type": ["integer", "null"], "minimum": -1, "maximum": MAX_SEED}
_EXTRA_SCHEMA = {
    "anyOf": [
        {
            "type": "object",
            "properties": {
                key: {**schema, "description": HELP[key]}
                for key, schema in override_schemas().items()
            },
            "additionalProperties": True,
        },
        {"type": "null"},
    ]
}

_Voice = Annotated[str | None, BeforeValidator(_voice_name), WithJsonSchema(_VOICE_SCHEMA)]
_Seed = Annotated[Any, WithJsonSchema(_SEED_SCHEMA)]
_Extra = Annotated[dict[str, Any] | None, WithJsonSchema(_EXTRA_SCHEMA)]


class SpeechBody(BaseModel):
    """The fields of a request. Unknown ones are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)

    input: str = Field(
        json_schema_extra={"minLength": 1},  # the engine refuses less, in plainer words
        description=HELP["input"],
        examples=["Hello, this is Echo."],
    )
    voice: _Voice = Field(None, description=HELP["voice"])
    model: Any = Field(
        None, examples=["tts-1"], description="Accepted and ignored: a server has one model."
    )
    response_format: str | None = Field(
        None,
        description="Default: Echo's pcm when streaming, else mp3; OpenAI's mp3.",
        json_schema_extra={"enum": [*FORMATS, None]},
    )
    stream: bool | None = Field(
        None, description="Default true. false: one file with exact sizes, at the end."
    )
    stream_format: Literal["audio", "sse"] | None = Field(
        None,
        description="sse: server-sent events `speech.audio.delta` with base64 audio, which joined "
        "is the file of `response_format`, then `speech.audio.done` with the usage: bytes of "
        "text in, latents of 46.4 ms out. Default audio.",
    )
    sample_rate: int | None = Field(
        None,
        ge=MIN_RATE,
        le=MAX_RATE,
        description="Hz, rounded up to what the format takes. Default: 44100 (OpenAI's pcm: "
        "24000). The header X-Audio-Sample-Rate says what it is.",
    )
    speed: float | None = Field(
        None, ge=MIN_SPEED, le=MAX_SPEED, description="Tempo at the same pitch. Default 1."
    )
    instructions: str | None = Field(
        None, max_length=4096, description="Accepted and ignored: styles go into the text."
    )
    seed: _Seed = Field(None, description=HELP["seed"])
    extra_body: _Extra = Field(
        None,
        description="Any of these fields, and the settings of a generation below. They count at "
        "the top level, too; what is given here wins.",
    )


@dataclass(frozen=True)
class SpeechOrder:
    """What to speak and how to send it."""

    request: SpeechRequest
    output: Output
    as_events: bool


def parse_speech(body: Mapping[str, Any]) -> SpeechOrder:
    """An order from a request's JSON object.

    Raises InvalidRequestError; ``param`` is the field at fault. The engine checks text, voice,
    seed and settings.
    """
    nested = body.get("extra_body")
    if nested is not None and not isinstance(nested, dict):
        raise InvalidRequestError("extra_body must be an object", param="extra_body")
    merged = {**body, **(nested or {}), "extra_body": None}
    try:
        fields = SpeechBody.model_validate(merged)
    except ValidationError as error:
        raise validation_error(error.errors()[0]) from None
    request = SpeechRequest(
        text=fields.input,
        voice=fields.voice,
        seed=fields.seed,
        streaming=fields.stream is not False,
        overrides={key: merged[key] for key in OVERRIDES if key in merged},
    )
    # No client of OpenAI's API sends either of the two.
    echo_defaults = nested is not None or body.get("stream") is not None
    output = _output(fields, echo_defaults=echo_defaults)
    return SpeechOrder(request, output, as_events=fields.stream_format == "sse")


def _output(fields: SpeechBody, *, echo_defaults: bool) -> Output:
    if fields.response_format is not None:
        fmt = get_format(fields.response_format, param="response_format")
    elif echo_defaults and fields.stream is not False:
        fmt = get_format("pcm")
    else:
        fmt = preferred_format()
    complete = not fmt.streams if fields.stream is None else not fields.stream
    rate = OPENAI_PCM_RATE if fmt.name == "pcm" and not echo_defaults else SAMPLE_RATE
    wanted = rate if fields.sample_rate is None else fields.sample_rate
    speed = 1.0 if fields.speed is None else fields.speed
    return Output(fmt, fmt.rate_for(wanted), complete, speed)
