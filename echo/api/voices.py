"""Voices in OpenAI's protocol: both shapes of the list, and upload and deletion of own ones."""

from __future__ import annotations

import time
from typing import Any, Literal

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from echo.api.describe import CHANGING, READING, WITH_BODY, openai_errors
from echo.api.errors import CloneNotFoundError, CloningDisabledError
from echo.api.form import Form, read_form
from echo.engine import Engine
from echo.errors import InvalidRequestError
from echo.voices.clone_names import MAX_NAME_CHARS, SEPARATOR, VoiceDetails
from echo.voices.clones import ClonedVoice
from echo.voices.store import VoiceInfo

MAX_SAMPLE_BYTES = 10 * 1024 * 1024

_VOICE_ID = Path(
    description="`workspace__name`, percent-encoded.",
    examples=["default__Anna"],
    json_schema_extra={"maxLength": 2 * MAX_NAME_CHARS + len(SEPARATOR)},  # a longer one: 404
)


class VoiceMetadata(BaseModel):
    source: str = Field(
        description="The folder of voices it comes from.", examples=["audio_prompts"]
    )
    type: Literal["file", "folder"] = Field(
        description="file, or folder for one whose clips are joined.", examples=["file"]
    )


class Voice(BaseModel):
    object: str = "voice"
    id: str = Field(description="What `voice` in a speech request names.", examples=["anna"])
    name: str = Field(examples=["anna"])
    metadata: VoiceMetadata


class VoiceList(BaseModel):
    object: str = "list"
    data: list[Voice]


class NamedVoice(BaseModel):
    id: str = Field(examples=["anna"])
    name: str = Field(examples=["anna"])


class NamedVoices(BaseModel):
    voices: list[NamedVoice]


class NewVoice(BaseModel):
    object: str = "audio.voice"
    id: str = Field(
        description="What `voice` in a speech request names.", examples=["default__Anna"]
    )
    name: str = Field(examples=["Anna"])
    created_at: int = Field(description="Seconds since 1970.", examples=[1_790_000_000])


class DeletedVoice(BaseModel):
    object: str = "audio.voice.deleted"
    id: str = Field(examples=["default__Anna"])
    deleted: bool = True


def voices_router(engine: Engine) -> APIRouter:
    """``/v1/voices`` and ``/v1/audio/voices`` over the voices of ``engine``."""
    router = APIRouter(prefix="/v1", tags=["voices"])

    @router.get("/voices", summary="List the voices", responses=openai_errors(*READING))
    def list_voices() -> VoiceList:
        """Files and folders of the voice folders, and made voices."""
        return VoiceList(data=[_voice(info) for info in engine.voices.list()])

    @router.get(
        "/audio/voices", summary="List the voices, in short", responses=openai_errors(*READING)
    )
    def list_names() -> NamedVoices:
        """The shape that Open WebUI reads."""
        found = [NamedVoice(id=info.id, name=info.name) for info in engine.voices.list()]
        return NamedVoices(voices=found)

    @router.post(
        "/audio/voices",
        summary="Make a voice of a recording",
        openapi_extra=_UPLOAD,
        responses=openai_errors(*WITH_BODY, 409),
    )
    async def create_voice(request: Request) -> NewVoice:
        """Only where `inworld.clone_enabled` is on, and with the speaker's consent."""
        _check_enabled(engine)
        limit = min(MAX_SAMPLE_BYTES, engine.config.inworld.max_sample_size)
        form = await read_form(request, max_bytes=limit)
        voice = await run_in_threadpool(_create, engine, form, limit)
        return NewVoice(id=voice.id, name=voice.name, created_at=int(time.time()))

    @router.delete(
        "/audio/voices/{voice_id}",
        summary="Delete a made voice",
        responses=openai_errors(*CHANGING, 404),
    )
    def delete_voice(voice_id: str = _VOICE_ID) -> DeletedVoice:
        """Only voices that were made by upload; by id, or by name in the default workspace."""
        _check_enabled(engine)
        workspace = engine.config.inworld.default_workspace
        voice = engine.clones.by_id(voice_id) or engine.clones.get(workspace, voice_id)
        if voice is None:
            raise CloneNotFoundError(
                f"no uploaded voice {voice_id[:100]!r}; only such can be deleted", param="voice_id"
            )
        engine.clones.delete(voice)
        return DeletedVoice(id=voice.id)

    return router


def _check_enabled(engine: Engine) -> None:
    if not engine.config.inworld.clone_enabled:
        raise CloningDisabledError(
            "making and deleting voices is turned off; start the server with "
            "inworld.clone_enabled=true or ECHO_INWORLD_CLONE_ENABLED=1"
        )


def _create(engine: Engine, form: Form, max_bytes: int) -> ClonedVoice:
    name, sample = form.fields.get("name"), form.files.get("audio_sample")
    if name is None:
        raise InvalidRequestError("name is missing", param="name")
    if sample is None:
        raise InvalidRequestError(
            "audio_sample is missing; send it as a file", param="audio_sample"
        )
    try:
        return engine.clones.create(
            engine.config.inworld.default_workspace,
            name,
            [sample],
            VoiceDetails(display_name=name),
            max_bytes=max_bytes,
            param="audio_sample",
        )
    except InvalidRequestError as error:
        if error.param == "displayName":  # this protocol's word for it
            error.param = "name"
            error.message = error.message.replace("displayName", "name")
        raise


def _voice(info: VoiceInfo) -> Voice:
    metadata = VoiceMetadata(source=info.source, type=info.type)
    return Voice(id=info.id, name=info.name, metadata=metadata)


_UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["name", "audio_sample"],
                    "properties": {
                        "name": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": MAX_NAME_CHARS,
                            "description": "Letters, digits, `_`, `-` and spaces.",
                            "examples": ["Anna"],
                        },
                        "audio_sample": {
                            "type": "string",
                            "format": "binary",
                            "description": "A recording, at most 10 MiB: WAV, MP3, FLAC, M4A, OGG.",
                        },
                    },
                }
            }
        },
    }
}
