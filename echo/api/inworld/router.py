"""The routes of Inworld's protocol, in both styles of its URLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Path, Query, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from echo.api.body import read_json
from echo.api.describe import CHANGING, READING, WITH_BODY, inworld_errors, json_body, json_reply
from echo.api.inworld import shapes, voices
from echo.api.inworld.body import SpeechBody, camelised, delivery, validated
from echo.api.inworld.reply import InworldReply
from echo.api.inworld.socket import Connection
from echo.api.inworld.timestamps import SpeechFinder
from echo.engine import Engine
from echo.voices.clone_names import MAX_NAME_CHARS, SEPARATOR

FLAT = "/voices/v1/voices"
IN_WORKSPACE = "/voices/v1/workspaces/{workspace}/voices"

_WORKSPACE = Path(examples=["default"], max_length=MAX_NAME_CHARS)
_VOICE_ID = Path(
    description="Percent-encoded: a voice's id, or a clone's name in its workspace.",
    examples=["anna"],
    json_schema_extra={"maxLength": 2 * MAX_NAME_CHARS + len(SEPARATOR)},  # a longer one: 404
)
_FILTER = Query(
    None,
    max_length=200,
    description="`language=en`: voices of that language only. Another one is ignored.",
    examples=["language=en"],
)
_LANGUAGES = Query(
    [],
    max_length=100,
    description="`EN_US` or `en`, also several times: voices of one of these languages only.",
    examples=[["EN_US"]],
)
_SPEECH_BODY = json_body(
    SpeechBody,
    {
        "Shortest": {"text": "Hello, this is Echo.", "voiceId": "Alex"},
        "Bare samples with times": {
            "text": 'Hello. <break time="1s"/> This is Echo.',
            "voiceId": "Alex",
            "modelId": "inworld-tts-1",
            "audioConfig": {"audioEncoding": "PCM", "sampleRateHertz": 24_000},
            "timestampType": "WORD",
        },
    },
)
_CLONE_BODY = json_body(
    voices.CloneBody,
    {
        "One sample": {
            "displayName": "Anna",
            "langCode": "EN_US",
            "voiceSamples": [{"audioData": "UklGRiQAAABXQVZF…", "transcription": "Hello."}],
            "description": "Calm and low",
            "tags": ["warm"],
        }
    },
)
_CHANGE_BODY = json_body(
    voices.ChangeBody, {"Another name": {"displayName": "Anna the second", "tags": ["warm"]}}
)


def inworld_router(engine: Engine) -> APIRouter:
    """The routes, over ``engine``."""
    router = APIRouter(tags=["inworld"])
    _add_speech(router, engine)
    _add_voices(router, engine)
    _add_voice_objects(router, engine, FLAT, _no_workspace)
    _add_voice_objects(router, engine, IN_WORKSPACE, _workspace)
    return router


def _add_speech(router: APIRouter, engine: Engine) -> None:
    finder = SpeechFinder()

    async def reply(request: Request, *, whole: bool) -> InworldReply:
        fields = validated(SpeechBody, camelised(await read_json(request)))
        voice = await run_in_threadpool(voices.speaking_voice, engine, fields.voiceId)
        order = delivery(fields.model_copy(update={"voiceId": voice}), engine.config.model.name)
        return InworldReply(engine, finder, fields.text, order, whole=whole)

    @router.post(
        "/tts/v1/voice",
        response_class=StreamingResponse,
        openapi_extra=_SPEECH_BODY,
        responses={
            **json_reply(shapes.Speech, "The speech.", shapes.SPEECH),
            **inworld_errors(*WITH_BODY, 404, 503),
        },
        summary="Speak a text",
    )
    async def speak(request: Request) -> InworldReply:
        """`{"audioContent": base64, "timestampInfo"?, "usage"}`."""
        return await reply(request, whole=True)

    @router.post(
        "/tts/v1/voice:stream",
        response_class=StreamingResponse,
        openapi_extra=_SPEECH_BODY,
        responses={
            **json_reply(shapes.SpeechLine, "An object a line.", {"result": shapes.SPEECH}),
            **inworld_errors(*WITH_BODY, 404, 503),
        },
        summary="Speak a text, line by line",
    )
    async def stream(request: Request) -> InworldReply:
        """A line `{"result": {"audioContent": base64, …}}` for each part as it is made."""
        return await reply(request, whole=False)

    @router.websocket("/tts/v1/voice:streamBidirectional")
    async def converse(socket: WebSocket) -> None:
        await Connection(engine, finder, socket).run()


def _add_voices(router: APIRouter, engine: Engine) -> None:
    @router.get(
        "/tts/v1/voices",
        response_model=shapes.ListedVoices,
        responses={
            **json_reply(shapes.ListedVoices, "The voices.", shapes.LISTED_VOICES),
            **inworld_errors(*READING, 400),
        },
        summary="List the voices",
    )
    def list_voices(filter: str | None = _FILTER) -> dict[str, Any]:
        """Built-in and cloned ones."""
        return {"voices": voices.listed(engine, filter)}


def _no_workspace() -> None:
    """It is in the voice's id, or it is the default one."""
    return None


