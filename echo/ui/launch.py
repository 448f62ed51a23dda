"""From a configuration to a served page."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from echo.config.schema import EchoConfig
from echo.engine import Engine
from echo.errors import ConfigError

if TYPE_CHECKING:
    import gradio as gr

DESCRIPTION = "Echo's page in the browser. It listens on ui.host and ui.port."
SPARE_THREADS = 8  # for everything but generations


def launch(config: EchoConfig) -> int:
    """Load the engine and serve its page until Ctrl-C; returns the exit status.

    Raises:
        ConfigError: Gradio is not installed, or ``ui.host`` and ``ui.port`` can't be listened on.
        CheckpointError: weights that are not there, not complete or of another model.
    """
    if importlib.util.find_spec("gradio") is None:
        raise ConfigError("the page needs Gradio: pip install 'echo-tts[ui]'")
    from echo.ui.page import build_ui

    with Engine.from_config(config) as engine:
        engine.warm_up()
        page = build_ui(engine)
        url = open_page(page, config)
        sys.stdout.write(f"{engine.describe()}\nopen {url} in a browser; Ctrl-C stops\n")
        sys.stdout.flush()
        page.block_thread()
    return 0


def open_page(page: gr.Blocks, config: EchoConfig) -> str:
    """Serve ``page`` in the background; returns its URL.

    Nothing is shared publicly, reported or kept: no tunnel, no analytics, no history.

    Raises:
        ConfigError: ``ui.host`` and ``ui.port`` can't be listened on.
    """
    import gradio as gr

    host, port = config.ui.host, config.ui.port
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
            theme=gr.themes.Default(  # the system's fonts: others would be fetched
                font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
            ),
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            max_file_size=config.voices.max_inline_bytes,
            # Each generation, running or waiting, waits for its audio in a thread.
            max_threads=config.engine.max_active + config.engine.max_queued + SPARE_THREADS,
        )
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port}; if it is in use, try another: ui.port=7861",
            param="ui.port",
        ) from error
    return str(url)
