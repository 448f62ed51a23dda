"""What stands before Serve's proxy, in its process: errors in the caller's protocol, another try
for requests whose replica died before it had begun to answer, and the voice for the router.

Serve calls :func:`middlewares` where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` names it.
Plain ASGI; knows neither Ray nor the configuration.
"""

from __future__ import annotations

import asyncio
import logging

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.api.access import READING
from echo.api.errors import BodyTimeoutError, Problem, problem_of, refuse
from echo.api.middleware import REQUEST_ID, request_id_of
from echo.cluster.affinity import SPEECH_PATHS, voice_key

log = logging.getLogger(__name__)

IMPORT_PATH = "echo.cluster.edge.middlewares"
REPLICA = "x-echo-replica"  # every answer of ours has it; what has not is from Serve itself
MAX_KEPT_BYTES = 1 << 20  # of a body, to send it again; longer ones hold audio
BODY_TIMEOUT_S = 30.0  # without any byte of such a body
ATTEMPTS = 4
PAUSE_S = 0.25  # before another try, once more each time
PROBE_S = 5.0  # in all, for an answer to whoever asks whether we are there
RETRY_AFTER_S = 2

SESSION = b"x-session-id"  # what Serve hands to routers as the session
# Headers by which Serve's callers steer it: where to, how long, and to go on for nobody.
STEERING = (
    "x_session_id",
    "serve_multiplexed_model_id",
    "x_request_timeout_seconds",
    "x_request_disconnect_disabled",
)
SERVES_OWN = "/-/"
PROBES = ("/health", "/ready")


def middlewares() -> list[Middleware]:
    """For Serve's proxies."""
    return [Middleware(Edge)]


class Edge:
    """Passes a request on to Serve, until a replica begins to answer it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or scope["path"].startswith(SERVES_OWN):
            await self._app(scope, receive, send)
            return
        request = _Request(scope, receive)
        answer = _Answer(send, request.id)
        try:
            await request.keep()
        except TimeoutError:
            error = BodyTimeoutError(f"nothing of the body came for {BODY_TIMEOUT_S:g} s")
            await refuse(problem_of(error), scope, receive, answer.ours)
            return
        with anyio.move_on_after(PROBE_S if scope["path"] in PROBES else None):
            await self._send_on(request, answer)
        if not answer.begun and not request.left:
            await refuse(_problem(answer, request), scope, receive, answer.ours)

    async def _send_on(self, request: _Request, answer: _Answer) -> None:
        """Until an answer begins, Serve refuses, the client leaves or we have tried enough."""
        attempts = ATTEMPTS if request.repeatable else 1
        for attempt in range(attempts):
            await asyncio.sleep(PAUSE_S * attempt)
            if request.left:
                return
            await self._app(request.scope(), request.messages(), answer.theirs)
            if answer.begun or request.left or answer.refused:  # Serve has tried itself
                return
            log.warning("request %s lost its replica (%d)", request.id, attempt + 1)


class _Request:
    """A request that can be sent more than once, if its body is short and it changes nothing."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._scope = scope
        self._receive = receive
        self._kept: list[Message] = []
        self._voice: str | None = None
        self.id = request_id_of(scope)
        self.left = False
        self.repeatable = False

    async def keep(self) -> None:
        """Read the body, if it may be sent again. Raises TimeoutError."""
        speech = self._scope["path"] in SPEECH_PATHS
        if self._scope["type"] == "http":
            announced = Headers(scope=self._scope).get("content-length", "0")
            short = announced.isdecimal() and int(announced) <= MAX_KEPT_BYTES
            if not short or not (speech or self._scope["method"] in READING):
                return
        size, more = 0, True
        while more and size <= MAX_KEPT_BYTES:
            with anyio.fail_after(BODY_TIMEOUT_S):
                message = await self._live()
            self._kept.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        self.repeatable = not more
        if speech and self.repeatable:
            self._voice = voice_key(b"".join(m.get("body", b"") for m in self._kept))

    def scope(self) -> Scope:
        """Without headers that steer Serve, but for ours."""
        headers = [
            (name, value)
            for name, value in self._scope["headers"]
            if name.decode("latin-1").lower().replace("-", "_") not in STEERING
            and name.lower() != REQUEST_ID.encode()
        ]
        headers.append((REQUEST_ID.encode(), self.id.encode()))
        if self._voice is not None:
            headers.append((SESSION, self._voice.encode()))
        return {**self._scope, "headers": headers}

    def messages(self) -> Receive:
        """What was kept, from its beginning, then what comes."""
        kept = iter(self._kept)

        async def receive() -> Message:
            for message in kept:
                return message
            return await self._live()

        return receive

    async def _live(self) -> Message:
        message = await self._receive()
        self.left = self.left or message["type"].endswith(".disconnect")
        return message


class _Answer:
    """Lets a replica's answer through and keeps back what Serve has to say."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.begun = False
        self.refused = 0  # with which status

    async def theirs(self, message: Message) -> None:
        """From behind us."""
        kind = message["type"]
        if not self.begun and kind == "http.response.start":
            if REPLICA not in Headers(raw=message["headers"]):
                self.refused = message["status"]
        elif not self.begun and kind == "http.response.body":
            return
        if self.refused:
            return
        self.begun = True
        await self.ours(message)

    async def ours(self, message: Message) -> None:
        """To the caller, with the request's id, once."""
        if message["type"].endswith("response.start"):
            MutableHeaders(scope=message)[REQUEST_ID] = self._request_id
        await self._send(message)


def _problem(answer: _Answer, request: _Request) -> Problem:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    if answer.refused == 429:
        message = "all replicas are busy and many requests wait; try again shortly"
        return Problem(429, message, "queue_full", headers=headers)
    if answer.refused or request.repeatable:
        message = "no replica can answer now; try again shortly"
        return Problem(503, message, "no_replica", headers=headers)
    message = "the replica that had this request is gone; look whether it was done"
    return Problem(500, message, "replica_lost", headers={"x-should-retry": "false"})
