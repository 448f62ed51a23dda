"""The page: a header and four tabs."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from echo.engine import Engine
from echo.ui import compare_tab, history_tab, speak_tab, voices_tab
from echo.ui.form import AT_ONCE, html
from echo.ui.session import Session
from echo.ui.shelf import Shelf

STATIC = Path(__file__).parent / "static"
CACHE_SWEEP_S, CACHE_AGE_S = 3600, 24 * 3600  # of uploads
LOGO = (
    '<svg class="logo" viewBox="0 0 32 32" aria-hidden="true" fill="none" stroke="currentColor" '
    'stroke-width="3" stroke-linecap="round"><path d="M5 12v8M11 6v20M17 10v12M23 13v6"/>'
    '<path d="M28.5 14.5v3" opacity=".55"/></svg>'
)
ICON = (
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32' fill='none' stroke='%230f766e' "
    "stroke-width='3' stroke-linecap='round'><path d='M5 12v8M11 6v20M17 10v12M23 13v6'/></svg>"
)
THEME_BUTTON = (
    '<button class="round" type="button" aria-label="Light or dark" '
    'onclick="window.echoTheme()"><svg viewBox="0 0 24 24" fill="none" stroke="currentColor" '
    'stroke-width="2"><circle cx="12" cy="12" r="8"/><path d="M12 4a8 8 0 0 1 0 16z" '
    'fill="currentColor"/></svg></button>'
)


def build_ui(engine: Engine, shelf: Shelf | None = None) -> gr.Blocks:
    """The page over ``engine``; :mod:`echo.ui.launch` serves it, with ``shelf`` beside it.

    Every visitor has their own state. What they hear is kept in memory and forgotten when they
    have left; uploads are deleted after a day and when the program ends.
    """
    shelf = shelf if shelf is not None else Shelf()
    with gr.Blocks(
        title="Echo", analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)
    ) as page:
        html(
            f'<header id="top">{LOGO}<div><h1>Echo</h1><p>{escape(engine.describe())}</p></div>'
            f"{THEME_BUTTON}</header>"
        )
        session = gr.State(Session(shelf), delete_callback=Session.close)
        with gr.Tabs(selected="speak", elem_id="tabs") as tabs:
            with gr.Tab("Speak", id="speak"):
                speak = speak_tab.layout(engine)
            with gr.Tab("Compare", id="compare"):
                compare = compare_tab.layout(engine)
            with gr.Tab("Voices", id="voices"):
                voices = voices_tab.layout(engine)
            with gr.Tab("History", id="history"):
                history = history_tab.layout()
        speak_tab.wire(speak, engine, session, history)
        compare_tab.wire(compare, engine, session, speak.fields)
        voices_tab.wire(voices, engine, session, speak.fields.voice, tabs)
        history_tab.wire(history, engine, session, speak.fields, tabs)
        page.load(
            speak_tab.opened(engine),
            inputs=speak.query,
            outputs=[*speak.fields.all(), speak.stage],
            js="() => [window.location.search]",
            **AT_ONCE,
        )
    return page


def theme() -> gr.Theme:
    """Colours and the system's fonts: others would be fetched from somewhere else."""
    return gr.themes.Default(
        primary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=("system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    ).set(
        button_primary_background_fill="#0f766e",
        button_primary_background_fill_hover="#115e59",
        button_primary_text_color="white",
        button_primary_background_fill_dark="#2dd4bf",
        button_primary_background_fill_hover_dark="#5eead4",
        button_primary_text_color_dark="#06201d",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="#eef2f4",
        button_secondary_border_color="#d3dce3",
        button_secondary_background_fill_dark="#18222b",
        button_secondary_background_fill_hover_dark="#22303b",
        button_secondary_border_color_dark="#34424e",
        button_border_width="1px",
        button_large_text_weight="600",
        button_large_text_size="15px",
        button_large_padding="9px 14px",
        block_border_width="1px",
        block_shadow="none",
        body_background_fill="#f5f7f8",
        body_background_fill_dark="#10171d",
        background_fill_primary_dark="#18222b",
        background_fill_secondary_dark="#22303b",
        block_background_fill_dark="#18222b",
        block_border_color_dark="#2b3843",
        block_info_text_color="#5b6b7b",
        block_info_text_color_dark="#9aabb9",
        input_background_fill_dark="#10171d",
        input_border_color_dark="#2b3843",
    )


def stylesheet() -> str:
    """``static/page.css``."""
    return (STATIC / "page.css").read_text("utf-8")


def head() -> str:
    """The page's script and icon, and the style of what is around Gradio's container."""
    style, script = ((STATIC / name).read_text("utf-8") for name in ("frame.css", "page.js"))
    icon = f'<link rel="icon" href="data:image/svg+xml,{ICON}">'
    return f"{icon}<style>{style}</style><script>{script}</script>"
