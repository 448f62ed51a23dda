"""The WebSocket: frames in, to up to five contexts; their frames out, interleaved."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from fastapi import WebSocket
from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocketDisconnect

from echo.api.body import parse_object
from echo.api.errors import flat_body, internal_problem, problem_of
from echo.api.inworld import voices
from echo.api.inworld.body import (
    Body,
    SpeechSettings,
    camelised,
    check_length,
    delivery,
    validated,
)
from echo.api.inworld.context import Context
from echo.api.inworld.narrator import Narrator
from echo.api.inworld.timestamps import SpeechFinder
from echo.engine import Engine
from echo.errors import EchoError, InvalidRequestError

log = logging.getLogger(__name__)

MAX_CONTEXTS = 5  # of one connection
MAX_TEXT_CHARS = 1_000  # of one frame
MAX_ID_CHARS = 200

_OK = {"code": 0, "message": "", "details": []}


class TextBody(Body):
    text: str = ""
    flushContext: dict[str, Any] | bool | None = Field(None)  # noqa: N815 - the protocol's name


class Connection:
    """One client. Frames are worked off in their order; audio is sent by a task per context."""

    def __init__(self, engine: Engine, finder: SpeechFinder, socket: WebSocket) -> None:
        self._engine = engine
        self._finder = finder
        self._socket = socket
        self._sending = asyncio.Lock()
        self._contexts: dict[str, Context] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the client leaves, which stops all that it had begun."""
        await self._socket.accept()
        try:
            while True:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                raw = message.get("text")
                await self._take(raw.encode() if raw is not None else message["bytes"])
        except WebSocketDisconnect:
            return
        finally:
            tasks = list(self._tasks.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, raw: bytes) -> None:
        """One frame; what is wrong with it is told in a status frame."""
        context_id = ""
        try:
            frame = camelised(parse_object(raw))
            context_id = self._id_in(frame)
            await self._act(frame, context_id)
        except EchoError as error:
            await self._send(context_id, {"status": flat_body(problem_of(error))})
        except _Refused as refused:
            await self._send(context_id, {"status": refused.status})

    async def _act(self, frame: Mapping[str, Any], context_id: str) -> None:
        if "create" in frame:
            await self._create(context_id or uuid.uuid4().hex, _object(frame, "create"))
        elif "sendText" in frame:
            self._add_text(context_id, validated(TextBody, _object(frame, "sendText")))
        elif "flushContext" in frame:
            self._open(context_id).flush()
        elif "closeContext" in frame:
            self._open(context_id).close()
        elif "cancelContext" in frame:
            await self._cancel(context_id)
        else:
            known = "create, send_text, flush_context, close_context or cancel_context"
            raise InvalidRequestError(f"the frame has none of {known}")

    async def _create(self, context_id: str, settings: Mapping[str, Any]) -> None:
        if context_id in self._contexts:
            raise _Refused(6, f"there is a context {context_id!r} already; close it first")
        if len(self._contexts) >= MAX_CONTEXTS:
            raise _Refused(8, f"{MAX_CONTEXTS} contexts are open; close one first")
        fields = validated(SpeechSettings, settings)
        voice = await run_in_threadpool(voices.speaking_voice, self._engine, fields.voiceId)
        if await run_in_threadpool(self._engine.voices.get, voice) is None:
            raise self._engine.voices.not_found(voice)
        order = delivery(
            fields.model_copy(update={"voiceId": voice}), self._engine.config.model.name
        )
        narrator = Narrator(self._engine, self._finder, order)
        context = Context(context_id, narrator, order, self._send)
        self._contexts[context_id] = context
        created = {
            "voiceId": fields.voiceId,
            "modelId": order.model_id,
            "audioConfig": {
                "audioEncoding": order.audio.encoding.name,
                "sampleRateHertz": order.audio.rate,
                "speakingRate": order.audio.speed,
            },
        }
        await self._send(context_id, {"contextCreated": created})
        task = asyncio.create_task(self._run(context))
        self._tasks[context_id] = task

    async def _run(self, context: Context) -> None:
        try:
            try:
                await context.run()
            except (WebSocketDisconnect, asyncio.CancelledError):
                raise
            except Exception:  # the API's edge: one context fails, the others go on
                log.exception("a context failed")
                await self._send(context.id, {"status": flat_body(internal_problem(context.id))})
            self._forget(context)  # first: who reads of the end may use the id again
            await self._send(context.id, {"contextClosed": {}})
        except WebSocketDisconnect:  # while sending; the reader ends the connection
            log.debug("the client left while it was sent audio")
        finally:
            self._forget(context)

    def _forget(self, context: Context) -> None:
        if self._contexts.get(context.id) is context:
            del self._contexts[context.id], self._tasks[context.id]

    def _add_text(self, context_id: str, body: TextBody) -> None:
        if not body.text and body.flushContext is None:  # keeps the connection alive
            return
        context = self._open(context_id)
        check_length(body.text, MAX_TEXT_CHARS)
        context.add_text(body.text)
        if body.flushContext is not None and body.flushContext is not False:
            context.flush()

    async def _cancel(self, context_id: str) -> None:
        context = self._contexts.get(context_id)
        if context is None:
            raise _unknown(context_id)
        task = self._tasks[context_id]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._forget(context)
        await self._send(context_id, {"contextClosed": {}})

    def _open(self, context_id: str) -> Context:
        context = self._contexts.get(context_id)
        if context is None or context.closing:
            raise _unknown(context_id)
        return context

    def _id_in(self, frame: Mapping[str, Any]) -> str:
        """Told in the frame or in what it holds; else the only context there is."""
        inner = next((value for value in frame.values() if isinstance(value, dict)), {})
        given = frame.get("contextId") or inner.get("contextId")
        if given is None or given == "":
            return (
                next(iter(self._contexts))
                if len(self._contexts) == 1 and "create" not in frame
                else ""
            )
        if not isinstance(given, str) or len(given) > MAX_ID_CHARS:
            raise InvalidRequestError(
                f"contextId must be a string of at most {MAX_ID_CHARS} characters",
                param="contextId",
            )
        return given

    async def _send(self, context_id: str, told: dict[str, Any]) -> None:
        """One frame, whole; a slow client holds up its own contexts only."""
        result = {"contextId": context_id, "status": _OK, **told}
        async with self._sending:
            await self._socket.send_text(json.dumps({"result": result}))


class _Refused(Exception):  # noqa: N818 - an answer, not a fault
    """A frame that comes at the wrong time. ``code``: gRPC's."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.status = {"code": code, "message": message, "details": []}


def _unknown(context_id: str) -> _Refused:
    return _Refused(5, f"there is no open context {context_id[:MAX_ID_CHARS]!r}; create it first")


def _object(frame: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = frame[key]
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{key} must be an object", param=key)
    return value
