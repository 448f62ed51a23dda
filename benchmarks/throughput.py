"""Many listeners: what each of them hears, and what the machine delivers in all.

    python -m benchmarks.throughput [preset=low] [benchmark.url=http://127.0.0.1:8000]

Three kinds of load: listeners who play what they hear before they ask again (the curve), some
who ask again at once (capacity), and arrivals at random (Poisson). Under each load of the curve
newcomers arrive at random; their first sound is compared with that of one who is alone.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.latency import factors_of, label_of, voice_name, voices_of
from benchmarks.listening import (
    Crowd,
    EngineTarget,
    Heard,
    Lines,
    ServerTarget,
    Target,
    listen,
    passer_by,
    regular,
)
from benchmarks.record import Factor, Record, Row
from benchmarks.report import figure, save_figure, table
from benchmarks.timing import median, percentile
from echo.config import EchoConfig
from echo.engine import Engine

NAME = "throughput"


@dataclass(frozen=True)
class ThroughputSettings:
    """``conf/benchmark_throughput.yaml``."""

    seed: int
    url: str | None
    api_key: str | None
    listeners: tuple[int, ...]
    flat_out: tuple[int, ...]
    arrivals_per_minute: tuple[float, ...]
    arrivals_seconds: float
    text_seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]
    requests: int
    newcomers: int
    newcomer_pause_s: float


def measure(config: EchoConfig, settings: ThroughputSettings) -> list[Row]:
    """Measure an engine of ``config``, or the server that ``settings`` name."""
    with target_of(config, settings) as (target, voices):
        return measure_target(target, voices, settings, factors_of(config))


@contextmanager
def target_of(
    config: EchoConfig, settings: ThroughputSettings
) -> Iterator[tuple[Target, Sequence[str | None]]]:
    """Who speaks, and the voices to ask for."""
    if settings.url is not None:
        server = ServerTarget(settings.url, settings.api_key)
        yield server, server.voices()[: len(settings.reference_seconds)] or [None]
        return
    lengths = settings.reference_seconds
    with voices_of(config, lengths, 0, settings.seed) as own, Engine.from_config(own) as engine:
        engine.warm_up()
        yield EngineTarget(engine), [voice_name(lengths, each, 0) for each in lengths]


def measure_target(
    target: Target,
    voices: Sequence[str | None],
    settings: ThroughputSettings,
    common: dict[str, Factor],
) -> list[Row]:
    """All loads, one after the other."""
    s = settings
    if s.url is not None:  # the server's settings are its own
        common = {"url": s.url}
    lines = Lines(s.text_seconds, voices, s.seed)
    loads = len(s.listeners) + len(s.flat_out) + len(s.arrivals_per_minute) + 1
    rows: list[Row] = []
    with tqdm(total=loads, desc=NAME, disable=None) as bar:
        for voice in voices:  # warm-up: afterwards all voices are known
            for seconds in s.text_seconds:
                listen(target, Lines([seconds], [voice], s.seed + 1).next())
        alone = []
        for _ in range(s.newcomers):
            time.sleep(s.newcomer_pause_s)  # the one before may still be in work
            alone.append(listen(target, lines.next(), only_first=True))
        rows += _newcomers(alone, {**common, "load": "alone", "listeners": 0})
        bar.update()
        for count in s.listeners:
            crowd = Crowd()
            newcomers = Crowd()
            for _ in range(count):
                crowd.add(regular(target, lines, s.requests, real_time=True))
            newcomers.add(_arrive_while(crowd, target, lines, s))
            factors = {**common, "load": "real_time", "listeners": count}
            rows += load_rows(crowd.join(), factors)
            rows += _newcomers(newcomers.join(), factors)
            bar.update()
        for count in s.flat_out:
            crowd = Crowd()
            for _ in range(count):
                crowd.add(regular(target, lines, s.requests, real_time=False))
            rows += load_rows(crowd.join(), {**common, "load": "flat_out", "listeners": count})
            bar.update()
        for rate in s.arrivals_per_minute:
            heard = _poisson(target, lines, rate, s.arrivals_seconds, s.seed)
            rows += load_rows(heard, {**common, "load": "poisson", "per_minute": rate})
            bar.update()
    return rows


def _arrive_while(
    crowd: Crowd, target: Target, lines: Lines, s: ThroughputSettings
) -> Callable[[Crowd], None]:
    """Newcomers amid ``crowd`` at random moments; each leaves after its first part."""
    rng = random.Random(s.seed)

    def run(own: Crowd) -> None:
        while len(own.heard) < s.newcomers:
            crowd.stop.wait(rng.expovariate(1 / s.newcomer_pause_s))
            if not crowd.busy:
                return
            own.heard.append(listen(target, lines.next(), only_first=True))

    return run


def _poisson(
    target: Target, lines: Lines, per_minute: float, seconds: float, seed: int
) -> list[Heard]:
    rng, crowd = random.Random(seed), Crowd()
    now = begun = time.perf_counter()
    while True:
        now += rng.expovariate(per_minute / 60)
        if now - begun > seconds and crowd.size:
            return crowd.join()
        crowd.stop.wait(max(0.0, now - time.perf_counter()))
        if crowd.stop.is_set():
            return crowd.join()
        crowd.add(passer_by(target, lines.next()))


def load_rows(heard: Sequence[Heard], factors: dict[str, Factor]) -> Iterator[Row]:
    """Rows of everyone who listened under one load."""
    served = [each for each in heard if not each.refused]
    for i, each in enumerate(served):
        yield Row("ttfb_s", each.ttfb_s, "s", "lower", i, factors)
        yield Row("gap_s", each.gap_s, "s", "lower", i, factors)
        yield Row("request_audio_s", each.audio_s, "s", "", i, factors)
    audio = sum(each.audio_s for each in served)
    span = max(each.ended for each in heard) - min(each.arrived for each in heard)
    yield Row("audio_per_s", audio / span, "1/s", "higher", 0, factors)
    yield Row("starved_s", sum(each.gap_s for each in served), "s", "lower", 0, factors)
    yield Row("starved_requests", sum(each.gap_s > 0 for each in served), "count", "", 0, factors)
    yield Row("refused", len(heard) - len(served), "count", "lower", 0, factors)


def _newcomers(heard: Sequence[Heard], factors: dict[str, Factor]) -> Iterator[Row]:
    for i, each in enumerate(h for h in heard if not h.refused):
        yield Row("newcomer_ttfb_s", each.ttfb_s, "s", "lower", i, factors)


def report(records: Sequence[Record], picture: Path) -> str:
    """The curve of each record, and its picture."""
    label = label_of(records) if "preset" in records[0].rows[0].factors else _url_of
    rows = []
    for record in records:
        alone = median(record.values("newcomer_ttfb_s", load="alone"))
        for load in _loads(record):
            ttfb = record.values("ttfb_s", **load)
            newcomer = median(record.values("newcomer_ttfb_s", **load))
            rows.append(
                (
                    label(record),
                    load["load"],
                    f"{load.get('listeners', load.get('per_minute')):g}",
                    f"{1e3 * median(ttfb):.0f}",
                    f"{1e3 * percentile(ttfb, 95):.0f}",
                    f"{median(record.values('audio_per_s', **load)):.2f}",
                    f"{median(record.values('starved_s', **load)):.2f}",
                    f"{median(record.values('starved_requests', **load)):.0f}/{len(ttfb)}",
                    f"{median(record.values('refused', **load)):.0f}",
                    "" if newcomer != newcomer else f"{1e3 * newcomer:.0f}",
                    "" if newcomer != newcomer else f"{newcomer / alone:.2f}",
                )
            )
    heads = (
        *("", "load", "n", "TTFB ms", "p95", "audio s/s", "starved s", "starved", "refused"),
        *("newcomer ms", "/ alone"),
    )
    _draw(records, label, picture)
    lonely = ", ".join(
        f"{label(r)} {1e3 * median(r.values('newcomer_ttfb_s', load='alone')):.0f} ms"
        for r in records
    )
    return f"{table(heads, rows)}\n\nnewcomer alone: {lonely}"


def _url_of(record: Record) -> str:
    return str(record.rows[0].factors.get("url"))


def _loads(record: Record) -> list[dict[str, Factor]]:
    keys = ("load", "listeners", "per_minute")
    loads = [
        tuple((k, row.factors[k]) for k in keys if k in row.factors)
        for row in record.rows
        if row.metric == "audio_per_s"
    ]
    return [dict(load) for load in dict.fromkeys(loads)]


def _draw(records: Sequence[Record], label: Callable[[Record], str], picture: Path) -> None:
    fig, (left, right) = figure(9.0, 4.0, columns=2)
    for record in records:
        loads = [load for load in _loads(record) if load["load"] == "real_time"]
        counts = [load["listeners"] for load in loads]
        for percent, style in ((50, "o-"), (95, "o--")):
            values = [1e3 * percentile(record.values("ttfb_s", **load), percent) for load in loads]
            left.plot(counts, values, style, label=f"{label(record)} p{percent}", markersize=4)
        starved = [median(record.values("starved_s", **load)) for load in loads]
        right.plot(counts, starved, "o-", label=label(record), markersize=4)
    left.set_ylabel("ms to first audio")
    right.set_ylabel("starved seconds, all listeners")
    for axes in (left, right):
        axes.set_xlabel("listeners at once, real-time playback")
        axes.set_ylim(bottom=0)
    left.legend(frameon=False, fontsize="small")
    save_figure(fig, picture)


if __name__ == "__main__":
    launch(NAME, ThroughputSettings, measure)
