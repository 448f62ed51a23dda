"""Time to first audio by stage, real-time factor and time per block, one listener at a time.

    python -m benchmarks.latency -m preset=default,low_mid,low,equal

Every text is new. The first request after loading is told apart (cold), as are voices heard for
the first time (``voice=new``).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.record import Factor, Record, Row
from benchmarks.report import figure, save_figure, table
from benchmarks.speaking import Spoken, speak
from benchmarks.speech import reference, texts, write_voice
from benchmarks.timing import median, percentile
from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest

NAME = "latency"


@dataclass(frozen=True)
class LatencySettings:
    """``conf/benchmark_latency.yaml``."""

    seed: int
    text_seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]
    repeats: int
    new_voices: int
    warmup: int


def measure(config: EchoConfig, settings: LatencySettings) -> list[Row]:
    """Load the engine of ``config`` and measure it."""
    with voices_of(config, settings.reference_seconds, settings.new_voices, settings.seed) as own:
        begun = time.perf_counter()
        with Engine.from_config(own) as engine:
            load = Row("load_s", time.perf_counter() - begun, "s", factors=factors_of(config))
            engine.warm_up()
            return [load, *measure_engine(engine, settings)]


def measure_engine(engine: Engine, settings: LatencySettings) -> list[Row]:
    """Rows of an engine whose voices are those of :func:`voices_of`."""
    s, common = settings, factors_of(engine.config)
    middle = s.text_seconds[len(s.text_seconds) // 2], voice_name(s.reference_seconds, None, 0)
    speakers = {each: texts(each, s.seed) for each in s.text_seconds}
    seeds = iter(range(s.seed, 1 << 62))

    def say(text_seconds: float, voice: str) -> Spoken:
        text = next(speakers[text_seconds])
        return speak(engine, SpeechRequest(text, voice=voice, seed=next(seeds)))

    rows = [
        Row("cold_ttfb_s", say(*middle).ttfb_s, "s", factors={**common, "voice": "new"}),
    ]
    cases = _cases(s)
    warmup = max(1, s.warmup)  # after the first one the voice is known
    total = len(cases) * (warmup + s.repeats) + len(s.reference_seconds) * s.new_voices
    with tqdm(total=total, desc=f"{NAME} {engine.config.preset.name}", disable=None) as bar:
        for seconds in s.reference_seconds:  # new voices first: later they would be known
            factors = {**common, "reference_seconds": seconds, "voice": "new"}
            for i in range(s.new_voices):
                voice = voice_name(s.reference_seconds, seconds, i + 1)
                spoken = say(s.text_seconds[0], voice)
                rows.append(Row("ttfb_s", spoken.ttfb_s, "s", "lower", i, factors))
                bar.update()
        for text_seconds, seconds in cases:
            voice = voice_name(s.reference_seconds, seconds, 0)
            factors = {
                **common,
                "text_seconds": text_seconds,
                "reference_seconds": seconds,
                "voice": "cached",
            }
            for i in range(-warmup, s.repeats):
                spoken = say(text_seconds, voice)
                if i >= 0:
                    rows += _rows(spoken, i, factors)
                bar.update()
    return rows


def _cases(s: LatencySettings) -> list[tuple[float, float]]:
    """One thing at a time around the middle text and the middle reference."""
    text = s.text_seconds[len(s.text_seconds) // 2]
    voice = s.reference_seconds[len(s.reference_seconds) // 2]
    both = [(each, voice) for each in s.text_seconds] + [(text, v) for v in s.reference_seconds]
    return list(dict.fromkeys(both))


def _rows(spoken: Spoken, i: int, factors: dict[str, Factor]) -> Iterator[Row]:
    yield Row("ttfb_s", spoken.ttfb_s, "s", "lower", i, factors)
    yield Row("total_s", spoken.total_s, "s", "lower", i, factors)
    yield Row("audio_s", spoken.audio_s, "s", "", i, factors)
    yield Row("rtf", spoken.rtf, "ratio", "lower", i, factors)
    for stage, seconds in spoken.stages.items():
        yield Row("stage_s", seconds, "s", "", i, {**factors, "stage": stage})
    for block in spoken.blocks:
        place = {**factors, "block": block["block"]}
        yield Row("block_sampling_s", block["sample_s"], "s", "lower", i, place)
        yield Row("block_codec_s", block["decode_s"], "s", "lower", i, place)


@contextmanager
def voices_of(
    config: EchoConfig, seconds: Sequence[float], copies: int, seed: int
) -> Iterator[EchoConfig]:
    """``config`` with reference voices of these lengths instead of its own; files for a while.

    Of each length there are ``copies + 1``, named by :func:`voice_name`.
    """
    with tempfile.TemporaryDirectory() as folder:
        for length in seconds:
            for copy in range(copies + 1):
                name = voice_name(seconds, length, copy)
                write_voice(Path(folder), name, reference(length, seed + copy))
        voices = replace(config.voices, roots=(folder,), clone_root=folder, default=None)
        yield replace(config, voices=voices)


def voice_name(seconds: Sequence[float], length: float | None, copy: int) -> str:
    """Name of a voice of :func:`voices_of`; ``length`` None: the middle one."""
    length = seconds[len(seconds) // 2] if length is None else length
    return f"reference-{length:g}-{copy}".replace(".", "_")


def factors_of(config: EchoConfig) -> dict[str, Factor]:
    """What tells the records of a sweep apart."""
    compiled = {
        (False, False): "off",
        (False, None): "auto",
        (False, True): "codec",
        (True, True): "full",
    }.get((bool(config.compile.model), config.compile.codec), "model")
    return {
        "model": config.model.name,
        "weights": config.model.weights,
        "device": config.model.device,
        "dtype": config.model.dtype,
        "codec_dtype": config.model.codec_dtype,
        "quantize": config.model.quantize or "none",
        "encode_device": config.voices.encode_device or "codec",
        "compile": compiled,
        "preset": config.preset.name,
    }


def label_of(records: Sequence[Record]) -> Callable[[Record], str]:
    """A short name for each record: what differs between them, at least the preset."""
    heads = [dict(record.rows[0].factors) for record in records]
    names = [n for n in heads[0] if len({str(head.get(n)) for head in heads}) > 1]
    shown = names or ["preset"]
    return lambda record: ", ".join(str(record.rows[0].factors.get(n)) for n in shown)


def report(records: Sequence[Record], picture: Path) -> str:
    """Medians of each record; the picture shows where the time to first audio goes."""
    label = label_of(records)
    rows = []
    for record in records:
        for text in record.levels("text_seconds", "ttfb_s"):
            for seconds in record.levels("reference_seconds", "total_s"):
                pick = {"text_seconds": text, "reference_seconds": seconds, "voice": "cached"}
                ttfb = record.values("ttfb_s", **pick)
                if not ttfb:
                    continue
                rows.append(
                    (
                        label(record),
                        f"{text:g}",
                        f"{seconds:g}",
                        f"{1e3 * median(ttfb):.0f}",
                        f"{1e3 * percentile(ttfb, 95):.0f}",
                        f"{median(record.values('rtf', **pick)):.3f}",
                        f"{median(record.values('audio_s', **pick)):.1f}",
                        _blocks(record, pick),
                    )
                )
    heads = ("", "text s", "voice s", "TTFB ms", "max", "RTF", "audio s", "s per block")
    colds = [
        (
            label(record),
            f"{median(record.values('load_s')):.2f}",
            f"{1e3 * median(record.values('cold_ttfb_s')):.0f}",
            *(
                f"{1e3 * median(record.values('ttfb_s', voice='new', reference_seconds=v)):.0f}"
                for v in record.levels("reference_seconds")
            ),
        )
        for record in records
    ]
    voices = records[0].levels("reference_seconds")
    new = [f"new voice of {v:g} s, TTFB ms" for v in voices]
    _draw(records, label, picture)
    return f"{table(heads, rows)}\n\n{table(('', 'load s', 'cold TTFB ms', *new), colds)}"


def _blocks(record: Record, pick: dict[str, Factor]) -> str:
    """``sampling+codec`` of each block."""
    return " ".join(
        f"{median(record.values('block_sampling_s', **pick, block=block)):.2f}"
        f"+{median(record.values('block_codec_s', **pick, block=block)):.2f}"
        for block in record.levels("block")
        if record.values("block_sampling_s", **pick, block=block)
    )


def _draw(records: Sequence[Record], label: Callable[[Record], str], picture: Path) -> None:
    fig, (left, right) = figure(9.0, 4.0, columns=2)
    names = [label(record) for record in records]
    base = [0.0] * len(records)
    for stage in dict.fromkeys(s for record in records for s in record.levels("stage")):
        samples = [record.values("stage_s", voice="cached", stage=stage) for record in records]
        heights = [1e3 * median(each) if each else 0.0 for each in samples]
        left.bar(names, heights, bottom=base, label=stage, width=0.6)
        base = [b + h for b, h in zip(base, heights, strict=True)]
    left.set_ylabel("ms to first audio (median)")
    left.legend(frameon=False, fontsize="small")
    values = [record.values("rtf") for record in records]
    right.boxplot(values, tick_labels=names, widths=0.5)
    right.axhline(1.0, color="0.6", linewidth=0.8)
    right.set_ylim(bottom=0)
    right.set_ylabel("compute time / audio time")
    for axes in (left, right):
        axes.tick_params(axis="x", rotation=20 if len(names) > 3 else 0)
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, LatencySettings, measure)
