"""The second tab: the same text side by side, and a blind test of what was heard."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import gradio as gr

from echo.engine import Engine
from echo.errors import EchoError, InvalidRequestError
from echo.ui import cards
from echo.ui.compare import (
    CHOICES,
    Variant,
    Vote,
    draw_matches,
    parse_axis,
    save_vote,
    standings,
    variants,
)
from echo.ui.form import (
    AT_ONCE,
    RANDOM_SEED,
    Fields,
    html,
    preset_choices,
    read_fields,
    sentences,
    voice_choices,
)
from echo.ui.session import Run, Session
from echo.ui.shelf import Clip
from echo.ui.speak import Form, Result, as_sentence, speak

AXES = {
    "Presets": "preset",
    "Voices": "voice",
    "Seeds": "seed",
    "Following the text": "cfg_scale_text",
    "Following the voice": "cfg_scale_speaker",
    "Truncation": "truncation_factor",
    "Early stop": "early_stop_on_zero",
    "Reroll of silences": "vad_enabled",
}
NOTHING = "Nothing"
_SUGGESTED = {
    "seed": ["1", "2", "3", "4"],
    "cfg_scale_text": ["1", "3", "5", "8"],
    "cfg_scale_speaker": ["2", "5", "8", "12"],
    "truncation_factor": ["0.8", "0.9", "1"],
    "early_stop_on_zero": ["on", "off"],
    "vad_enabled": ["off", "on"],
}
PICKED = 2  # of the suggested values, at first
FIRST_SEED_BITS = 31


class CompareTab(NamedTuple):
    columns: gr.Dropdown
    column_values: gr.Dropdown
    rows: gr.Dropdown
    row_values: gr.Dropdown
    compare: gr.Button
    stop: gr.Button
    grid: gr.HTML
    begin: gr.Button
    pair: gr.HTML
    votes: gr.Row
    buttons: dict[str, gr.Button]
    results: gr.HTML


def layout(engine: Engine) -> CompareTab:
    """What varies, the grid, the blind test and its results."""
    gr.Markdown("Text, voice and settings are those under **Speak**; here you say what varies.")
    with gr.Row():
        columns, column_values = _layout_axis(engine, "Side by side", "preset")
        rows, row_values = _layout_axis(engine, "And downwards", None)
    with gr.Row():
        compare = gr.Button("Compare", variant="primary", elem_id="compare", scale=3, min_width=90)
        stop = gr.Button("Stop", elem_id="compare-stop", scale=1, min_width=70)
        begin = gr.Button("Start blind test", elem_id="blind", scale=1, min_width=140)
    grid = html(elem_id="grid")
    pair = html(elem_id="pair", visible=False)
    with gr.Row(visible=False, elem_id="votes") as votes:
        buttons = {
            choice: gr.Button(cards.choice_label(choice), elem_id=f"vote-{choice}", min_width=100)
            for choice in ("a", "same", "b")
        }
    results = html(cards.results([], []), elem_id="results")
    return CompareTab(
        *(columns, column_values, rows, row_values, compare, stop, grid, begin, pair, votes),
        buttons,
        results,
    )


def wire(tab: CompareTab, engine: Engine, session: gr.State, fields: Fields) -> None:
    """What its buttons do."""
    axes = [tab.columns, tab.column_values, tab.rows, tab.row_values]
    tab.compare.click(
        comparer(engine),
        inputs=[session, *axes, *fields.all()],
        outputs=[tab.grid, tab.pair, tab.votes],
        api_visibility="private",
        api_name="compare",
        concurrency_limit=None,  # the engine has a queue of its own
        show_progress="hidden",
    )
    tab.stop.click(Session.stop, inputs=session, **AT_ONCE)
    for axis, values in ((tab.columns, tab.column_values), (tab.rows, tab.row_values)):
        axis.input(lambda name: _values_of(engine, AXES.get(name)), axis, values, **AT_ONCE)
    shown = [tab.grid, tab.pair, tab.votes]
    tab.begin.click(begin_blind, session, shown, **AT_ONCE)
    for choice, button in tab.buttons.items():
        button.click(
            voter(engine, choice),
            [session, fields.text],
            [tab.pair, tab.votes, tab.results],
            **AT_ONCE,
        )


def comparer(engine: Engine) -> Any:
    """The handler of Compare."""

    def on_compare(
        session: Session,
        columns: str,
        column_values: Sequence[str],
        rows: str,
        row_values: Sequence[str],
        *values: Any,
    ) -> Iterator[list[Any]]:
        run = session.start()
        hidden = [gr.HTML(visible=False), gr.Row(visible=False)]
        try:
            form = read_fields(engine.config, *values)
            cells = variants(
                parse_axis(AXES.get(columns), column_values), parse_axis(AXES.get(rows), row_values)
            )
            session.forget_comparison()
            for grid in _compared(engine, session, form, cells, run):
                yield [gr.HTML(grid, visible=True), *hidden]
        except EchoError as error:
            yield [gr.skip(), gr.skip(), gr.skip()]
            raise gr.Error(as_sentence(error.message), print_exception=False) from error

    return on_compare


def _compared(
    engine: Engine, session: Session, form: Form, wanted: Sequence[Variant], run: Run
) -> Iterator[str]:
    """The grid after each thing that happens. One after another: their figures can be compared."""
    if form.seed in (None, RANDOM_SEED):  # the same for all, else it would be what differs
        form = replace(form, seed=secrets.randbits(FIRST_SEED_BITS))
    cells = [cards.Cell(variant) for variant in wanted]
    made: list[tuple[Variant, Clip]] = []
    for index, variant in enumerate(wanted):
        place = f"{index + 1} of {len(wanted)}: {variant.label}"
        result: Result | None = None
        for update in speak(engine, _varied(form, variant), run):
            if update.error is not None:
                cells[index] = cards.Cell(variant, note=update.error)
            result = update.result
            yield cards.grid(cells, f"{place} · {update.status}")
        if run.stopped:
            break
        if result is not None and result.audio.size:
            clip = session.shelf.put("echo", result.audio, result.sample_rate)
            session.compared.append(clip)
            made.append((variant, clip))
            cells[index] = cards.Cell(variant, clip, result.stats, result.info.seed)
    session.matches = draw_matches(made)
    verb = "Stopped" if run.stopped else "Done"
    rest = [cell if cell.clip or cell.note else replace(cell, note="Not made") for cell in cells]
    yield cards.grid(rest, f"{verb}: {len(made)} of {len(wanted)} made")


def _varied(form: Form, variant: Variant) -> Form:
    changes = dict(variant.changes)
    own: dict[str, Any] = {
        key: changes.pop(key) for key in ("voice", "seed", "preset") if key in changes
    }
    if "voice" in own:
        own["clip"] = None
    return replace(form, **own, settings={**form.settings, **changes})


@sentences
def begin_blind(session: Session) -> list[Any]:
    """Hide the names and show the first pair."""
    if not session.matches:
        raise InvalidRequestError("compare at least two variants first; then listen blindly")
    return [
        gr.HTML(visible=False),
        gr.HTML(cards.blind(session.matches[0], 0, len(session.matches)), visible=True),
        gr.Row(visible=True),
    ]


def voter(engine: Engine, choice: str) -> Any:
    """The handler of a vote's button."""
    assert choice in CHOICES

    @sentences
    def on_vote(session: Session, text: str) -> list[Any]:
        if not session.matches:
            raise InvalidRequestError("there is no pair to vote on; start the blind test")
        match = session.matches.pop(0)
        vote = Vote(text, match.a.label, match.b.label, choice)
        session.votes.append(vote)
        session.voted += 1
        if engine.config.ui.votes_file is not None:
            save_vote(vote, engine.config.ui.votes_file)
        left = session.matches[0] if session.matches else None
        total = session.voted + len(session.matches)
        return [
            cards.blind(left, session.voted, total),
            gr.Row(visible=left is not None),
            cards.results(standings(session.votes), session.votes),
        ]

    return on_vote


def _layout_axis(engine: Engine, label: str, key: str | None) -> tuple[gr.Dropdown, gr.Dropdown]:
    name = next((name for name, each in AXES.items() if each == key), NOTHING)
    slug = "columns" if key else "rows"
    with gr.Column(min_width=260):
        axis = gr.Dropdown(
            label=label,
            choices=[*AXES] if key else [NOTHING, *AXES],
            value=name,
            elem_id=slug,
            filterable=False,
        )
        values = gr.Dropdown(
            label="Values",
            info="Pick, or type your own and press Enter.",
            multiselect=True,
            allow_custom_value=True,
            choices=_choices(engine, key),
            value=_choices(engine, key)[:PICKED],
            visible=key is not None,
            elem_id=f"{slug}-values",
        )
    return axis, values


def _values_of(engine: Engine, key: str | None) -> Any:
    choices = _choices(engine, key)
    return gr.Dropdown(choices=choices, value=choices[:PICKED], visible=key is not None)


def _choices(engine: Engine, key: str | None) -> list[str]:
    if key == "preset":
        return preset_choices(engine.config)
    if key == "voice":
        return voice_choices(engine)
    return _SUGGESTED.get(key or "", [])
