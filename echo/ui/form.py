"""The fields of a request on the page: which there are, what they hold, how they are filled."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from echo.config import preset_names
from echo.config.help import HELP
from echo.config.schema import EchoConfig
from echo.engine import Engine
from echo.errors import EchoError
from echo.ui.settings import (
    AS_TEXT,
    CHOICE,
    CONTROLS,
    FLAG,
    FLAT,
    FORCED,
    GROUPS,
    MODES,
    SIMPLE,
    STYLES,
    WHOLE,
    Control,
    fields,
    overrides,
)
from echo.ui.speak import Form, as_sentence
from echo.ui.texts import text_choices

RANDOM_SEED = -1
MAX_SEED = 2**53 - 1  # the browser's numbers are exact up to here
AT_ONCE: dict[str, Any] = {"queue": False, "api_visibility": "private", "show_progress": "hidden"}


class Fields(NamedTuple):
    """The inputs of a request, in their order; ``controls`` in the order of CONTROLS."""

    text: gr.Textbox
    voice: gr.Dropdown
    clip: gr.Audio
    preset: gr.Dropdown
    seed: gr.Number
    controls: tuple[Any, ...]

    def all(self) -> list[Any]:
        """As the inputs or outputs of an event."""
        return [*self[:5], *self.controls]


class Extras(NamedTuple):
    """What fills the fields in."""

    examples: gr.Dropdown
    style: gr.Dropdown
    flat: gr.Checkbox
    force: gr.Checkbox
    dice: gr.Button
    last: gr.Button
    listen: gr.Button
    audition: gr.HTML


def html(value: str = "", **given: Any) -> gr.HTML:
    """HTML in the page's own style, not in Gradio's for articles."""
    return gr.HTML(value, apply_default_css=False, padding=False, **given)


def sentences(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Whatever of ours goes wrong in ``handler`` is shown as a sentence."""

    @functools.wraps(handler)
    def shown(*given: Any, **named: Any) -> Any:
        try:
            return handler(*given, **named)
        except EchoError as error:
            raise gr.Error(as_sentence(error.message), print_exception=False) from error

    return shown


def read_fields(config: EchoConfig, *values: Any) -> Form:
    """What the visitor filled in. Raises InvalidRequestError; ``param`` is the setting."""
    text, voice, clip, preset, seed, *rest = values
    path = Path(clip) if clip else None
    return Form(text or "", voice or None, path, preset, seed, overrides(config, rest))


def refresh_voices(engine: Engine) -> list[Any]:
    """Leave all fields as they are; the voice may be chosen among those there are now."""
    return [gr.skip(), gr.Dropdown(choices=voice_choices(engine)), *[gr.skip()] * _REST]


def fill_fields(engine: Engine, given: Mapping[str, Any]) -> list[Any]:
    """Contents of all fields: what ``given`` says (names as in a link, and ``clip``), else what
    they show at first."""
    return [
        given.get("text", ""),
        gr.Dropdown(
            choices=voice_choices(engine), value=given.get("voice") or default_voice(engine)
        ),
        given.get("clip"),
        given.get("preset") or engine.config.preset.name,
        given.get("seed", RANDOM_SEED),
        *fields(engine.config, given),
    ]


def voice_choices(engine: Engine) -> list[str]:
    """Every voice there is."""
    return [voice.id for voice in engine.voices.list()]


def default_voice(engine: Engine) -> str | None:
    """The configured default if it is there, else the first; None where there are no voices."""
    named = engine.config.voices.default
    found = engine.voices.get(named) if named is not None else None
    if found is not None:
        return found.id
    return next((voice.id for voice in engine.voices.list()), None)


def preset_choices(config: EchoConfig) -> list[str]:
    """The configured preset first."""
    return list(dict.fromkeys((config.preset.name, *preset_names())))


def layout_text() -> tuple[gr.Textbox, gr.Dropdown]:
    """The text, and texts to try."""
    text = gr.Textbox(
        label="Text",
        info=HELP["input"],
        lines=6,
        max_lines=18,
        placeholder="What shall be said?",
        autofocus=True,
        elem_id="text",
    )
    examples = gr.Dropdown(
        label="Try a text",
        choices=text_choices(),
        value=None,
        elem_id="examples",
        filterable=True,
    )
    return text, examples


