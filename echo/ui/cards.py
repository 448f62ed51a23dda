"""The parts of the page that Gradio has no component for, as HTML.

``static/page.js`` makes the players play; ``static/page.css`` gives them their looks.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from echo.engine.stats import RequestStats
from echo.ui.compare import CHOICES, Match, Standing, Variant, Vote, votes_table
from echo.ui.draw import BARS, bars_path
from echo.ui.recipes import recipes
from echo.ui.routes import FOLDER, LIVE_FORMAT
from echo.ui.session import Entry
from echo.ui.shelf import Clip

DOWNLOADS = ("wav", "flac", "mp3", "opus", "m4a")
SHOWN_TEXT = 160  # characters of a text in the history


@dataclass(frozen=True)
class Stage:
    """What the page shows of a generation. ``state``: idle, busy, done, stopped or error."""

    state: str
    status: str
    clip: Clip | None = None
    share: float | None = None
    left_s: float | None = None
    entry: Entry | None = None


@dataclass(frozen=True)
class Cell:
    """One place of the comparison's grid. ``note``: what to say where there is no clip."""

    variant: Variant
    clip: Clip | None = None
    stats: RequestStats | None = None
    seed: int | None = None
    note: str = ""


def stage(view: Stage) -> str:
    """The player, the progress and, at the end, the figures and the downloads."""
    left = f"about {max(1, round(view.left_s))} s left" if view.left_s is not None else ""
    percent = f"{100 * (view.share or 0):.1f}%"
    bar = (
        f'<div class="bar" role="progressbar" aria-label="Progress" aria-valuemin="0" '
        f'aria-valuemax="100" aria-valuenow="{100 * (view.share or 0):.0f}">'
        f'<span style="width:{percent}"></span></div>'
    )
    role = "alert" if view.state == "error" else "status"
    line = (
        f'<div class="line" role="{role}"><span class="dot"></span>'
        f'<span id="status">{escape(view.status)}</span><span class="left">{left}</span></div>'
    )
    rest = _outcome(view.entry) if view.entry is not None else ""
    return (
        f'<section class="stage" data-state="{view.state}">{line}{bar}'
        f"{player(view.clip, live=True)}{rest}</section>"
    )


def player(clip: Clip | None, *, label: str = "the clip", live: bool = False) -> str:
    """Play button, waveform to seek in, time. ``live``: it plays by itself as soon as it can."""
    ready = clip is not None and clip.samples > 0
    source = ""
    if clip is not None and ready:
        source = f' data-src="{_address(clip, LIVE_FORMAT)}" data-seconds="{clip.seconds:.3f}"'
        source += f' data-final="{_address(clip, "wav")}"' if clip.finished else ""
        source += f' data-live="{clip.token}"' if live else ""
        path = bars_path(clip.audio())
    else:
        path = "".join(f"M{i}.5 48.5V51.5" for i in range(BARS))
    off = "" if ready else " disabled"
    name = escape(label, quote=True)
    bars = f'viewBox="0 0 {BARS} 100" preserveAspectRatio="none" aria-hidden="true"'
    seconds = clip.seconds if clip is not None else 0.0
    return (
        f'<div class="player"{source}><button class="play" type="button" '
        f'aria-label="Play {name}"{off}><i></i></button><div class="wave">'
        f'<svg {bars}><path d="{path}"/></svg><svg class="played" {bars}><path d="{path}"/></svg>'
        f'<input class="seek" type="range" min="0" max="1000" value="0" '
        f'aria-label="Position in {name}"{off}></div>'
        f'<span class="time">{minutes(seconds)}</span></div>'
    )


def figures(stats: RequestStats, seed: int) -> str:
    """TTFB, RTF and what else was measured."""
    rows = {
        "TTFB": ("–" if stats.ttfb_s is None else f"{stats.ttfb_s:.2f} s", "Time to first byte"),
        "RTF": ("–" if stats.rtf is None else f"{stats.rtf:.2f}", "Compute time over audio time"),
        "Audio": (f"{stats.audio_s:.2f} s", "Length of the audio"),
        "Seed": (str(seed), "Say it again with this seed to hear the same"),
        "Rerolls": (str(stats.rerolls), "Blocks made again because of a long silence"),
        "Early stops": (str(stats.early_stops), "Parts that ended before their last block"),
    }
    items = (
        f'<div title="{tip}"><dt>{name}</dt><dd>{value}</dd></div>'
        for name, (value, tip) in rows.items()
    )
    return f'<dl class="figures">{"".join(items)}</dl>'


