"""The page: what is on it, and what its buttons do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def build_ui(engine: Engine) -> gr.Blocks:
    """The page over ``engine``; :mod:`echo.ui.launch` serves it.

    Every visitor has their own state; what they hear and upload is deleted after a day and when
    the program ends.
    """
    with gr.Blocks(
        title="Echo", analytics_enabled=False, delete_cache=(CACHE_SWEEP_S, CACHE_AGE_S)
    ) as page:
        gr.Markdown("# Echo")
        gr.Text(engine.describe(), show_label=False, container=False, interactive=False)
        session = gr.State(Session())
        with gr.Row():
            with gr.Column():
                form, refresh = _form(engine)
                with gr.Row():
                    speak_button = gr.Button("Speak", variant="primary")
                    stop_button = gr.Button("Stop", variant="stop")
            with gr.Column():
                news, reuse = _news()

        def refreshed() -> Any:
            return gr.Dropdown(choices=_voices(engine))

        speak_button.click(
            _speaker(engine),
            inputs=[session, *form],
            outputs=news,
            api_name="speak",
            concurrency_limit=None,  # the engine has a queue of its own
            show_progress="hidden",  # the status line says more
        )
        stop_button.click(
            Session.stop, inputs=session, outputs=None, queue=False, api_visibility="private"
        )
        voice, seed = form[1], form[4]
        for event in (refresh.click, page.load):
            event(refreshed, outputs=voice, queue=False, api_visibility="private")
        reuse.click(int, inputs=news[3], outputs=seed, queue=False, api_visibility="private")
    return page


def _form(engine: Engine) -> tuple[list[Any], gr.Button]:
    """What to say and how, in the order of :func:`_speaker`'s arguments; and Refresh."""
    text = gr.Textbox(label="Text", lines=5, max_lines=20, placeholder="[S1] Something to say")
    gr.Examples([[example] for example in EXAMPLES], inputs=text, label="For example")
    with gr.Row(equal_height=True):
        voice = gr.Dropdown(
            label="Voice",
            choices=_voices(engine),
            value=engine.config.voices.default,
            allow_custom_value=True,  # one that came after the page was opened
            info="None chosen: the default voice",
            scale=4,
        )
        refresh = gr.Button("Refresh", scale=1, min_width=80)
    clip = gr.Audio(
        label="Or a clip of your own, some seconds of speech; it goes before the voice above",
        sources=["upload"],
        type="filepath",
    )
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
    return [text, voice, clip, preset, seed], refresh


def _news() -> tuple[list[Any], gr.Button]:
    """What comes of it, in the order of :func:`_shown`'s values; and the button for the seed."""
    status = gr.Textbox(label="Status", interactive=False, elem_id="status")
    player = StreamPlayer(
        label="Live", streaming=True, autoplay=True, interactive=False, buttons=[]
    )
    clip = gr.Audio(label="The whole clip", interactive=False, buttons=["download"])
    with gr.Row(equal_height=True):
        seed = gr.Textbox(label="Last seed used", interactive=False, scale=4)
        reuse = gr.Button("Use it again", scale=1, min_width=80)
    figures = gr.Markdown()
    normalized = gr.Textbox(label="Text as it was spoken", interactive=False, lines=2)
    chunks = gr.Textbox(label="In parts", interactive=False, lines=2)
    return [status, player, clip, seed, figures, normalized, chunks], reuse


def _voices(engine: Engine) -> list[str]:
    return [voice.id for voice in engine.voices.list()]


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
    return [status, live or gr.skip(), *[gr.skip()] * 5]


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
    rows = {
        "Time to first audio (TTFB)": _seconds(stats.ttfb_s),
        "Compute time / audio time (RTF)": "–" if stats.rtf is None else f"{stats.rtf:.2f}",
        "Audio": _seconds(stats.audio_s),
        "Seed": result.info.seed,
        "Rerolls": stats.rerolls,
        "Early stops": stats.early_stops,
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | ---: |", *lines])


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} s"
