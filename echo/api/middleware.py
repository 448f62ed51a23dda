"""The edge of the API: request ids, the last resort for errors, the limit on bodies, HEAD.

Plain ASGI: Starlette's BaseHTTPMiddleware would hide a client's leaving from the routes.
"""

from __future__ import annotations

import logging
import re
import uuid

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.api.access import OPEN_PATHS, is_page
from echo.api.errors import (
    BodyTimeoutError,
    BodyTooLargeError,
    internal_problem,
    problem_of,
    refuse,
)
from echo.config.schema import PAGE_PATH

log = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
OTHER = "other"  # whatever strangers make up
CLONE_PATH = "/voices:clone"  # how the paths end where voices are uploaded in base64
DISCARD_S = 5.0  # how long the rest of a refused body is read, so that the answer gets through

_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class RequestEdge:
    """Gives every response an ``x-request-id`` and every failure before its start an error body.

    A failure after the start is raised on: the server then breaks the connection, so that the
    client cannot take what it has for the whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        started = False

        async def tagged(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except ClientDisconnect:
            log.debug("request %s left before its body was complete", request_id)
        except Exception:
            if started:
                raise
            log.exception("request %s failed at %s", request_id, route_of(scope))
            await refuse(internal_problem(request_id), scope, receive, tagged)


class BodyLimit:
    """Refuses bodies of more than ``max_bytes``, announced or found while reading, and those that
    stop arriving for ``timeout_s``.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int, timeout_s: float, clone_max_bytes: int = 0
    ) -> None:
        """``clone_max_bytes``: of bodies that upload a voice, if that is more."""
        self._app = app
        self._max_bytes = max_bytes
        self._clone_max_bytes = max(max_bytes, clone_max_bytes)
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        upload = scope["path"].endswith(CLONE_PATH)
        max_bytes = self._clone_max_bytes if upload else self._max_bytes
        announced = headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > max_bytes:
            if "expect" not in headers:  # else the body has not been sent
                await _discard(receive)
            await refuse(problem_of(_too_large(max_bytes)), scope, receive, send)
            return
        read = 0
        complete = False  # then ``receive`` waits for the client to leave, as long as it likes

        async def limited() -> Message:
            nonlocal read, complete
            try:
                with anyio.fail_after(None if complete else self._timeout_s):
                    message = await receive()
            except TimeoutError:
                raise self._timeout() from None
            complete = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > max_bytes:
                if message.get("more_body"):
                    await _discard(receive)
                raise _too_large(max_bytes)
            return message

        await self._app(scope, limited, send)

    def _timeout(self) -> BodyTimeoutError:
        return BodyTimeoutError(
            f"nothing of the request's body came for {self._timeout_s:g} s; send it again"
        )


class HeadAsGet:
    """Answers HEAD wherever there is a GET: as that, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            await send({**message, "body": b""} if "body" in message else message)

        asked = {**scope, "method": "GET"}
        try:
            await self._app(asked, receive, without_body)
        finally:
            scope["route"] = asked.get("route")  # for those outside who count


def request_id_of(scope: Scope) -> str:
    """The id of this call: its own if it sent a sane one; the same whoever asks."""
    state = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get(REQUEST_ID, "")
        state["request_id"] = given if _SANE_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"
    return str(state["request_id"])


def route_of(scope: Scope) -> str:
    """The template of the route that took the call, such as ``/v1/models/{model_id}``; all of the
    page is one, and what nobody took is ``other``: paths are what strangers make up."""
    if is_page(scope):
        return PAGE_PATH
    template = getattr(scope.get("route"), "path_format", None)
    if isinstance(template, str):
        return template
    return scope["path"] if scope["path"] in OPEN_PATHS else OTHER


def _too_large(max_bytes: int) -> BodyTooLargeError:
    return BodyTooLargeError(f"the request's body is over {max_bytes} bytes; send less")


async def _discard(receive: Receive) -> None:
    """Read on for a while: closing a socket with unread data would destroy the answer."""
    with anyio.move_on_after(DISCARD_S):
        while True:
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body"):
                return
