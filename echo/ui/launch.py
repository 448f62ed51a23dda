"""From a configuration to a served page, alone or beside the API."""

from __future__ import annotations

import hmac
import importlib.util
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from echo.config.schema import PAGE_PATH, EchoConfig
from echo.errors import ConfigError, EchoError, LimitExceededError

if TYPE_CHECKING:  # torch and the web come when they are used
    from fastapi import FastAPI, Request, Response

    from echo.engine import Engine
    from echo.ui.guard import Guard

log = logging.getLogger(__name__)

DESCRIPTION = "Echo's page in the browser. It listens on ui.host and ui.port."
SPARE_THREADS = 8  # for everything but generations
NOT_INSTALLED = "the page needs Gradio: pip install 'echo-tts[ui]'"
NO_PASSWORD = (
    "there are API keys, which the page's visitors would not need; give it a password with "
    "ui.password or ECHO_UI_PASSWORD"
)
PASSWORD_HINT = "Any user name; the password is the one this page was started with."


def launch(config: EchoConfig) -> int:
    """Load the engine and serve its page until Ctrl-C; returns the exit status.

    Raises:
        ConfigError: Gradio is not installed, or ``ui.host`` and ``ui.port`` can't be listened on.
        CheckpointError: weights that are not there, not complete or of another model.
    """
    check_installed()
    from echo.engine import Engine

    with Engine.from_config(config) as engine:
        engine.warm_up()
        page, url = open_page(engine)
        sys.stdout.write(f"{engine.describe()}\nopen {url} in a browser; Ctrl-C stops\n")
        sys.stdout.flush()
        page.block_thread()
    return 0


def check_installed() -> None:
    """Raise ConfigError unless Gradio is there."""
    if not _is_installed():
        raise ConfigError(NOT_INSTALLED)


def open_page(engine: Engine) -> tuple[Any, str]:
    """Serve the page of ``engine`` in the background; returns the ``gr.Blocks`` and its URL.

    Nothing is shared publicly, reported or kept: no tunnel, no analytics, no history on disk.

    Raises:
        ConfigError: ``ui.host`` and ``ui.port`` can't be listened on.
    """
    from starlette.middleware import Middleware

    from echo.ui.guard import OwnNames
    from echo.ui.page import build_ui
    from echo.ui.routes import clip_router
    from echo.ui.shelf import Shelf

    config, shelf = engine.config, Shelf()
    page = build_ui(engine, shelf)
    host, port = config.ui.host, config.ui.port
    names = Middleware(OwnNames, host=host, allowed=config.server.allowed_hosts)
    try:
        app, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
            app_kwargs={"middleware": [names]},
            # Each generation, running or waiting, waits for its audio in a thread.
            max_threads=config.engine.max_active + config.engine.max_queued + SPARE_THREADS,
            **_settings(config),
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}; if it is in use, try another: ui.port=7861",
            param="ui.port",
        ) from error
    app.include_router(clip_router(shelf))
    return page, str(url)


class ServedPage:
    """The page below PAGE_PATH of a server that is made later."""

    path = PAGE_PATH

    def __init__(self) -> None:
        self._guard: Guard | None = None

    def mount(self, app: FastAPI, engine: Engine) -> None:
        """Add the page of ``engine`` to ``app``, whose lifespan the server must run: Gradio's
        queue starts in it."""
        self._guard = mount(app, engine, self.path)

    def stop(self) -> None:
        """End what its visitors have open; in the server's event loop."""
        if self._guard is not None:
            self._guard.stop()


def page_beside_api(config: EchoConfig, *, keyed: bool) -> ServedPage | None:
    """The page for a server, as ``ui.on_server`` says; None, and a line in the log, for none.

    ``keyed``: the server wants keys, which browsers do not send: then the page has a password.

    Raises:
        ConfigError: the page is asked for and can't be had.
    """
    if config.ui.on_server is False:
        return None
    problem = None if _is_installed() else NOT_INSTALLED
    if keyed and config.ui.password is None:
        problem = problem or NO_PASSWORD
    if problem is None:
        return ServedPage()
    if config.ui.on_server:
        raise ConfigError(f"no page at {PAGE_PATH}: {problem}", param="ui.on_server")
    log.info("no page at %s: %s", PAGE_PATH, problem)
    return None


def mount(app: FastAPI, engine: Engine, path: str = PAGE_PATH) -> Guard:
    """Add the page of ``engine`` to ``app`` under ``path``; returns what ends its connections.

    The server must run ``app``'s lifespan: Gradio's queue starts in it.

    Raises:
        ConfigError: Gradio is not installed.
    """
    check_installed()
    import gradio as gr
    from starlette.routing import Mount

    from echo.ui.guard import Guard
    from echo.ui.page import build_ui
    from echo.ui.routes import clip_router
    from echo.ui.shelf import Shelf

    shelf = Shelf()
    page = build_ui(engine, shelf)
    gr.mount_gradio_app(app, page, path, show_error=False, **_settings(engine.config))
    mounted = app.router.routes.pop()
    assert isinstance(mounted, Mount)
    inner: Any = mounted.app
    inner.include_router(clip_router(shelf))
    inner.add_exception_handler(EchoError, _on_echo_error)
    guard = Guard(inner)
    app.router.routes.append(Mount(path, guard))
    return guard


def _on_echo_error(request: Request, error: Exception) -> Response:
    """What the server's limits raise while Gradio reads a body."""
    from fastapi.responses import PlainTextResponse

    assert isinstance(error, EchoError)
    status = 413 if isinstance(error, LimitExceededError) else 400
    return PlainTextResponse(error.message, status)


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("gradio") is not None
    except ValueError:  # blocked: sys.modules has None for it
        return False


def _settings(config: EchoConfig) -> dict[str, Any]:
    """What both ways of serving have in common."""
    from echo.ui.page import head, stylesheet, theme

    return {
        "theme": theme(),
        "css": stylesheet(),
        "head": head(),
        "footer_links": [],
        "run_history": False,
        "enable_monitoring": False,
        "mcp_server": False,
        "ssr_mode": False,
        "pwa": False,
        "max_file_size": config.voices.max_inline_bytes,
        "auth": _password_check(config.ui.password),
        "auth_message": PASSWORD_HINT if config.ui.password else None,
    }


def _password_check(password: str | None) -> Callable[[str, str], bool] | None:
    if password is None:
        return None
    secret = password.encode()
    return lambda user, given: hmac.compare_digest(given.encode(), secret)
