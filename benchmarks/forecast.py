"""Does the simulation foretell what is measured?

    python -m benchmarks.forecast [preset=low] [benchmark.paced=true benchmark.listeners=[4,12]]

Requests one at a time teach what each piece of work costs here and how long texts become. From that
alone the simulation says what several listeners at once hear. Both take turns, so that they meet
the same machine. ``paced``: networks that only take a set time (``benchmarks.paced``), where the
machine is not quiet.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.latency import factors_of, label_of, voice_name, voices_of
from benchmarks.listening import Crowd, EngineTarget, Heard, Line, Lines, listen, regular
from benchmarks.paced import Pace, in_blocks, paced
from benchmarks.record import Factor, Record, Row
from benchmarks.replica import Costs, Order, Shape
from benchmarks.report import figure, save_figure, table
from benchmarks.simulated import Cluster, Listener, simulate
from benchmarks.speaking import wait_idle
from benchmarks.timing import median, percentile
from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest
from echo.engine.components import load_components
from echo.engine.request import resolve_settings
from echo.engine.stats import RequestStats
from echo.engine.task import Limits
from echo.models.codec import DECODE_PIECE_LATENTS
from echo.spec import HOP

NAME = "forecast"
PASSES = 3  # of a guided step: there is a voice
METRICS = ("ttfb_p50_s", "ttfb_p95_s", "audio_per_s", "busy")


@dataclass(frozen=True)
class ForecastSettings:
    """``conf/benchmark_forecast.yaml``."""

    seed: int
    paced: bool
    listeners: tuple[int, ...]
    text_seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]
    rounds: int
    alone: int
    rest_s: float
    requests: int
    repeats: int


def measure(config: EchoConfig, settings: ForecastSettings) -> list[Row]:
    """Learn, foretell and measure on an engine of ``config``."""
    lengths = settings.reference_seconds
    voices = [voice_name(lengths, each, 0) for each in lengths]
    config = in_blocks(config) if settings.paced else config
    with voices_of(config, lengths, 0, settings.seed) as own:
        if settings.paced:
            engine = Engine(own, paced(load_components(own), Pace()))
        else:
            engine = Engine.from_config(own)
        with engine:
            engine.warm_up()
            return measure_engine(engine, voices, settings)


def measure_engine(engine: Engine, voices: Sequence[str], s: ForecastSettings) -> list[Row]:
    """The costs, then for each number of listeners what was heard and what the simulation says."""
    lines, common = Lines(s.text_seconds, voices, s.seed), factors_of(engine.config)
    shape = shape_of(engine.config, engine.components.codec.piece_latents)
    alone: list[Alone] = []
    runs: dict[int, list[Run]] = {count: [] for count in s.listeners}
    for _ in range(len(s.text_seconds) * len(voices)):  # warm-up: then all voices are known
        listen(EngineTarget(engine), lines.next())
    for _ in tqdm(range(s.rounds), desc=NAME, disable=None):
        alone += [listen_alone(engine, lines.next(), s.rest_s) for _ in range(s.alone)]
        for count in s.listeners:
            runs[count].append(listen_together(engine, lines, count, s.requests))
    costs, orders = learn(alone, shape)
    rows = [Row(f"cost_{name}", v, "s", "", 0, common) for name, v in vars(costs).items()]
    cluster = Cluster(costs, shape, limits_of(engine.config))
    for count, measured in runs.items():
        factors = {**common, "listeners": count}
        foretold = foretell(cluster, orders, count, s.requests, s.repeats, s.seed)
        rows += _rows(foretold, {**factors, "source": "forecast"})
        rows += _rows(measured, {**factors, "source": "measured"})
        heard = [each for run in measured for each in run.heard]
        factors |= {"source": "measured"}
        rows += [Row("ttfb_s", h.ttfb_s, "s", "", i, factors) for i, h in enumerate(heard)]
    return rows


@dataclass(frozen=True)
class Run:
    """What listeners who begin together heard, and the share of that time that the worker had
    work."""

    heard: Sequence[Heard]
    busy: float


def listen_together(engine: Engine, lines: Lines, count: int, requests: int) -> Run:
    """``count`` listeners in real time."""
    begun, busy, crowd = time.perf_counter(), _busy_s(engine), Crowd()
    for _ in range(count):
        crowd.add(regular(EngineTarget(engine), lines, requests, real_time=True))
    heard = crowd.join()
    wait_idle(engine)
    return Run(heard, (_busy_s(engine) - busy) / (max(h.ended for h in heard) - begun))


@dataclass(frozen=True)
class Alone:
    """A request that nobody disturbed. ``ttfb_s``: as its caller had it."""

    ttfb_s: float
    stats: RequestStats


def listen_alone(engine: Engine, line: Line, rest_s: float) -> Alone:
    """Hear ``line`` to its end, after a rest: one that plays what it hears leaves the machine idle,
    and cores that come back from that are slower at first."""
    time.sleep(rest_s)
    begun = time.perf_counter()
    with engine.stream(SpeechRequest(line.text, voice=line.voice, seed=line.seed)) as stream:
        next(stream)
        ttfb_s = time.perf_counter() - begun
        stream.read()
    return Alone(ttfb_s, stream.stats)


def shape_of(config: EchoConfig, piece_latents: int = DECODE_PIECE_LATENTS) -> Shape:
    """The blocks of a streamed request with a voice. ``piece_latents``: as :class:`Shape`."""
    settings = resolve_settings(config, SpeechRequest("Hello."))
    return Shape(settings.blocks, settings.sampler, PASSES, piece_latents)


def limits_of(config: EchoConfig) -> Limits:
    """The worker's limits; listeners of a simulation take their audio at once."""
    e = config.engine
    return Limits(e.max_active, e.max_queued, e.max_batch_tokens, e.max_load, float("inf"), 1)


