"""Who may call: Host names, web pages, keys, and how many requests at once.

Plain ASGI, for HTTP and WebSockets alike; a refusal is told in the caller's protocol.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from echo.api.errors import Problem, refuse
from echo.config import ServerConfig
from echo.config.hosts import is_loopback, leads_here, name_of
from echo.config.schema import PAGE_PATH
from echo.errors import ConfigError

OPEN_PATHS = ("/", "/health", "/ready", "/docs", "/docs/oauth2-redirect", "/openapi.json")
READING = ("GET", "HEAD", "OPTIONS")
CALLER = "caller"  # in a request's state: who is counted
RETRY_AFTER_S = 2

_ANY = "*"


class Keys:
    """The keys that are accepted, as digests: comparing tells nothing about them by its time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    @classmethod
    def of(cls, config: ServerConfig) -> Keys:
        """Those of ``server.api_keys`` and of ``server.api_keys_file``.

        Raises ConfigError where the file can't be read, or keys are set and there are none in it.
        """
        keys = (config.api_keys or "").replace(",", " ").split()
        if config.api_keys_file is not None:
            keys += _keys_in(Path(config.api_keys_file))
        if not keys and config.api_keys:
            raise ConfigError("server.api_keys holds no key", param="server.api_keys")
        return cls(keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def caller(self, authorization: str) -> str | None:
        """A name for the holder of a right key, not the key itself; else None.

        ``authorization``: the header, ``Bearer KEY`` or, as Inworld's clients send it, ``Basic
        KEY``.
        """
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() not in ("bearer", "basic"):
            return None
        given = _digest(key.strip())
        right = False
        for digest in self._digests:  # all of them, whichever fits
            right |= hmac.compare_digest(given, digest)
        return given.hex() if right else None


class KeyCheck:
    """Answers 401 to requests without a right key, if there are ``keys``; docs and health open.

    Browsers send no key: ``page_locked`` says that the page asks for a password, and leaves it to
    that. Without one the page is behind the keys, out of reach.
    """

    def __init__(self, app: ASGIApp, keys: Keys, *, page_locked: bool = False) -> None:
        self._app = app
        self._keys = keys
        self._page_locked = page_locked

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            client = scope.get("client") or ("unknown",)
            caller: str | None = client[0]
            left_to_page = self._page_locked and is_page(scope)
            if self._keys and not left_to_page and not _is_open(scope):
                caller = self._keys.caller(Headers(scope=scope).get("authorization", ""))
            if caller is None:
                await refuse(_UNAUTHORISED, scope, receive, send)
                return
            scope.setdefault("state", {})[CALLER] = caller
        await self._app(scope, receive, send)


class OriginCheck:
    """Keeps web pages from using a server that only their visitor can reach.

    A page may send simple requests and open WebSockets across origins without asking, and by DNS
    rebinding even become the same origin: under a name of its own, in ``Host``. So a server on
    loopback answers only to loopback's names, unless ``server.allowed_hosts`` says otherwise, and
    other origins than its own and ``server.cors_origins`` may only read what needs no key.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._hosts = config.allowed_hosts
        self._origins = config.cors_origins
        self._loopback = is_loopback(config.host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            if not self._host_allowed(scope, name_of(host)):
                await refuse(_wrong_host(name_of(host)), scope, receive, send)
                return
            origin = headers.get("origin")
            changes = scope["type"] == "websocket" or scope["method"] not in READING
            if changes and origin is not None and not self._origin_allowed(origin, host):
                await refuse(_wrong_origin(origin), scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _host_allowed(self, scope: Scope, name: str) -> bool:
        if self._hosts is not None:
            return _ANY in self._hosts or name in (host.lower() for host in self._hosts)
        server = scope.get("server") or ("",)
        # Without a network (an app called in its own process) there is nobody to rebind.
        if not name or not self._loopback or not is_loopback(server[0]):
            return True
        return leads_here(name)

    def _origin_allowed(self, origin: str, host: str) -> bool:
        if _ANY in self._origins or origin in self._origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == host.lower()
        except ValueError:  # no URL: http://[
            return False


class ConcurrencyLimit:
    """Answers 429 to requests over ``server.max_concurrent`` or ``server.max_concurrent_per_key``.

    Those that only read don't count, nor do the page's: its speech waits in the engine's queue,
    outside of any request. A WebSocket counts while it is open.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig) -> None:
        self._app = app
        self._limit = config.max_concurrent
        self._limit_per_key = config.max_concurrent_per_key
        self._running: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket") or (
            kind == "http" and (scope["method"] in READING or is_page(scope))
        ):
            await self._app(scope, receive, send)
            return
        caller = scope["state"][CALLER]
        problem = self._over(caller)
        if problem is not None:
            await refuse(problem, scope, receive, send)
            return
        self._running[caller] += 1
        counted = True

        def release() -> None:
            nonlocal counted
            if counted:
                counted = False
                self._running[caller] -= 1
                self._running += Counter()  # drops those at zero

        async def releasing(message: Message) -> None:
            # With its last byte the client may ask again, before this request has been tidied up.
            if message["type"] == "http.response.body" and not message.get("more_body"):
                release()
            await send(message)

        try:
            await self._app(scope, receive, releasing)
        finally:
            release()

    def _over(self, caller: str) -> Problem | None:
        if self._limit is not None and self._running.total() >= self._limit:
            return _too_many(f"the server works on {self._limit} requests already")
        if self._limit_per_key is not None and self._running[caller] >= self._limit_per_key:
            return _too_many(f"you have {self._limit_per_key} requests running already")
        return None


_UNAUTHORISED = Problem(
    401,
    "this server wants a key: send the header Authorization: Bearer KEY",
    "invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


def _too_many(what: str) -> Problem:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Problem(429, f"{what}; try again shortly", "too_many_requests", headers=headers)


def _wrong_host(name: str) -> Problem:
    message = f"no server {name[:100]!r} here; add the name to server.allowed_hosts"
    return Problem(403, message, "host_not_allowed")


def _wrong_origin(origin: str) -> Problem:
    message = f"pages of {origin[:100]!r} may not call; add the origin to server.cors_origins"
    return Problem(403, message, "origin_not_allowed")


def _is_open(scope: Scope) -> bool:
    return scope["type"] == "http" and scope["path"] in OPEN_PATHS


def _keys_in(path: Path) -> list[str]:
    """One a line; lines that begin with ``#`` are comments."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"server.api_keys_file {path} can't be read: {reason}", param="server.api_keys_file"
        ) from error
    keys = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise ConfigError(f"{path} holds no key", param="server.api_keys_file")
    return keys


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def is_page(scope: Scope) -> bool:
    """Whether a request is for the page or something below it."""
    path: str = scope["path"]
    return path == PAGE_PATH or path.startswith(f"{PAGE_PATH}/")
