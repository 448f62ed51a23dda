"""The first tab: a text becomes speech while you listen."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from echo.audio.resample import Samples
from echo.config.difference import overrides_of
from echo.engine import Engine
from echo.errors import EchoError
from echo.spec import SAMPLE_RATE
from echo.ui import cards
from echo.ui.form import (
    AT_ONCE,
    RANDOM_SEED,
    Extras,
    Fields,
    fill_fields,
    html,
    layout_settings,
    layout_text,
    presets_of_style,
    read_fields,
    refresh_voices,
    sentences,
)
from echo.ui.session import Entry, Run, Session
from echo.ui.settings import from_query, to_query
from echo.ui.shelf import Clip
from echo.ui.speak import Form, Result, Update, as_sentence, speak
from echo.voices.source import resolve

IDLE = cards.Stage("idle", "Ready. The sound begins with the first block.")
SEED_BITS = 31


class SpeakTab(NamedTuple):
    fields: Fields
    extras: Extras
    stage: gr.HTML
    speak: gr.Button
    stop: gr.Button
    link: gr.Button
    query: gr.Textbox


def layout(engine: Engine) -> SpeakTab:
    """Text and player on the left, settings on the right."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=7, min_width=320):
            text, examples = layout_text()
            with gr.Row(elem_id="go"):
                speak_button = gr.Button(
                    "Speak", variant="primary", elem_id="speak", scale=3, min_width=90
                )
                stop = gr.Button("Stop", elem_id="stop", scale=1, min_width=70)
                link = gr.Button("Copy link", elem_id="link", scale=1, min_width=90)
            stage = html(cards.stage(IDLE), elem_id="stage")
            html("<kbd>Ctrl</kbd> <kbd>Enter</kbd> speaks · <kbd>Esc</kbd> stops", elem_id="keys")
        with gr.Column(scale=5, min_width=320):
            fields, extras = layout_settings(engine, text, examples)
    query = gr.Textbox(visible="hidden", elem_id="query")
    return SpeakTab(fields, extras, stage, speak_button, stop, link, query)


def wire(tab: SpeakTab, engine: Engine, session: gr.State, history: gr.HTML) -> None:
    """What its buttons do."""
    config, inputs, extras = engine.config, tab.fields.all(), tab.extras
    spoken = tab.speak.click(
        speaker(engine),
        inputs=[session, *inputs],
        outputs=[tab.stage, history],
        api_visibility="private",
        api_name="speak",
        concurrency_limit=None,  # the engine has a queue of its own
        show_progress="hidden",  # the status line says more
    )
    # It yields its own errors as sentences: what fails is the connection.
    spoken.failure(None, js="() => { window.echoLost(); }")
    tab.stop.click(Session.stop, inputs=session, api_name="stop", **AT_ONCE)
    extras.dice.click(lambda: secrets.randbits(SEED_BITS), outputs=tab.fields.seed, **AT_ONCE)
    extras.last.click(last_seed, inputs=session, outputs=tab.fields.seed, **AT_ONCE)
    extras.examples.input(
        lambda text: (text, None), extras.examples, [tab.fields.text, extras.examples], **AT_ONCE
    )
    for event in (extras.style.input, extras.flat.input, extras.force.input):
        event(
            lambda style, flat, force: presets_of_style(style, flat, force, config),
            inputs=[extras.style, extras.flat, extras.force],
            outputs=list(tab.fields.controls),
            **AT_ONCE,
        )
    extras.listen.click(auditioner(engine), [session, tab.fields.voice], extras.audition, **AT_ONCE)

    @sentences
    def link(*values: Any) -> str:
        return query_of(read_fields(config, *values), engine)

    # Not from the button straight to the address: the server knows what differs.
    made = tab.link.click(link, inputs, tab.query, **AT_ONCE)
    made.success(None, tab.query, None, js="(query) => { window.echoLink(query); }")


