"""The bodies of requests: camelCase or snake_case at every level, unknown keys ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from echo.api.errors import validation_error
from echo.api.inworld.audio import (
    ENCODINGS,
    MAX_RATE,
    MAX_SPEED,
    MIN_RATE,
    MIN_SPEED,
    AudioConfig,
    audio_config,
)
from echo.errors import InvalidRequestError, LimitExceededError

MAX_TEXT_CHARS = 2_000
UNSPECIFIED = "UNSPECIFIED"  # how the names of a proto enum's default end
TIMESTAMP_TYPES = ("WORD", "CHARACTER")

_SNAKE = re.compile(r"_+([a-zA-Z0-9])")
_BITS = ("bitrate", "bit_rate")  # older clients

M = TypeVar("M", bound=BaseModel)


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


def _whole(value: object) -> object:
    """24000.0 is a whole number, too: JavaScript knows no other."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Int = Annotated[int | None, BeforeValidator(_whole)]


class AudioConfigBody(Body):
    audioEncoding: str | None = Field(  # noqa: N815 - the protocol's names
        None, description="Default MP3.", json_schema_extra={"enum": [*ENCODINGS, None]}
    )
    sampleRateHertz: _Int = Field(  # noqa: N815
        None,
        ge=MIN_RATE,
        le=MAX_RATE,
        description="Default 48000, of ALAW and MULAW 8000. Rounded up to what the codec takes.",
    )
    bitRate: _Int = Field(  # noqa: N815
        None, ge=1, le=10_000_000, description="Bits per second, of MP3 and OGG_OPUS."
    )
    speakingRate: float | None = Field(  # noqa: N815
        None, ge=MIN_SPEED, le=MAX_SPEED, description="Tempo at the same pitch. Default 1."
    )


class SpeechSettings(Body):
    """What a request and a WebSocket's context have in common."""

    voiceId: str = Field(min_length=1, description="A voice's id.")  # noqa: N815
    modelId: str | None = Field(  # noqa: N815
        None,
        max_length=200,
        description="Accepted and told back.",  # with every part
    )
    audioConfig: AudioConfigBody | None = Field(None, description="Default MP3.")  # noqa: N815
    timestampType: str | None = Field(  # noqa: N815
        None,
        examples=list(TIMESTAMP_TYPES),
        description="WORD or CHARACTER: approximate times, spread over the speech that a voice "
        "activity detector finds.",
    )
    timestampTransportStrategy: str | None = Field(  # noqa: N815
        None,
        examples=["SYNC", "ASYNC"],
        description="SYNC: each part of a stream tells of its own words, by their estimated "
        "length. ASYNC: a line after the audio of a chunk tells of all its words.",
    )


class SpeechBody(SpeechSettings):
    text: str = Field(
        max_length=MAX_TEXT_CHARS,
        description='The text. `<break time="1s"/>` is a pause; other markup is dropped.',
        examples=["Hello, this is Echo."],
    )


@dataclass(frozen=True)
class Delivery:
    """How to speak: the checked settings of a request or of a context."""

    voice: str
    model_id: str
    audio: AudioConfig
    timestamps: str | None  # one of TIMESTAMP_TYPES
    sync: bool


def camelised(value: Any) -> Any:
    """``value`` with its keys in camelCase; one that is given both ways counts as written so."""
    if isinstance(value, list):
        return [camelised(item) for item in value]
    if not isinstance(value, dict):
        return value
    renamed = {_camel(key): camelised(item) for key, item in value.items()}
    return renamed | {key: camelised(value[key]) for key in value if _camel(key) == key}


def validated(model: type[M], body: Mapping[str, Any]) -> M:
    """``body``, already :func:`camelised`. Raises InvalidRequestError naming the field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise validation_error(error.errors()[0]) from None


def delivery(fields: SpeechSettings, default_model: str) -> Delivery:
    """The settings in ``fields``; the engine checks the voice. Raises InvalidRequestError."""
    audio = fields.audioConfig or AudioConfigBody()  # type: ignore[call-arg]
    encoding = _enum(audio.audioEncoding, "audioEncoding", tuple(ENCODINGS)) or "MP3"
    speed = 1.0 if audio.speakingRate is None else audio.speakingRate
    return Delivery(
        voice=fields.voiceId,
        model_id=fields.modelId or default_model,
        audio=audio_config(encoding, audio.sampleRateHertz, speed, audio.bitRate),
        timestamps=_enum(fields.timestampType, "timestampType", TIMESTAMP_TYPES),
        sync=_enum(
            fields.timestampTransportStrategy, "timestampTransportStrategy", ("SYNC", "ASYNC")
        )
        != "ASYNC",
    )


def check_length(text: str, limit: int) -> None:
    """Raise LimitExceededError for more than ``limit`` characters."""
    if len(text) > limit:
        message = f"text has {len(text)} characters; at most {limit} are taken, send it in parts"
        raise LimitExceededError(message, param="text")


def _camel(key: str) -> str:
    if key in _BITS:
        return "bitRate"
    return _SNAKE.sub(lambda match: match[1].upper(), key) if not key.startswith("_") else key


def _enum(value: str | None, name: str, choices: tuple[str, ...]) -> str | None:
    """None where the client left the choice to us."""
    upper = (value or "").upper()
    if not upper or upper.endswith(UNSPECIFIED):
        return None
    if upper not in choices:
        message = f"{name} is {upper[:40]!r}; choose one of {', '.join(choices)}"
        raise InvalidRequestError(message, param=name)
    return upper
