"""The third tab: the voices at hand, how good their recordings are, and new ones."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from echo.audio.resample import Samples
from echo.engine import Engine
from echo.errors import InvalidRequestError
from echo.spec import SAMPLE_RATE
from echo.ui import cards
from echo.ui.draw import spectrogram_url
from echo.ui.form import AT_ONCE, default_voice, html, sentences, voice_choices
from echo.ui.recordings import examine
from echo.ui.session import Session
from echo.ui.speak_tab import reference_of
from echo.voices.clone_names import VoiceDetails
from echo.voices.clones import ClonedVoice
from echo.voices.reconstruct import reconstruct
from echo.voices.store import CLONE_MARK, VoiceInfo

PICK = """
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-action]");
  if (button) trigger("click", { ...button.dataset });
});
"""
CLONING_OFF = (
    "Adding voices is off. Start with `inworld.clone_enabled=true` to turn it on; a recording of "
    "your own works under **Speak** in any case."
)

_codec_turn = threading.Lock()  # one reconstruction at a time: the listeners go first


class NewVoice(NamedTuple):
    name: gr.Textbox
    sample: gr.Audio
    consent: gr.Checkbox
    add: gr.Button


class VoicesTab(NamedTuple):
    listing: gr.HTML
    chosen: gr.Textbox
    details: gr.HTML
    use: gr.Button
    copy: gr.Button
    delete: gr.Button
    refresh: gr.Button
    new: NewVoice | None  # None where adding is off


def layout(engine: Engine) -> VoicesTab:
    """The list, the chosen voice, and a form for a new one where that is allowed."""
    listing = html(_listing(engine, None), elem_id="voices", js_on_load=PICK)
    chosen = gr.Textbox(visible="hidden", elem_id="chosen")
    with gr.Row():
        use = gr.Button("Speak with it", elem_id="use", min_width=120)
        copy = gr.Button("Hear what the codec keeps", elem_id="codec", min_width=200)
        delete = gr.Button("Delete", variant="stop", elem_id="delete", visible=False, min_width=90)
        refresh = gr.Button("Look again", elem_id="refresh", min_width=110)
    details = html(elem_id="details")
    new = _layout_new() if engine.config.inworld.clone_enabled else None
    if new is None:
        gr.Markdown(CLONING_OFF)
    return VoicesTab(listing, chosen, details, use, copy, delete, refresh, new)


def _layout_new() -> NewVoice:
    with gr.Accordion("Add a voice", open=False, elem_id="new"):
        name = gr.Textbox(
            label="Name", info="Letters, digits, _, - and spaces.", max_lines=1, elem_id="new-name"
        )
        sample = gr.Audio(
            label="5 to 30 s of clean speech",
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
        )
        consent = gr.Checkbox(label="The speaker has agreed to this use of their voice")
        add = gr.Button("Add", variant="primary", elem_id="add")
    return NewVoice(name, sample, consent, add)


def wire(
    tab: VoicesTab, engine: Engine, session: gr.State, speak_voice: gr.Dropdown, tabs: gr.Tabs
) -> None:
    """What its buttons do."""
    shown = [tab.listing, tab.chosen, tab.details, tab.delete]
    tab.listing.click(picker(engine), session, shown, **AT_ONCE)
    tab.use.click(user(engine), tab.chosen, [speak_voice, tabs], **AT_ONCE)
    tab.copy.click(
        copier(engine),
        [session, tab.chosen],
        tab.details,
        api_visibility="private",
        concurrency_limit=2,
        show_progress="minimal",
    )
    tab.delete.click(deleter(engine), tab.chosen, [*shown, speak_voice], **AT_ONCE)
    tab.refresh.click(
        lambda voice: (_listing(engine, voice), gr.Dropdown(choices=voice_choices(engine))),
        tab.chosen,
        [tab.listing, speak_voice],
        **AT_ONCE,
    )
    if tab.new is not None:
        tab.new.add.click(
            adder(engine),
            [session, tab.new.name, tab.new.sample, tab.new.consent],
            [*shown, speak_voice, tab.new.name, tab.new.sample],
            api_visibility="private",
            show_progress="minimal",
        )


def user(engine: Engine) -> Any:
    """The handler of Speak with it."""

    def on_use(voice: str) -> list[Any]:
        value = voice or default_voice(engine)
        return [
            gr.Dropdown(choices=voice_choices(engine), value=value),
            gr.Tabs(selected="speak"),
        ]

    return on_use


def picker(engine: Engine) -> Any:
    """The handler of a click on a voice."""

    @sentences
    def on_pick(session: Session, event: gr.EventData) -> list[Any]:
        return _chosen(engine, session, str(event._data.get("voice", "")))

    return on_pick


def copier(engine: Engine) -> Any:
    """The handler of the codec's copy."""

    @sentences
    def on_copy(session: Session, voice: str) -> str:
        name = voice or default_voice(engine) or ""
        samples = reference_of(engine, name)
        with _codec_turn, engine.using() as parts:
            again = reconstruct(parts.codec, parts.pca, samples)
        about = _about(session, name, samples)  # first: it forgets what was there before
        return about + _sound(session, f"{name}-codec", "After the codec", again)

    return on_copy


