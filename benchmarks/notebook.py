"""What the notebooks share: players and pictures that are small enough for git, and intervals."""

from __future__ import annotations

import base64
import html
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import HTML, Audio, Image

from benchmarks.machine import ROOT
from benchmarks.report import BLUE, GREEN, GREY, INK, ORANGE, figure, small_png
from benchmarks.timing import mean_interval, median_interval
from echo.audio.encode import encode_file
from echo.audio.resample import Samples
from echo.spec import LATENTS_PER_SECOND, SAMPLE_RATE

__all__ = [
    "BLUE",
    "CONFIDENCE",
    "GREEN",
    "GREY",
    "INK",
    "LATENT_SECONDS",
    "ORANGE",
    "ROOT",
    "axes_of",
    "band",
    "dots",
    "figure",
    "mean_interval",
    "median_interval",
    "picture",
    "player",
    "players",
    "reading",
    "run",
    "staircase",
    "waveform",
]

LATENT_SECONDS = 1 / LATENTS_PER_SECOND
BIT_RATE = 48_000  # of the players' MP3, bits per second: 8 kB of notebook for a second
DOTS_PER_INCH = 80
CONFIDENCE = 0.9  # of all intervals
ENVELOPE_COLUMNS = 600


def run(program: str, *settings: str) -> None:
    """``python -m benchmarks.PROGRAM`` in the repository, in a process of its own.

    What it prints is dropped, its records count. Raises RuntimeError with its last words if it
    fails.
    """
    command = [sys.executable, "-m", f"benchmarks.{program}", *settings]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"benchmarks.{program} failed:\n{done.stderr[-2000:]}")


def player(samples: Samples) -> Audio:
    """A player of [T] float32 at 44.1 kHz."""
    audio = Audio(data=_mp3(samples))
    audio.mimetype = "audio/mpeg"  # it takes any bytes for WAV
    return audio


def players(takes: Mapping[str, Samples]) -> HTML:
    """A list of players, each with its name."""
    rows = []
    for name, samples in takes.items():
        url = "data:audio/mpeg;base64," + base64.b64encode(_mp3(samples)).decode("ascii")
        rows.append(
            f"<tr><td style='text-align:left'>{html.escape(name)}</td>"
            f"<td><audio controls src='{url}'></audio></td></tr>"
        )
    return HTML(f"<table>{''.join(rows)}</table>")


def picture(fig: Any) -> Image:
    """``fig`` as a small PNG."""
    return Image(data=small_png(fig, DOTS_PER_INCH), format="png")


def dots(
    axes: Any,
    samples: Mapping[str, Sequence[float]],
    label: str,
    *,
    colour: str = BLUE,
    average: bool = False,
) -> None:
    """Every sample as a faint dot, its median (or mean) with 90 % interval; one row for each name.

    ``label``: what is measured, with its unit.
    """
    of = mean_interval if average else median_interval
    for row, values in enumerate(samples.values()):
        middle, low, high = of(values, CONFIDENCE)
        axes.plot(values, [row] * len(values), "o", color=GREY, alpha=0.35, markersize=4)
        axes.plot([low, high], [row, row], color=colour, linewidth=2.5)
        axes.plot([middle], [row], "o", color=colour, markersize=7)
    axes.set_yticks(range(len(samples)), list(samples))
    axes.set_ylim(len(samples) - 0.5, -0.5)
    if min(min(values) for values in samples.values()) >= 0:
        axes.set_xlim(left=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.set_xlabel(label)


def band(
    axes: Any, x: Sequence[float], samples: Sequence[Sequence[float]], label: str, *, colour: str
) -> None:
    """Means of ``samples`` over ``x`` as a line, their 90 % intervals as a band."""
    middle, low, high = np.array([mean_interval(values, CONFIDENCE) for values in samples]).T
    axes.plot(x, middle, "o-", color=colour, markersize=5, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)


def waveform(axes: Any, samples: Samples, *, colour: str = BLUE) -> None:
    """The outline of a sound over seconds."""
    edges = np.linspace(0, len(samples), min(ENVELOPE_COLUMNS, len(samples)) + 1).astype(int)[:-1]
    seconds = edges / SAMPLE_RATE
    high, low = (f.reduceat(samples, edges) for f in (np.maximum, np.minimum))
    axes.fill_between(seconds, low, high, color=colour, linewidth=0)
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-3)
    axes.set_xlim(0, len(samples) / SAMPLE_RATE)
    axes.set_ylim(-peak, peak)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.set_xlabel("seconds")


def staircase(axes: Any, parts: Sequence[tuple[float, float]]) -> None:
    """Audio as it comes beside audio as it is played.

    ``parts``: (seconds since the question, seconds of audio) of each. Where the dashed line is
    level, nothing is left to play, and the listener waits.
    """
    first, made, played = parts[0][0], [(0.0, 0.0)], [(parts[0][0], 0.0)]
    for at, seconds in parts:
        dry, heard = played[-1]
        begins = max(at, dry)
        made += [(at, made[-1][1]), (at, made[-1][1] + seconds)]
        played += [(begins, heard), (begins + seconds, heard + seconds)]
    made.append((played[-1][0], made[-1][1]))
    total = made[-1][1]
    axes.plot(*zip(*made, strict=True), color=BLUE, label="made")
    axes.plot(*zip(*played, strict=True), color=INK, linestyle="--", label="played")
    axes.axvline(first, color=GREY, linewidth=0.8)
    axes.annotate(
        f" first sound: {1e3 * first:.0f} ms", (first, total), color=INK, va="top", fontsize="small"
    )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds since the question")
    axes.set_ylabel("seconds of audio")
    axes.legend(frameon=False, loc="lower right")


def reading(samples: Samples, weights: Any, letters: Sequence[str]) -> Any:
    """A figure: ``samples``, and below, letter by letter, the attention ``weights`` [S, N]."""
    fig, (above, below) = figure(8.0, 5.5, rows=2)
    grid = above.get_gridspec()
    grid.set_height_ratios([1, 5])
    waveform(above, samples)
    above.set_xlabel("")
    above.tick_params(labelbottom=False)
    below.imshow(
        np.asarray(weights).T,
        aspect="auto",
        cmap="Blues",
        vmin=0,
        extent=(0, len(samples) / SAMPLE_RATE, len(letters) - 0.5, -0.5),
        interpolation="nearest",
    )
    below.set_yticks(range(len(letters)), letters, fontsize=7, family="monospace")
    below.grid(visible=False)
    below.set_xlabel("seconds")
    return fig


def axes_of(width: float = 8.0, height: float = 3.0) -> tuple[Any, Any]:
    """A figure with a single place to draw, and that."""
    fig, (axes,) = figure(width, height)
    return fig, axes


def _mp3(samples: Samples) -> bytes:
    return encode_file(samples, SAMPLE_RATE, "mp3", bit_rate=BIT_RATE)
