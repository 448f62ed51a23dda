"""What each call was and came to: one line in the log, and word to an observer."""

from __future__ import annotations

import asyncio
import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.api.access import is_page
from echo.api.call import CALL, Call, Observer
from echo.api.errors import FLAT_PATHS
from echo.api.middleware import OTHER, request_id_of, route_of
from echo.api.traces import Traces
from echo.errors import BusyError, CancelledError, InvalidRequestError

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD", "POST", "PATCH", "DELETE", "OPTIONS", "WEBSOCKET")
METRICS_PATH = "/metrics"
QUIET_PATHS = ("/health", "/ready", METRICS_PATH)  # asked every few seconds


def outcome_of(error: BaseException) -> str:
    """One of :data:`~echo.api.call.OUTCOMES`, for what ended a speech early."""
    if isinstance(error, asyncio.CancelledError | GeneratorExit | CancelledError):
        return "cancelled"
    if isinstance(error, BusyError):
        return "busy"
    return "invalid" if isinstance(error, InvalidRequestError) else "failed"


class Watch:
    """Logs every call when it has ended and tells ``observer`` and ``traces``.

    All get the route's template, never the path, which a stranger writes.
    """

    def __init__(
        self, app: ASGIApp, observer: Observer | None, traces: Traces | None = None
    ) -> None:
        self._app = app
        self._observer = observer
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        begun, status, complete = time.monotonic(), 0, scope["type"] == "websocket"
        protocol, trace = protocol_of(scope), None
        if self._traces is not None and not is_quiet(scope):
            trace = self._traces.begin(scope, protocol)
        call = Call(request_id_of(scope), protocol, self._observer, trace)

        async def seen(message: Message) -> None:
            nonlocal status, complete
            status = status or _status_in(message)
            await send(message)
            complete = complete or _is_last(message)

        token = CALL.set(call)
        ending = "broken"
        try:
            await self._app(scope, receive, seen)
            ending = "complete" if complete else "left"
        finally:
            self._ended(scope, call, status, ending, time.monotonic() - begun)
            CALL.reset(token)

    def _ended(self, scope: Scope, call: Call, status: int, ending: str, seconds: float) -> None:
        method = "WEBSOCKET" if scope["type"] == "websocket" else scope["method"]
        method = method if method in METHODS else OTHER
        route = route_of(scope)
        if self._observer is not None:
            self._observer.http_ended(method, route, f"{status // 100}xx" if status else "none")
        if call.trace is not None:
            call.trace.call_ended(method, route, status, ending)
        level = logging.DEBUG if is_quiet(scope) else logging.INFO
        fields = {
            "event": "call",
            "method": method,
            "route": route,
            "status": status or None,
            "ending": ending,
            "duration_s": round(seconds, 4),
        }
        told = f"{status or 'no answer'}{_ENDINGS[ending]}"
        log.log(level, "%s %s %s in %.3f s", method, route, told, seconds, extra={"fields": fields})


def protocol_of(scope: Scope) -> str:
    """One of :data:`~echo.api.call.PROTOCOLS`, by where the path begins, or ``other``."""
    if scope["path"].startswith(FLAT_PATHS):
        return "inworld_socket" if scope["type"] == "websocket" else "inworld"
    return "openai" if scope["path"].startswith("/v1/") else OTHER


def is_quiet(scope: Scope) -> bool:
    """Whether calls like this one come by the dozen: probes, and what a page is made of."""
    return scope["path"] in QUIET_PATHS or is_page(scope)


_ENDINGS = {"complete": "", "left": ", the client left", "broken": ", broken off"}


def _is_last(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body")


def _status_in(message: Message) -> int:
    """The status that begins an answer, or 0. A WebSocket has 101 or what it was refused with."""
    kind = message["type"]
    if kind in ("http.response.start", "websocket.http.response.start"):
        return int(message["status"])
    return {"websocket.accept": 101, "websocket.close": 403}.get(kind, 0)