def adder(engine: Engine) -> Any:
    """The handler of Add."""

    @sentences
    def on_add(session: Session, name: str, sample: str | None, consent: bool) -> list[Any]:
        if not consent:
            raise InvalidRequestError("tick that the speaker has agreed; else it is not added")
        if not sample:
            raise InvalidRequestError("record or upload some seconds of speech first")
        made = engine.clones.create(
            engine.config.inworld.default_workspace,
            name or "",
            [Path(sample).read_bytes()],
            VoiceDetails(display_name=name),
            max_bytes=engine.config.inworld.max_sample_size,
            param="sample",
        )
        voices = gr.Dropdown(choices=voice_choices(engine))
        return [*_chosen(engine, session, made.id), voices, "", None]

    return on_add


def deleter(engine: Engine) -> Any:
    """The handler of Delete."""

    @sentences
    def on_delete(voice: str) -> list[Any]:
        clone = _clone(engine, voice)
        if clone is None:
            raise InvalidRequestError("only voices that were added here can be deleted")
        engine.clones.delete(clone)
        voices = gr.Dropdown(choices=voice_choices(engine), value=default_voice(engine))
        return [_listing(engine, None), "", "", gr.Button(visible=False), voices]

    return on_delete


def _chosen(engine: Engine, session: Session, voice: str) -> list[Any]:
    about = _about(session, voice, reference_of(engine, voice))
    deletable = gr.Button(visible=_clone(engine, voice) is not None)
    return [_listing(engine, voice), voice, about, deletable]


def _clone(engine: Engine, voice: str) -> ClonedVoice | None:
    """The cloned voice of that id, where deleting is allowed."""
    return engine.clones.by_id(voice) if engine.config.inworld.clone_enabled else None


def _about(session: Session, name: str, samples: Samples) -> str:
    session.forget_auditions()
    found = examine(samples, SAMPLE_RATE)
    return _sound(session, name, name, samples, cards.facts(found.facts(), found.warnings()))


def _sound(session: Session, name: str, title: str, samples: Samples, more: str = "") -> str:
    clip = session.listen_to(session.shelf.put(name, samples, SAMPLE_RATE))
    return cards.sound(title, clip, spectrogram_url(samples, SAMPLE_RATE), more)


def _listing(engine: Engine, chosen: str | None) -> str:
    return cards.voice_list(((v.id, _kind(v)) for v in engine.voices.list()), chosen)


def _kind(voice: VoiceInfo) -> str:
    if CLONE_MARK in voice.id:
        return "added"
    return "folder of clips" if voice.type == "folder" else "recording"