def opened(engine: Engine) -> Any:
    """The handler of the page's load: fills the fields as the link says, or says on the stage
    what is wrong with it: there is nothing else yet to show that."""

    def on_load(query: str) -> list[Any]:
        try:
            given = from_query((query or "").removeprefix("?"))
        except EchoError as error:
            stage = cards.stage(cards.Stage("error", as_sentence(error.message)))
            return [*refresh_voices(engine), stage]
        # Without a link nothing is touched: the visitor may be typing already.
        return [*(fill_fields(engine, given) if given else refresh_voices(engine)), gr.skip()]

    return on_load


def speaker(engine: Engine) -> Any:
    """The handler of Speak."""

    def on_speak(session: Session, *values: Any) -> Iterator[list[Any]]:
        run = session.start()
        try:
            form = read_fields(engine.config, *values)
        except EchoError as error:
            yield [cards.stage(cards.Stage("error", as_sentence(error.message))), gr.skip()]
            return
        yield from _spoken(engine, session, form, run)

    return on_speak


def _spoken(engine: Engine, session: Session, form: Form, run: Run) -> Iterator[list[Any]]:
    clip = session.shelf.open("echo", engine.sample_rate)
    updates, kept = speak(engine, form, run), False
    try:
        for update in updates:
            if update.audio is not None:
                clip.add(update.audio)
            if update.result is not None:
                clip.finish()
                entry, kept = remember(session, engine, form, clip, update.result), True
                yield [cards.stage(_view(update, clip, entry)), cards.history(session.history)]
            else:
                yield [cards.stage(_view(update, clip)), gr.skip()]
    finally:
        updates.close()
        clip.finish()
        if not kept:
            session.shelf.drop([clip.token])


def _view(update: Update, clip: Clip, entry: Entry | None = None) -> cards.Stage:
    if update.error is not None:
        return cards.Stage("error", update.error)
    state = "busy" if entry is None else "stopped" if entry.stopped else "done"
    return cards.Stage(state, update.status, clip, update.share, update.left_s, entry)


def remember(session: Session, engine: Engine, form: Form, clip: Clip, result: Result) -> Entry:
    """Add a generation to the visit's history."""
    clip.name = f"echo-{result.info.seed}"
    return session.remember(
        text=form.text,
        voice=form.voice,
        own_clip=str(form.clip) if form.clip is not None else None,
        settings=form.given(engine),
        base=overrides_of(engine.config),
        clip=clip,
        stopped=result.stopped,
        info=result.info,
        stats=result.stats,
    )


def last_seed(session: Session) -> int:
    """The seed of the newest generation; random if there is none."""
    return session.history[0].info.seed if session.history else RANDOM_SEED


def restored(engine: Engine, entry: Entry) -> list[Any]:
    """Contents of the fields that make ``entry`` again."""
    own = entry.own_clip if entry.own_clip and Path(entry.own_clip).exists() else None
    given = {"text": entry.text, "seed": entry.info.seed, "clip": own, **entry.settings}
    if entry.own_clip is None:
        given["voice"] = entry.voice or entry.info.voice
    return fill_fields(engine, given)


def query_of(form: Form, engine: Engine) -> str:
    """The link's query: only what differs from what the fields show at first."""
    given: dict[str, Any] = {"text": form.text} if form.text else {}
    given |= {"voice": form.voice} if form.voice else {}
    given |= {"seed": form.seed} if form.seed not in (None, RANDOM_SEED) else {}
    return to_query({**given, **form.given(engine)})


def reference_of(engine: Engine, voice: str | None) -> Samples:
    """The recording behind a voice: [T] float32, 44.1 kHz.

    Raises VoiceNotFoundError, AudioDecodeError or LimitExceededError.
    """
    source = resolve(voice or None, engine.voices, engine.config.voices)
    if source is None:
        raise engine.voices.not_found(voice or "")
    return source.load()


def auditioner(engine: Engine) -> Any:
    """The handler of Listen."""

    @sentences
    def on_listen(session: Session, voice: str | None) -> Any:
        name = voice or "default voice"
        samples = reference_of(engine, voice)
        session.forget_auditions()
        clip = session.listen_to(session.shelf.put(name, samples, SAMPLE_RATE))
        html = f'<div class="tile">{cards.player(clip, label=name, live=True)}</div>'
        return gr.HTML(html, visible=True)

    return on_listen
