"""The page: what is on it, and what its buttons do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from echo.audio.encode import encode_file, open_encoder
from echo.config import preset_names
from echo.engine import Engine
from echo.errors import EchoError, GenerationError
from echo.ui.player import StreamPlayer
from echo.ui.speak import Form, Result, Session, speak

RANDOM_SEED = -1
MAX_SEED = 2**53 - 1  # the browser's numbers are exact up to here
CACHE_SWEEP_S, CACHE_AGE_S = 3600, 24 * 3600  # of uploads and finished clips

EXAMPLES = (
    "[S1] Good morning! The kettle is on, and the rain has finally stopped.",
    "[S1] Did you hear that? [S2] It was only the wind. (laughs) Come in, sit down.",
    "[S1] At 7:45 p.m. the last ferry leaves; if we miss it, we wait until tomorrow.",
    "[S1] Once there was a lighthouse keeper who read the weather aloud every evening. Nobody had "
    "asked her to. But the fishermen left their windows open, and in winter, when no boat went "
    "out, they listened all the same.",
)


class _Form(NamedTuple):
    """What is said, and how: the inputs of Speak, in their order."""

    text: gr.Textbox
    voice: gr.Dropdown
    clip: gr.Audio
    preset: gr.Dropdown
    seed: gr.Number


class _News(NamedTuple):
    """What comes of it: the outputs of Speak, in their order."""

    status: gr.Textbox
    player: StreamPlayer
    clip: gr.Audio
    seed: gr.Textbox
    figures: gr.Markdown
    normalized: gr.Textbox
    chunks: gr.Textbox


class _Buttons(NamedTuple):
    speak: gr.Button
    stop: gr.Button
    refresh: gr.Button
    reuse: gr.Button


def build_ui(engine: Engine) -> gr.Blocks:
    """The page over ``engine``; :mod:`echo.ui.launch` serves it.

    Every visitor has their own state; what they hear and upload is deleted after a day and when
    the program ends.
    """
    with gr.Blocks(
        title="Echo", analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)
    ) as page:
        gr.Markdown("# Echo")
        gr.Textbox(engine.describe(), show_label=False, container=False, interactive=False)
        session = gr.State(Session())
        form, news, buttons = _layout(engine)
        buttons.speak.click(
            _speaker(engine),
            inputs=[session, *form],
            outputs=list(news),
            api_name="speak",
            concurrency_limit=None,  # the engine has a queue of its own
            show_progress="hidden",  # the status line says more
        )
        at_once: dict[str, Any] = {"queue": False, "api_visibility": "private"}
        buttons.stop.click(Session.stop, inputs=session, **at_once)
        buttons.reuse.click(_seed_again, inputs=news.seed, outputs=form.seed, **at_once)

        def list_voices() -> Any:
            return gr.Dropdown(choices=_voices(engine))

        for event in (buttons.refresh.click, page.load):
            event(list_voices, outputs=form.voice, **at_once)
    return page


def _layout(engine: Engine) -> tuple[_Form, _News, _Buttons]:
    with gr.Row():
        with gr.Column():
            text = gr.Textbox(label="Text", lines=5, max_lines=20, placeholder="What to say")
            with gr.Row():
                speak_button = gr.Button("Speak", variant="primary")
                stop_button = gr.Button("Stop", variant="stop")
            gr.Examples([[example] for example in EXAMPLES], inputs=text, label="For example")
            form, refresh = _settings(engine, text)
        with gr.Column():
            news, reuse = _news()
    return form, news, _Buttons(speak_button, stop_button, refresh, reuse)


def _settings(engine: Engine, text: gr.Textbox) -> tuple[_Form, gr.Button]:
    with gr.Row(equal_height=True):
        voice = gr.Dropdown(
            label="Voice",
            info="None chosen: the default voice",
            choices=_voices(engine),
            value=_default_voice(engine),
            allow_custom_value=True,  # one that came after the page was opened
            scale=4,
        )
        refresh = gr.Button("Refresh", scale=1, min_width=80)
    configured = engine.config.preset.name
    with gr.Row():
        preset = gr.Dropdown(
            label="Preset",
            choices=list(dict.fromkeys((configured, *preset_names()))),
            value=configured,
        )
        seed = gr.Number(
            label=f"Seed ({RANDOM_SEED}: random)",
            value=RANDOM_SEED,
            precision=0,
            minimum=RANDOM_SEED,
            maximum=MAX_SEED,
        )
    clip = gr.Audio(
        label="Instead of a voice: some seconds of speech of your own",
        sources=["upload"],
        type="filepath",
        buttons=[],
    )
    return _Form(text, voice, clip, preset, seed), refresh


def _news() -> tuple[_News, gr.Button]:
    status = gr.Textbox(label="Status", interactive=False, elem_id="status")
    player = StreamPlayer(
        label="Live", streaming=True, autoplay=True, interactive=False, buttons=[]
    )
    clip = gr.Audio(label="The whole clip", interactive=False, buttons=["download"])
    figures = gr.Markdown()
    with gr.Row(equal_height=True):
        seed = gr.Textbox(label="Last seed used", interactive=False, scale=4)
        reuse = gr.Button("Use it again", scale=1, min_width=80)
    normalized = gr.Textbox(label="Text as it was spoken", interactive=False, lines=2)
    chunks = gr.Textbox(label="In parts", interactive=False, lines=2)
    return _News(status, player, clip, seed, figures, normalized, chunks), reuse


def _default_voice(engine: Engine) -> str | None:
    """The configured default if it is there; None lets the engine choose."""
    named = engine.config.voices.default
    found = engine.voices.get(named) if named is not None else None
    return None if found is None else found.id


def _voices(engine: Engine) -> list[str]:
    return [voice.id for voice in engine.voices.list()]


def _seed_again(last: str) -> int:
    return int(last) if last else RANDOM_SEED


def _speaker(engine: Engine) -> Any:
    """The handler of Speak."""

    def on_speak(
        session: Session,
        text: str,
        voice: str | None = None,
        clip: str | None = None,
        preset: str | None = None,
        seed: int | None = RANDOM_SEED,
    ) -> Iterator[list[Any]]:
        """Speak a text; yields status, live audio, whole clip, seed, figures, text, parts."""
        form = Form(text, voice, Path(clip) if clip else None, preset, seed)
        encoder = open_encoder("aac", engine.sample_rate)
        updates = speak(engine, form, session.start())
        yield _cleared()
        try:
            for update in updates:
                if update.error is not None:
                    raise GenerationError(update.error)
                live = encoder.push(update.audio) if update.audio is not None else b""
                if update.result is None:
                    yield _shown(update.status, live)
                else:
                    yield _shown("Finishing …", encoder.close())
                    yield from _finished(update.status, update.result)
        except EchoError as error:
            yield _shown(f"Error: {error.message}")
            raise gr.Error(error.message, print_exception=False) from error
        finally:
            updates.close()

    return on_speak


def _cleared() -> list[Any]:
    """Nothing of the run before; its seed stays."""
    return ["", gr.update(value=None), None, gr.skip(), "", "", ""]


def _shown(status: str, live: bytes = b"") -> list[Any]:
    # The clip gets a value each time: Gradio forgets to delete the files of one that was skipped.
    return [status, live or gr.skip(), None, *[gr.skip()] * 4]


def _finished(status: str, result: Result) -> Iterator[list[Any]]:
    info = result.info
    with tempfile.TemporaryDirectory() as folder:  # the page copies the file before it goes on
        clip = None
        if result.audio.size:
            clip = Path(folder) / f"echo-{info.seed}.wav"
            clip.write_bytes(encode_file(result.audio, result.sample_rate, "wav"))
        yield [
            status,
            gr.skip(),
            clip,
            str(info.seed),
            _figures(result),
            info.text.normalized,
            "\n".join(info.text.chunks),
        ]


def _figures(result: Result) -> str:
    stats = result.stats
    figures = {
        "TTFB": _seconds(stats.ttfb_s),
        "RTF": "–" if stats.rtf is None else f"{stats.rtf:.2f}",
        "Audio": _seconds(stats.audio_s),
        "Seed": str(result.info.seed),
        "Rerolls": str(stats.rerolls),
        "Early stops": str(stats.early_stops),
    }
    rows = (figures, ["---:"] * len(figures), figures.values())
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
