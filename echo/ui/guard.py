"""What stands between the network and Gradio."""

from __future__ import annotations

import re
from collections.abc import Sequence

import anyio
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.config.hosts import is_loopback, leads_here, name_of

# What the page asks for. Gradio would offer more: its editor, a dashboard, a proxy, logging out.
_NEEDED = re.compile(
    r"/?|/(config|login|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?"
    r"|/(assets|static|svelte|echo-clips)/.+"
    r"|/gradio_api/(run/.+|queue/(join|data)|heartbeat/.+|file=.+|upload|upload_progress|info"
    r"|app_id|startup-events|process_recording|cancel|reset)/?"
)


class OwnNames:
    """For a page on loopback with a port of its own: answers under loopback's names only.

    Under a name of theirs, which they let lead here (DNS rebinding), the web pages of others would
    be of one origin with it. ``allowed``: names that are answered instead; "*": any.
    """

    def __init__(self, app: ASGIApp, host: str, allowed: Sequence[str] | None) -> None:
        self._app = app
        self._open = allowed is None and not is_loopback(host)
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._open:
            name = name_of(Headers(scope=scope).get("host", ""))
            if not self._is_own(name):
                told = f"No page {name[:100]!r} here; add the name to server.allowed_hosts."
                await PlainTextResponse(told, 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _is_own(self, name: str) -> bool:
        if self._allowed is None:
            return leads_here(name)
        return "*" in self._allowed or name in (each.lower() for each in self._allowed)


class Guard:
    """For a page within another server: passes on what it needs, as of its own origin.

    The server has looked at ``Origin`` before. Gradio would let every origin read that asks under
    another name than localhost, with the visitor's cookies; one it does not see, it allows nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open: set[anyio.CancelScope] = set()
        self._stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or not _NEEDED.fullmatch(path):
            await _refuse(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header[0] != b"origin"]
        started = complete = False

        async def seen(message: Message) -> None:
            nonlocal started, complete
            started = started or message["type"] == "http.response.start"
            complete = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        with anyio.CancelScope() as work:
            self._open.add(work)
            try:
                if not self._stopped:
                    await self._app({**scope, "headers": headers}, receive, seen)
                    return
            finally:
                self._open.discard(work)
        if started and not complete:  # a clean end: the browser has nothing to complain of
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif not started:
            await PlainTextResponse("The server is going down.", 503)(scope, receive, send)

    def stop(self) -> None:
        """End what is open: pages listen to their server as long as they are shown."""
        self._stopped = True
        for work in tuple(self._open):
            work.cancel()


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": "the page has none"})
        return
    await PlainTextResponse("There is no such thing on this page.", 404)(scope, receive, send)
