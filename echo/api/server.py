"""Running the API: logging, the engine, the socket and an orderly end.

Torch is imported when the engine is built, so that ``--help`` and a taken port answer at once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Protocol

import uvicorn
from starlette.types import ASGIApp

from echo.api.logs import configure_logging
from echo.config import (
    EchoConfig,
    ServerConfig,
    describe,
    parse_program_args,
    run_program,
    unknown_flags,
)
from echo.config.hosts import is_loopback
from echo.errors import EchoError
from echo.voices.store import VoiceStore

if TYPE_CHECKING:  # torch comes with it
    from fastapi import FastAPI

    from echo.engine import Engine

log = logging.getLogger(__name__)

DESCRIPTION = "Serve speech over HTTP: POST /v1/audio/speech; documentation at /docs."

GRACE_S = 5  # for running streams when the server is asked to stop
KEEP_ALIVE_S = 60  # longer than clients keep a connection, so that they close it, not we
SHOWN_VOICES = 12
MAX_SOCKET_MESSAGE_BYTES = 1 << 20  # of a WebSocket

INTERRUPTED = 130  # exit status after Ctrl-C


class Page(Protocol):
    """What is served beside the API, for browsers."""

    path: str

    def mount(self, app: FastAPI, engine: Engine) -> None:
        """Add itself to ``app``, whose lifespan the server runs."""

    def stop(self) -> None:
        """End what its visitors have open; in the server's event loop."""


class PageOf(Protocol):
    """Who makes the page that a configuration asks for, if it does."""

    def __call__(self, config: EchoConfig, *, keyed: bool) -> Page | None:
        """``keyed``: the server wants keys. Raises ConfigError where there can't be one."""


def main(argv: Sequence[str], page_of: PageOf | None = None) -> int:
    """The program: serve as ``argv`` says until interrupted; returns the exit status."""

    def run(config: EchoConfig) -> int:
        return serve(config, parse_program_args(argv, DESCRIPTION).overrides, page_of)

    return run_program(argv, run, DESCRIPTION)


def serve(config: EchoConfig, overrides: Sequence[str] = (), page_of: PageOf | None = None) -> int:
    """Load the engine, serve until interrupted, and clean up; returns the exit status.

    ``overrides``: those that ``config`` was composed with, to tell which settings came from the
    environment. The port is reserved first and opens when the engine is warm.

    Raises:
        EchoError: the port or the page can't be had, or the engine can't be loaded.
    """
    configure_logging(debug=config.engine.debug, format=config.server.log_format)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)
    server: EchoServer | None = None
    try:
        with bind(config.server) as listener:
            log_settings(overrides, os.environ)
            log.info("%s", _voices_line(config))

            from echo.api.access import Keys
            from echo.api.app import create_app
            from echo.engine import Engine

            keyed = bool(Keys.of(config.server))
            if not keyed and not is_loopback(config.server.host):
                log.warning("open to other machines without keys; see server.api_keys_file")
            page = page_of(config, keyed=keyed) if page_of is not None else None
            with Engine.from_config(config) as engine:
                app = create_app(engine, config)
                if page is not None:
                    page.mount(app, engine)
                engine.warm_up()
                server = EchoServer(app, listener, page)
                server.run()
    except KeyboardInterrupt:
        if server is None or not server.started:
            return INTERRUPTED
    log.info("stopped")
    return 0


def log_settings(overrides: Sequence[str], environ: Mapping[str, str]) -> None:
    """Every setting in force, a line for each group; apart, where those that are no defaults come
    from; a warning for each variable in ``environ`` that looks like a flag and is none.
    """
    settings = describe(overrides)
    groups: dict[str, list[str]] = {}
    for setting in settings:
        group, _, name = setting.key.partition(".")
        groups.setdefault(group, []).append(f"{name}={setting.value}")
    for group, values in groups.items():
        log.info("%s: %s", group, ", ".join(values))
    for setting in settings:
        if setting.source != "default":
            log.info("%s = %s (%s)", setting.key, setting.value, setting.source)
    for name, nearest in unknown_flags(environ).items():
        hint = f"did you mean {nearest}?" if nearest else "--help lists the flags"
        log.warning("the environment variable %s is no flag of Echo; %s", name, hint)


def bind(config: ServerConfig) -> socket.socket:
    """The server's socket, bound and not yet listening: clients are refused until it does.

    Raises:
        EchoError: the port is taken, not permitted, or the host is not this machine's.
    """
    try:
        found = socket.getaddrinfo(
            config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _unavailable(config.host, config.port, error) from error
    try:
        if sys.platform != "win32":  # there it would allow two servers on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _unavailable(config.host, config.port, error) from error
    return listener


class EchoServer(uvicorn.Server):
    """uvicorn over ``app`` on a bound ``listener``; says where when it listens.

    ``page``: what is mounted in ``app`` for browsers.
    """

    def __init__(self, app: ASGIApp, listener: socket.socket, page: Page | None = None) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # whatever else is installed: parsers differ in what they refuse,
            loop="asyncio",  # and loops in how much they read ahead
            log_config=None,
            access_log=False,  # Watch has it, without paths
            lifespan="on" if page is not None else "off",
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            ws_max_size=MAX_SOCKET_MESSAGE_BYTES,
            timeout_graceful_shutdown=GRACE_S,
        )
        super().__init__(config)
        self.host, self.port = listener.getsockname()[:2]
        self._listener = listener
        self._page = page

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped.

        Raises:
            EchoError: another program began to listen on the port meanwhile.
        """
        try:
            super().run(sockets or [self._listener])
        except OSError as error:
            raise _unavailable(self.host, self.port, error) from error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            page = f"the page is at {self._page.path}; " if self._page is not None else ""
            log.info("listening on %s (%sdocumentation at /docs; Ctrl-C stops)", self.url, page)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._page is not None:
            self._page.stop()
        await super().shutdown(sockets)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        host = anywhere.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def _voices_line(config: EchoConfig) -> str:
    store = VoiceStore(config.voices)
    voices = [voice.id for voice in store.list()]
    if not voices:
        return f"no voices in {', '.join(config.voices.roots)}"
    named = config.voices.default
    if named is not None and store.get(named) is None:
        voices[0] += f" (the default: there is no {named})"
    more = len(voices) - SHOWN_VOICES
    some = ", ".join(voices[:SHOWN_VOICES]) + (f" and {more} more" if more > 0 else "")
    return f"voices: {some}"


def _unavailable(host: str, port: int, error: OSError) -> EchoError:
    return EchoError(
        f"cannot listen on {host}, port {port}: {error.strerror or error}; "
        "choose others with server.port and server.host"
    )


def _interrupt(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a server as Ctrl-C does."""
    raise KeyboardInterrupt