def downloads(clip: Clip) -> str:
    """A link for each format."""
    links = (
        f'<a href="{_address(clip, fmt)}" download="{escape(clip.name)}.{fmt}">{fmt}</a>'
        for fmt in DOWNLOADS
    )
    return f'<div class="downloads"><span>Download</span>{"".join(links)}</div>'


def history(entries: Sequence[Entry]) -> str:
    """A card for each generation, newest first."""
    if not entries:
        return _empty("Nothing yet", "What you make under Speak is kept here for this visit.")
    return f'<div class="cards">{"".join(map(_history_card, entries))}</div>'


def grid(cells: Sequence[Cell], status: str) -> str:
    """The variants side by side, in as many columns as there are values."""
    columns = 1 + max((cell.variant.column for cell in cells), default=0)
    tiles = "".join(_tile(cell) for cell in cells)
    return (
        f'<div class="line" role="status"><span id="compare-status">{escape(status)}</span></div>'
        f'<div class="grid" style="--columns:{columns}">{tiles}</div>'
    )


def blind(match: Match | None, done: int, total: int) -> str:
    """The pair to choose between, without names."""
    if match is None:
        return _empty("All pairs are heard", "The results are below.") if total else ""
    sides = "".join(
        f'<article class="tile"><h4>{name}</h4>{player(clip, label=name)}</article>'
        for name, clip in (("A", match.clip_a), ("B", match.clip_b))
    )
    return (
        f'<p class="hint">Pair {done + 1} of {total}. Which sounds better? Names are shown only '
        f'in the results.</p><div class="grid" style="--columns:2">{sides}</div>'
    )


def results(found: Sequence[Standing], votes: Sequence[Vote]) -> str:
    """Share of won comparisons with its interval, and the log to download."""
    if not votes:
        return _empty("No votes yet", "Compare at least two variants, then start the blind test.")
    rows = "".join(_standing(each) for each in found)
    ties = sum(vote.choice == "same" for vote in votes)
    csv = base64.b64encode(votes_table(votes).to_csv(index=False).encode()).decode("ascii")
    return (
        f'<div class="results"><h3>{len(votes)} {"vote" if len(votes) == 1 else "votes"}'
        f"{f', {ties} without a difference' if ties else ''}</h3>{rows}"
        '<div class="axis"><span>0 %</span><span>50 %</span><span>100 % won</span></div>'
        '<p class="hint">Bars are 95 % intervals (Wilson) of the share of comparisons won; '
        "answers without a difference decide nothing. Bars that overlap tell little yet.</p>"
        f'<div class="downloads"><span>Log</span><a href="data:text/csv;base64,{csv}" '
        'download="echo-votes.csv">csv</a></div></div>'
    )


def choice_label(choice: str) -> str:
    """The words of a vote's button."""
    return CHOICES[choice]


def voice_list(voices: Iterable[tuple[str, str]], chosen: str | None) -> str:
    """Buttons to pick a voice by. ``voices``: (id, what kind it is)."""
    items = "".join(
        f'<button type="button" class="voice" data-action="pick" data-voice="{escape(id_)}" '
        f'aria-pressed="{"true" if id_ == chosen else "false"}"><b>{escape(id_)}</b>'
        f"<span>{escape(kind)}</span></button>"
        for id_, kind in voices
    )
    if not items:
        return _empty("There are no voices", "Put some seconds of speech into audio_prompts/.")
    return f'<div class="voices">{items}</div>'


def facts(rows: Mapping[str, str], warnings: Sequence[str]) -> str:
    """Figures of a recording, and what is wrong with it."""
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in warnings)
    found = f'<ul class="warnings">{notes}</ul>' if notes else ""
    return f'<dl class="figures">{items}</dl>{found}'