def layout_settings(
    engine: Engine, text: gr.Textbox, examples: gr.Dropdown
) -> tuple[Fields, Extras]:
    """Voice, preset, seed; more of it folded."""
    voice, clip, listen, audition = _layout_voice(engine)
    preset = gr.Dropdown(
        label="Preset",
        info=HELP["preset"],
        choices=preset_choices(engine.config),
        value=engine.config.preset.name,
        elem_id="preset",
    )
    with gr.Row(elem_id="seed-row", elem_classes="beside"):
        seed = gr.Number(
            label="Seed",
            info=HELP["seed"].replace("Absent or -1", "-1"),
            value=RANDOM_SEED,
            precision=0,
            minimum=RANDOM_SEED,
            maximum=MAX_SEED,
            elem_id="seed",
            scale=3,
            min_width=120,
        )
        dice = gr.Button("Roll dice", elem_id="dice", size="sm", min_width=84, scale=1)
        last = gr.Button("Use last", elem_id="use-last", size="sm", min_width=84, scale=1)
    made: dict[str, Any] = {}
    with gr.Accordion("Guidance", open=False, elem_id="simple"):
        style = gr.Dropdown(
            label="Style",
            info="Sets the two values below.",
            choices=list(STYLES),
            value=next(iter(STYLES)),
        )
        for key in SIMPLE:
            made[key] = _field(engine.config, _CONTROLS[key])
        with gr.Row():
            flat = gr.Checkbox(
                label="Flat", info="Calmer speech: truncation 0.8, rescaling 1.2", min_width=150
            )
            force = gr.Checkbox(
                label="Force the voice", info="Scale 1.5 down to time 0.9", min_width=150
            )
    with gr.Accordion("All settings", open=False, elem_id="advanced"):
        for group in GROUPS:
            _layout_group(engine.config, group, made)
    controls = tuple(made[control.key] for control in CONTROLS)
    return (
        Fields(text, voice, clip, preset, seed, controls),
        Extras(examples, style, flat, force, dice, last, listen, audition),
    )


def presets_of_style(style: str, flat: bool, force: bool, config: EchoConfig) -> list[Any]:
    """Contents of the controls after a style or a switch was chosen; others stay."""
    keys = {**FORCED, **FLAT, **STYLES["Close to both"]}
    given = {
        **STYLES.get(style, {}),
        **(FLAT if flat else {}),
        **(FORCED if force else {}),
    }
    filled = fields(config, given)
    return [
        value if control.key in keys else gr.skip()
        for control, value in zip(CONTROLS, filled, strict=True)
    ]


def _layout_voice(engine: Engine) -> tuple[gr.Dropdown, gr.Audio, gr.Button, gr.HTML]:
    with gr.Row(elem_id="voice-row", elem_classes="beside"):
        voice = gr.Dropdown(
            label="Voice",
            info="Type to search.",
            choices=voice_choices(engine),
            value=default_voice(engine),
            allow_custom_value=True,  # one that came after the page was opened
            elem_id="voice",
            scale=4,
            min_width=150,
        )
        listen = gr.Button("▶ Listen", elem_id="listen", size="sm", min_width=84, scale=1)
    audition = html(elem_id="audition", visible=False)
    with gr.Accordion("Your own voice instead", open=False, elem_id="own"):
        clip = gr.Audio(
            label="5 to 30 s of clean speech, used only with its speaker's consent",
            sources=["upload", "microphone"],
            type="filepath",
            buttons=[],
            elem_id="clip",
        )
    return voice, clip, listen, audition


def _layout_group(config: EchoConfig, group: str, made: dict[str, Any]) -> None:
    members = [c for c in CONTROLS if c.group == group and c.key not in SIMPLE]
    gr.Markdown(f"**{group}**", elem_classes="group")
    for pair in (members[i : i + 2] for i in range(0, len(members), 2)):
        with gr.Row():
            for control in pair:
                made[control.key] = _field(config, control)


def _field(config: EchoConfig, control: Control) -> Any:
    common: dict[str, Any] = {
        "label": control.label,
        "info": f"{_info(control.key)} `{control.key}`",
        "value": control.default(config),
        "elem_id": control.key.replace("_", "-"),
        "min_width": 200,
    }
    if control.kind == FLAG:
        return gr.Checkbox(**common)
    if control.kind == CHOICE:
        return gr.Dropdown(choices=list(MODES), **common)
    if control.kind in AS_TEXT:
        return gr.Textbox(placeholder=_placeholder(config, control), max_lines=1, **common)
    precision = 0 if control.kind == WHOLE else None
    step = 1 if precision == 0 else 0.1
    return gr.Number(precision=precision, step=step, **common)


def _info(key: str) -> str:
    """The help in the words of a form, where one leaves empty what a request leaves out."""
    return HELP[key].replace("null:", "Empty:").replace("Absent:", "Empty:")


def _placeholder(config: EchoConfig, control: Control) -> str:
    if control.path.startswith("preset."):
        return ", ".join(map(str, getattr(config.preset, control.key)))
    return _EMPTY.get(control.key, "off")


_REST = 3 + len(CONTROLS)  # fields after text and voice
_EMPTY = {
    "truncation_factor": "1",
    "speaker_kv_min_t": "throughout",
    "speaker_kv_max_layers": "all",
}
_CONTROLS = {control.key: control for control in CONTROLS}