def _workspace(workspace: str = _WORKSPACE) -> str:
    return workspace


def _add_voice_objects(
    router: APIRouter, engine: Engine, path: str, of_request: Callable[..., str | None]
) -> None:
    """The routes of one style. ``of_request``: the dependency that tells the workspace."""
    workspace_of = Depends(of_request)

    @router.get(
        path,
        response_model=shapes.VoiceObjects,
        responses={
            **json_reply(shapes.VoiceObjects, "The voices.", {"voices": [shapes.CLONE]}),
            **inworld_errors(*READING, 400),
        },
        summary="List the voices with all that is known of them",
    )
    def list_objects(
        filter: str | None = _FILTER,
        languages: list[str] = _LANGUAGES,
        workspace: str | None = workspace_of,
    ) -> dict[str, Any]:
        """The built-in ones and the clones; of a workspace, its own."""
        return {"voices": voices.objects(engine, workspace, filter, languages)}

    @router.post(
        f"{path}:clone",
        response_model=shapes.ClonedReply,
        responses={
            **json_reply(shapes.ClonedReply, "The new voice.", shapes.CLONED),
            **inworld_errors(*WITH_BODY, 409),
        },
        openapi_extra=_CLONE_BODY,
        summary="Make a voice of recordings",
    )
    async def clone(request: Request, workspace: str | None = workspace_of) -> dict[str, Any]:
        """Only where `inworld.clone_enabled` is on, and with the speaker's consent."""
        voices.check_cloning(engine)
        body = camelised(await read_json(request))
        return await run_in_threadpool(voices.cloned, engine, workspace, body)

    one = f"{path}/{{voice_id}}"
    told = json_reply(shapes.VoiceObject, "The voice.", shapes.CLONE)

    @router.get(
        one,
        response_model=shapes.VoiceObject,
        responses={**told, **inworld_errors(*READING, 400, 404)},
        summary="A voice",
    )
    def get(voice_id: str = _VOICE_ID, workspace: str | None = workspace_of) -> dict[str, Any]:
        """A clone is found before a built-in voice of that name."""
        return voices.found(engine, workspace, voice_id)

    @router.patch(
        one,
        response_model=shapes.VoiceObject,
        responses={**told, **inworld_errors(*WITH_BODY, 404)},
        openapi_extra=_CHANGE_BODY,
        summary="Change what is told about a cloned voice",
    )
    async def change(
        request: Request, voice_id: str = _VOICE_ID, workspace: str | None = workspace_of
    ) -> dict[str, Any]:
        """Fields left out stay as they are, and so does the id."""
        voices.check_cloning(engine)
        body = camelised(await read_json(request))
        return await run_in_threadpool(voices.changed, engine, workspace, voice_id, body)

    @router.delete(
        one,
        response_model=shapes.Nothing,
        responses=inworld_errors(*CHANGING, 400, 404),
        summary="Delete a cloned voice",
    )
    def delete(voice_id: str = _VOICE_ID, workspace: str | None = workspace_of) -> dict[str, Any]:
        """Built-in ones cannot be deleted."""
        voices.check_cloning(engine)
        return voices.deleted(engine, workspace, voice_id)