def sound(title: str, clip: Clip, picture: str, more: str = "") -> str:
    """A recording: waveform, spectrogram (an image's URL) and what else is known (HTML)."""
    return (
        f'<section class="sound"><h3>{escape(title)}</h3>{player(clip, label=title)}'
        f'<img src="{picture}" alt="Spectrogram of {escape(title)}, 0 to 12 kHz">{more}</section>'
    )


def minutes(seconds: float) -> str:
    """0:07"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _outcome(entry: Entry) -> str:
    text = entry.info.text
    parts = "".join(f"<li>{escape(chunk)}</li>" for chunk in text.chunks)
    count = len(text.chunks)
    return (
        figures(entry.stats, entry.info.seed)
        + (downloads(entry.clip) if entry.clip.samples else "")
        + '<details class="more"><summary>Text as it was spoken'
        + (f", in {count} parts" if count > 1 else "")
        + f"</summary><p>{escape(text.normalized)}</p>"
        + (f"<ol>{parts}</ol>" if count > 1 else "")
        + "</details>"
    )


def _history_card(entry: Entry) -> str:
    text = entry.text if len(entry.text) <= SHOWN_TEXT else entry.text[:SHOWN_TEXT] + " …"
    voice = "your recording" if entry.own_clip else entry.info.voice or "no voice"
    given = [f"{key} {_plain(value)}" for key, value in entry.settings.items()]
    clock = time.strftime("%H:%M", time.localtime(entry.made_at))
    chips = [clock, voice, f"seed {entry.info.seed}", f"{entry.stats.audio_s:.1f} s", *given]
    chips += ["stopped"] if entry.stopped else []
    copies = "".join(
        f'<button type="button" class="small" data-copy="{escape(code)}">Copy {name}</button>'
        for name, code in recipes(entry).items()
    )
    return (
        f'<article class="card" data-entry="{entry.number}"><p class="said">{escape(text)}</p>'
        f'<div class="chips">{"".join(f"<span>{escape(chip)}</span>" for chip in chips)}</div>'
        f"{player(entry.clip, label=f'generation {entry.number}')}"
        '<div class="actions"><button type="button" class="small primary" data-action="restore" '
        f'data-entry="{entry.number}">Restore</button>{copies}</div></article>'
    )


def _tile(cell: Cell) -> str:
    label = cell.variant.label
    if cell.stats is None or cell.seed is None:
        body = f'<p class="hint">{escape(cell.note or "Waiting …")}</p>'
    else:
        rtf = "–" if cell.stats.rtf is None else f"{cell.stats.rtf:.2f}"
        ttfb = "–" if cell.stats.ttfb_s is None else f"{cell.stats.ttfb_s:.2f} s"
        again = f" · {cell.stats.rerolls} rerolled" if cell.stats.rerolls else ""
        body = f'<p class="hint">TTFB {ttfb} · RTF {rtf} · seed {cell.seed}{again}</p>'
    return (
        f'<article class="tile"><h4>{escape(label)}</h4>'
        f"{player(cell.clip, label=label)}{body}</article>"
    )


def _standing(each: Standing) -> str:
    low, high, share = 100 * each.low, 100 * each.high, 100 * each.share
    count = f"{each.wins} of {each.decided}" if each.decided else "undecided"
    return (
        f'<div class="standing"><span>{escape(each.label)}</span><div class="interval" '
        f'role="img" aria-label="won {count}; between {low:.0f} and {high:.0f} percent">'
        f'<i class="half"></i><i class="range" style="left:{low:.1f}%;width:{high - low:.1f}%"></i>'
        f'<i class="point" style="left:{share:.1f}%"></i></div><span>{count}</span></div>'
    )


def _empty(title: str, hint: str) -> str:
    return f'<div class="empty"><b>{escape(title)}</b><span>{escape(hint)}</span></div>'


def _plain(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "off" if value is None or value is False else "on" if value is True else str(value)


def _address(clip: Clip, fmt: str) -> str:
    return f"{FOLDER}/{clip.token}.{fmt}"
