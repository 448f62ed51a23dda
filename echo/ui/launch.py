"""From a configuration to a served page, alone or beside the API."""

from __future__ import annotations

import hmac
import importlib.util
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from echo.config.schema import EchoConfig
from echo.engine import Engine
from echo.errors import ConfigError

if TYPE_CHECKING:
    from fastapi import FastAPI

DESCRIPTION = "Echo's page in the browser. It listens on ui.host and ui.port."
SPARE_THREADS = 8  # for everything but generations
PASSWORD_HINT = "Any user name; the password is the one this page was started with."


def launch(config: EchoConfig) -> int:
    """Load the engine and serve its page until Ctrl-C; returns the exit status.

    Raises:
        ConfigError: Gradio is not installed, or ``ui.host`` and ``ui.port`` can't be listened on.
        CheckpointError: weights that are not there, not complete or of another model.
    """
    check_installed()
    with Engine.from_config(config) as engine:
        engine.warm_up()
        page, url = open_page(engine)
        sys.stdout.write(f"{engine.describe()}\nopen {url} in a browser; Ctrl-C stops\n")
        sys.stdout.flush()
        page.block_thread()
    return 0


def check_installed() -> None:
    """Raise ConfigError unless Gradio is there."""
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs Gradio: pip install 'echo-tts[ui]'")


def open_page(engine: Engine) -> tuple[Any, str]:
    """Serve the page of ``engine`` in the background; returns the ``gr.Blocks`` and its URL.

    Nothing is shared publicly, reported or kept: no tunnel, no analytics, no history on disk.

    Raises:
        ConfigError: ``ui.host`` and ``ui.port`` can't be listened on.
    """
    from echo.ui.page import build_ui
    from echo.ui.routes import clip_router
    from echo.ui.shelf import Shelf

    config, shelf = engine.config, Shelf()
    page = build_ui(engine, shelf)
    host, port = config.ui.host, config.ui.port
    try:
        app, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
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


def mount(app: FastAPI, engine: Engine, path: str = "/ui") -> FastAPI:
    """Add the page of ``engine`` to ``app`` under ``path``; returns ``app``.

    The server must run ``app``'s lifespan: Gradio's queue starts in it.

    Raises:
        ConfigError: Gradio is not installed.
    """
    check_installed()
    import gradio as gr

    from echo.ui.page import build_ui
    from echo.ui.routes import clip_router
    from echo.ui.shelf import Shelf

    shelf = Shelf()
    app.include_router(clip_router(shelf), prefix=path)  # before the page, which takes the rest
    return gr.mount_gradio_app(
        app, build_ui(engine, shelf), path, show_error=False, **_settings(engine.config)
    )


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