def learn(alone: Sequence[Alone], shape: Shape) -> tuple[Costs, list[Order]]:
    """What each piece of work costs, and what texts become, from requests one at a time."""
    blocks = [block for each in alone for block in each.stats.blocks]
    sampled = [(b.steps, sum(shape.step_latents(b.block)), b.sample_s) for b in blocks]
    step_s, step_latent_s = fit(sampled)
    kept = [(b.samples // HOP, b.decode_s) for b in blocks if b.samples]
    codec_s, codec_latent_s = fit([(-(-n // shape.piece_latents), n, s) for n, s in kept])
    texts = [chunks_of(each.stats) for each in alone]
    costs = Costs(
        step_s,
        step_latent_s,
        text_s=_per_call(alone, "text", sum(len(text) for text in texts)),
        prefix_s=_per_call(alone, "prefix", sum(len(c) - 1 for text in texts for c in text)),
        codec_s=codec_s,
        codec_latent_s=codec_latent_s,
        voice_s=_per_call(alone, "voice", len(alone)),  # of a cached one: these all were
        cached_voice_s=_per_call(alone, "voice", len(alone)),
    )
    edge_s = median([each.ttfb_s - _first_sound_s(each.stats) for each in alone])
    return replace(costs, edge_s=max(0.0, edge_s)), [Order(text, voice=0) for text in texts]


def fit(samples: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """``(a, b)`` of a * x + b * y = seconds for (x, y, seconds): the least relative errors, with
    neither below zero."""
    x, y, s = (np.array(column, np.float64) for column in zip(*samples, strict=True))
    both = np.stack([x / s, y / s], axis=1)
    (a, b), *_ = np.linalg.lstsq(both, np.ones(len(s)), rcond=None)
    if a < 0 or b < 0:
        only = [float((c / s).sum() / ((c / s) ** 2).sum()) for c in (x, y)]
        a, b = (only[0], 0.0) if b < 0 else (0.0, only[1])
    return float(a), float(b)


def chunks_of(stats: RequestStats) -> tuple[tuple[int, ...], ...]:
    """Latents that were kept of each block, by chunk."""
    count = stats.blocks[-1].chunk + 1
    return tuple(
        tuple(block.samples // HOP for block in stats.blocks if block.chunk == chunk)
        for chunk in range(count)
    )


def _per_call(alone: Sequence[Alone], stage: str, calls: int) -> float:
    return sum(each.stats.stages_s.get(stage, 0.0) for each in alone) / max(1, calls)


def _first_sound_s(stats: RequestStats) -> float:
    """What the worker did for it."""
    first = stats.blocks[0]
    before = stats.ttfb_stages_s.get("text", 0.0) + stats.ttfb_stages_s.get("voice", 0.0)
    return before + first.sample_s + first.decode_s


def foretell(
    cluster: Cluster, orders: Sequence[Order], count: int, requests: int, repeats: int, seed: int
) -> list[Run]:
    """Several runs of ``count`` listeners, with texts drawn from ``orders``."""
    runs = []
    for repeat in range(repeats):
        rng = random.Random(f"{seed}/{repeat}")
        crowd = [Listener(rng.choices(orders, k=requests)) for _ in range(count)]
        outcome = simulate(cluster, crowd, seed=repeat)
        runs.append(Run(outcome.heard, outcome.busy))
    return runs


def _rows(runs: Sequence[Run], factors: dict[str, Factor]) -> Iterator[Row]:
    """Figures of all runs together."""
    served = [each for run in runs for each in run.heard if not each.refused]
    ttfb = [each.ttfb_s for each in served]
    spans = [max(h.ended for h in r.heard) - min(h.arrived for h in r.heard) for r in runs]
    audio = sum(each.audio_s for each in served)
    busy = sum(run.busy * span for run, span in zip(runs, spans, strict=True)) / sum(spans)
    yield Row("ttfb_p50_s", median(ttfb), "s", "lower", 0, factors)
    yield Row("ttfb_p95_s", percentile(ttfb, 95), "s", "lower", 0, factors)
    yield Row("audio_per_s", audio / sum(spans), "1/s", "higher", 0, factors)
    yield Row("busy", busy, "ratio", "", 0, factors)
    yield Row("starved", sum(each.gap_s for each in served) / audio, "ratio", "lower", 0, factors)


def _busy_s(engine: Engine) -> float:
    return float(engine.stats()["worker"]["busy_s"])


def report(records: Sequence[Record], picture: Path) -> str:
    """Forecasts beside what was measured, and by how much they are off."""
    label = label_of(records)
    rows = []
    for record in records:
        for count in record.levels("listeners", "busy"):
            for metric in (*METRICS, "starved"):
                foretold, measured = (
                    median(record.values(metric, listeners=count, source=source))
                    for source in ("forecast", "measured")
                )
                off = 100 * (foretold / measured - 1) if measured else float("nan")
                told = f"{off:+.0f}" if metric in METRICS else ""  # a share near 0 has no ratio
                rows.append(
                    (label(record), count, metric, f"{measured:.3f}", f"{foretold:.3f}", told)
                )
    _draw(records, picture)
    return table(("", "listeners", "", "measured", "forecast", "% off"), rows)


def _draw(records: Sequence[Record], picture: Path) -> None:
    fig, axes = figure(9.0, 3.4, columns=2)
    for axis, metric, name in zip(
        axes, ("ttfb_p95_s", "busy"), ("p95 TTFB, s", "share of the device in use"), strict=True
    ):
        for i, record in enumerate(records):
            counts = record.levels("listeners", "busy")
            for source, style in (("measured", "o"), ("forecast", "x--")):
                values = [median(record.values(metric, listeners=c, source=source)) for c in counts]
                told = f"{record.rows[0].factors['preset']} {source}"
                axis.plot(counts, values, style, color=f"C{i}", label=told)
        axis.set_xlabel("listeners at once")
        axis.set_ylabel(name)
        axis.set_ylim(bottom=0)
    axes[0].legend(frameon=False, fontsize="small")
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, ForecastSettings, measure)
