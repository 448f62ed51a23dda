"""What a preset costs in sound, measured without listening; each name says what it is.

    python -m benchmarks.quality -m preset=default,low,equal

No figure here is a listener's opinion. Texts, voices and seeds do not depend on the preset, so
that two records differ by the settings alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.judging import Judge, Line, Take, seam_values, speak
from benchmarks.latency import factors_of, label_of
from benchmarks.recognition import Listener, listeners
from benchmarks.record import Factor, Record, Row
from benchmarks.report import figure, save_figure, table
from benchmarks.speech import texts
from benchmarks.timing import mean_interval
from echo.config import EchoConfig
from echo.engine import Engine
from echo.errors import ConfigError
from echo.training.slots import slot_sentence
from echo.voices.store import CLONE_MARK

NAME = "quality"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class QualitySettings:
    """``conf/benchmark_quality.yaml``."""

    seed: int
    voices: tuple[str, ...] | None
    sentences: int
    long_texts: int
    long_seconds: float
    plain_sentences: int
    best_steps: int
    whisper_model: str | None


@dataclass(frozen=True)
class Metric:
    """One measured quantity. ``title``: how a table calls it; empty: it is in the record only."""

    unit: str
    better: str
    title: str = ""
    decimals: int = 2


METRICS = {
    "word_error_pocketsphinx_slots": Metric("ratio", "lower", "word error (slots)", 3),
    "word_error_chance_pocketsphinx_slots": Metric("ratio", "", "of a guess"),
    "word_error_whisper": Metric("ratio", "lower", "word error (Whisper)", 3),
    "word_error_chance_whisper": Metric("ratio", ""),
    "vad_longest_pause_s": Metric("s", "lower", "longest pause s"),
    "vad_pause_share": Metric("ratio", "lower"),
    "vad_speech_s": Metric("s", ""),
    "tail_noise_dbfs": Metric("dB", "lower", "tail dBFS", 1),
    "loudness_lufs": Metric("dB", "", "loudness LUFS", 1),
    "peak_dbfs": Metric("dB", ""),
    "seam_click": Metric("ratio", "lower", "seam click"),
    "seam_spectrum": Metric("ratio", "lower", "seam spectrum"),
    "mcd_plain_db": Metric("dB", "lower", "MCD to plain dB"),
    "mcd_best_db": Metric("dB", "lower", "MCD to many steps dB"),
    "speaker_similarity": Metric("ratio", "higher", "speaker similarity", 3),
    "speaker_margin": Metric("ratio", "higher", "and its margin", 3),
    "audio_s": Metric("s", ""),
    "ttfb_s": Metric("s", ""),  # of a busy judge: benchmarks.latency measures it
    "rtf": Metric("ratio", ""),
}
DRAWN = (
    "word_error_pocketsphinx_slots",
    "mcd_best_db",
    "speaker_similarity",
    "seam_spectrum",
    "vad_longest_pause_s",
    "tail_noise_dbfs",
)


def measure(config: EchoConfig, settings: QualitySettings) -> list[Row]:
    """Load the engine of ``config`` and judge what it says."""
    heard_by = listeners(settings.whisper_model)  # first: a missing one is known at once
    with Engine.from_config(config) as engine:
        engine.warm_up()
        return measure_engine(engine, settings, heard_by)


def measure_engine(
    engine: Engine, settings: QualitySettings, heard_by: Sequence[Listener]
) -> list[Row]:
    """Rows of every line; those of one metric and voice are numbered."""
    voices = voices_of(engine, settings.voices)
    lines = lines_of(settings, voices)
    judge = Judge(engine, heard_by, settings.best_steps)
    common, rows, counts = factors_of(engine.config), [], dict[Any, int]()
    speak(engine, replace(lines[0], seed=lines[0].seed + 1))  # warms up; does not count
    for i, line in enumerate(tqdm(lines, desc=f"{NAME} {common['preset']}", disable=None)):
        take = speak(engine, line)
        plain = line.kind == "slots" and i < settings.plain_sentences
        factors = {**common, "voice": str(line.voice), "text": line.kind}
        for metric, value, more in judged(judge, take, voices, lines[i - 1].text, plain=plain):
            place = {**factors, **more}
            number = counts.setdefault((metric, *sorted(place.items())), 0)
            counts[(metric, *sorted(place.items()))] += 1
            known = METRICS[metric]
            rows.append(Row(metric, value, known.unit, known.better, number, place))
    return rows


def judged(
    judge: Judge, take: Take, voices: Sequence[str], other: str, *, plain: bool
) -> Iterator[tuple[str, float, dict[str, Factor]]]:
    """(metric, value, factors of its own) of one take. ``other``: a text that was not said."""
    found = {
        **judge.of_sound(take),
        **judge.of_words(take, other),
        **judge.speaker_similarity(take, voices),
        "ttfb_s": take.ttfb_s,
        "rtf": take.stats.rtf or 0.0,
    }
    if plain:
        found |= {"mcd_plain_db": judge.mcd_plain_db(take), "mcd_best_db": judge.mcd_best_db(take)}
    for metric, value in found.items():
        yield metric, value, {}
    for metric, join, value in seam_values(take):
        yield metric, value, {"join": join}


def lines_of(settings: QualitySettings, voices: Sequence[str]) -> list[Line]:
    """What is said, the sentences first: different texts, the voices in turn, a seed for each."""
    rng = random.Random(f"{NAME}/{settings.seed}")
    sentences: dict[str, None] = {}
    while len(sentences) < settings.sentences:
        sentences[slot_sentence(rng, held_out=True)] = None
    longer = texts(settings.long_seconds, settings.seed)
    both = [(text, "slots") for text in sentences]
    both += [(next(longer), "long") for _ in range(settings.long_texts)]
    if not both:
        raise ConfigError("benchmark.sentences and benchmark.long_texts are both 0: nothing to say")
    return [
        Line(text, voices[i % len(voices)], rng.randrange(1 << 31), kind)
        for i, (text, kind) in enumerate(both)
    ]


def voices_of(engine: Engine, names: Sequence[str] | None) -> tuple[str, ...]:
    """``names``, or all voices but clones. Raises ConfigError where one is not there, or none."""
    there = [voice.id for voice in engine.voices.list() if CLONE_MARK not in voice.id]
    chosen = tuple(names if names is not None else there)
    missing = [name for name in chosen if engine.voices.get(name) is None]
    if missing or not chosen:
        lacking = ", ".join(missing) or "there are none"
        raise ConfigError(f"benchmark.voices: {lacking}", param="benchmark.voices")
    return chosen


def report(records: Sequence[Record], picture: Path) -> str:
    """Means over all lines with their intervals, a column for each record; and as a picture."""
    label = label_of(records)
    rows = []
    for name, metric in METRICS.items():
        cells = [_cell(record.values(name), metric.decimals) for record in records]
        if metric.title and any(cells):
            rows.append((metric.title, metric.better, *cells))
    heads = ("mean, 95 % interval", "better", *(label(record) for record in records))
    _draw(records, label, picture)
    spoken = len(records[0].values("audio_s"))
    return f"{table(heads, rows)}\n{spoken} texts each; a guess is what was heard held against \
another text; MCD: mel-cepstral distance"


def _cell(values: Sequence[float], decimals: int) -> str:
    if not values:
        return ""
    mean, low, high = mean_interval(values, CONFIDENCE)
    return f"{mean:.{decimals}f} ({low:.{decimals}f} ... {high:.{decimals}f})"


def _draw(records: Sequence[Record], label: Callable[[Record], str], picture: Path) -> None:
    drawn = [name for name in DRAWN if any(record.values(name) for record in records)]
    columns = min(3, len(drawn))
    fig, panels = figure(9.0, 2.8 * -(-len(drawn) // columns), columns, -(-len(drawn) // columns))
    names = [label(record) for record in records]
    for axes, metric in zip(panels, drawn, strict=False):
        for place, record in enumerate(records):
            values = record.values(metric)
            if values:
                mean, low, high = mean_interval(values, CONFIDENCE)
                error = [[mean - low], [high - mean]]
                axes.errorbar(place, mean, error, fmt="o", capsize=4, color=f"C{place}")
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 2 else 0)
        axes.set_xlim(-0.5, len(names) - 0.5)
        known = METRICS[metric]
        axes.set_title(f"{known.title} ({known.better} is better)", fontsize="small")
    for axes in panels[len(drawn) :]:
        axes.set_visible(False)
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, QualitySettings, measure)
