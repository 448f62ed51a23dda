"""The routes of Inworld's protocol, in both styles of its URLs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from echo.api.body import read_json
from echo.api.inworld import voices
from echo.api.inworld.body import SpeechBody, camelised, delivery, validated
from echo.api.inworld.reply import InworldReply
from echo.api.inworld.socket import Connection
from echo.api.inworld.timestamps import SpeechFinder
from echo.engine import Engine

FLAT = "/voices/v1/voices"
IN_WORKSPACE = "/voices/v1/workspaces/{workspace}/voices"


class FlatError(BaseModel):
    """The body of every error."""

    code: int = Field(description="gRPC's: 3 invalid, 5 not found, 8 too many, 13 internal.")
    message: str = Field(description="What is wrong and what to do.")
    details: list[Any]


def inworld_router(engine: Engine) -> APIRouter:
    """The routes, over ``engine``."""
    router = APIRouter(tags=["inworld"], responses=_ERRORS)
    _add_speech(router, engine)
    _add_voices(router, engine)
    for path in (FLAT, IN_WORKSPACE):
        _add_voice_object(router, engine, path)
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
        openapi_extra=_json(SpeechBody),
        summary="Speak a text",
    )
    async def speak(request: Request) -> InworldReply:
        """`{"audioContent": base64, "timestampInfo"?, "usage"}`."""
        return await reply(request, whole=True)

    @router.post(
        "/tts/v1/voice:stream",
        response_class=StreamingResponse,
        openapi_extra=_json(SpeechBody),
        summary="Speak a text, line by line",
    )
    async def stream(request: Request) -> InworldReply:
        """A line `{"result": {"audioContent": base64, …}}` for each part as it is made."""
        return await reply(request, whole=False)

    @router.websocket("/tts/v1/voice:streamBidirectional")
    async def converse(socket: WebSocket) -> None:
        await Connection(engine, finder, socket).run()


def _add_voices(router: APIRouter, engine: Engine) -> None:
    @router.get("/tts/v1/voices", summary="List the voices")
    def list_voices(filter: str | None = None) -> dict[str, Any]:
        return {"voices": voices.listed(engine, filter)}


def _add_voice_object(router: APIRouter, engine: Engine, path: str) -> None:
    """The routes of one style; without a workspace in ``path``, it is in the id or the default."""

    @router.get(path, summary="List the voices with all that is known of them")
    def list_objects(request: Request, filter: str | None = None) -> dict[str, Any]:
        return {"voices": voices.objects(engine, _workspace(request), filter)}

    @router.post(
        f"{path}:clone",
        summary="Make a voice of recordings",
        openapi_extra=_json(voices.CloneBody),
    )
    async def clone(request: Request) -> dict[str, Any]:
        """Only where `inworld.clone_enabled` is on, and with the speaker's consent."""
        voices.check_cloning(engine)
        body = camelised(await read_json(request))
        return await run_in_threadpool(voices.cloned, engine, _workspace(request), body)

    @router.get(f"{path}/{{voice_id}}", summary="A voice")
    def get(request: Request, voice_id: str) -> dict[str, Any]:
        return voices.found(engine, _workspace(request), voice_id)

    @router.patch(
        f"{path}/{{voice_id}}",
        summary="Change what is told about a cloned voice",
        openapi_extra=_json(voices.ChangeBody),
    )
    async def change(request: Request, voice_id: str) -> dict[str, Any]:
        voices.check_cloning(engine)
        body = camelised(await read_json(request))
        return await run_in_threadpool(voices.changed, engine, _workspace(request), voice_id, body)

    @router.delete(f"{path}/{{voice_id}}", summary="Delete a cloned voice")
    def delete(request: Request, voice_id: str) -> dict[str, Any]:
        voices.check_cloning(engine)
        return voices.deleted(engine, _workspace(request), voice_id)


def _workspace(request: Request) -> str | None:
    return request.path_params.get("workspace")


def _json(model: type[BaseModel]) -> dict[str, Any]:
    schema = {"schema": model.model_json_schema()}
    return {"requestBody": {"required": True, "content": {"application/json": schema}}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": FlatError, "description": text}
    for status, text in {
        400: "An impossible request.",
        403: "Cloning is turned off.",
        404: "No such voice.",
        409: "There is a voice of that name already.",
        413: "A body over `server.max_body_bytes`.",
        415: "A body that is not JSON.",
        429: "The queue is full; see `Retry-After`.",
        500: "The generation failed.",
    }.items()
}
