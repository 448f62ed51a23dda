"""The fourth tab: what was made in this visit, to hear, restore or copy."""

from __future__ import annotations

from typing import Any

import gradio as gr

from echo.engine import Engine
from echo.errors import InvalidRequestError
from echo.ui import cards
from echo.ui.form import AT_ONCE, Fields, html, sentences
from echo.ui.session import Session
from echo.ui.speak_tab import restored
from echo.ui.voices_tab import PICK


def layout() -> gr.HTML:
    """The cards."""
    return html(cards.history([]), elem_id="history", js_on_load=PICK)


def wire(
    history: gr.HTML, engine: Engine, session: gr.State, fields: Fields, tabs: gr.Tabs
) -> None:
    """Restore."""
    history.click(restorer(engine), session, [*fields.all(), tabs], **AT_ONCE)


def restorer(engine: Engine) -> Any:
    """The handler of Restore."""

    @sentences
    def on_restore(session: Session, event: gr.EventData) -> list[Any]:
        entry = session.entry(int(event._data.get("entry", 0)))
        if entry is None:
            raise InvalidRequestError("this generation is no longer in the history")
        return [*restored(engine, entry), gr.Tabs(selected="speak")]

    return on_restore
