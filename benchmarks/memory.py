"""Peak memory of a profile, and whether it stays flat over many requests.

    python -m benchmarks.memory -m model.dtype=float32,bfloat16
    python -m benchmarks.memory -m model=base model.weights=random card=any,8gb,6gb

Each profile runs in a process of its own, whose peak is that of nothing else. A 'B' in the report
is a byte; ``resident`` is what the process holds of the machine's memory, ``device`` what PyTorch
holds of the GPU's. ``counted`` is what ``benchmarks.footprint`` counts without a GPU: the most
that one listener takes there, with the longest text and reference, and a full house.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.app import launch
from benchmarks.footprint import footprint
from benchmarks.latency import factors_of, label_of, voice_name, voices_of
from benchmarks.listening import EngineTarget, Lines, listen
from benchmarks.record import Factor, Record, Row
from benchmarks.report import figure, save_figure, table
from benchmarks.timing import median
from echo.config import EchoConfig
from echo.engine import Engine

NAME = "memory"
GIB = 2**30


@dataclass(frozen=True)
class MemorySettings:
    """``conf/benchmark_memory.yaml``."""

    seed: int
    requests: int
    text_seconds: tuple[float, ...]
    reference_seconds: tuple[float, ...]
    voices: int
    sample_every: int
    warmup: int


def measure(config: EchoConfig, settings: MemorySettings) -> list[Row]:
    """Measure an engine of ``config`` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        return pool.submit(_in_fresh_process, config, settings).result()


def _in_fresh_process(config: EchoConfig, settings: MemorySettings) -> list[Row]:
    before = resident_bytes()
    s = settings
    with (
        voices_of(config, s.reference_seconds, s.voices - 1, s.seed) as own,
        Engine.from_config(own) as engine,
    ):
        engine.warm_up()
        factors = factors_of(config)
        loaded = resident_bytes()
        rows = [
            Row("empty_process", before, "B", "", 0, factors),
            Row("resident_loaded", loaded, "B", "lower", 0, factors),
            Row("peak_loaded", peak_resident_bytes(), "B", "lower", 0, factors),
        ]
        names = [
            voice_name(s.reference_seconds, length, copy)
            for copy in range(s.voices)
            for length in s.reference_seconds
        ]
        rows += measure_engine(engine, names, settings)
    counted = footprint(config)
    rows.append(Row("counted_alone", counted.alone, "B", "lower", 0, factors))
    rows.append(Row("counted_house", counted.house, "B", "lower", 0, factors))
    return rows


def measure_engine(engine: Engine, voices: Sequence[str], settings: MemorySettings) -> list[Row]:
    """Have many texts spoken and look at the memory now and then."""
    s, factors = settings, factors_of(engine.config)
    target, lines = EngineTarget(engine), Lines(s.text_seconds, voices, s.seed)
    device = engine.components.model.device
    rows: list[Row] = []
    with tqdm(total=s.requests, desc=NAME, disable=None) as bar:
        for i in range(s.requests):
            listen(target, lines.next())
            bar.update()
            if (i + 1) % s.sample_every == 0:
                rows += _look(device, {**factors, "after_requests": i + 1}, i // s.sample_every)
    seen = [row.value for row in rows if row.metric == "resident"]
    peak_seen = max([peak_resident_bytes(), *seen])  # the system's own count may lag a little
    rows.append(Row("peak_resident", peak_seen, "B", "lower", 0, factors))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        reserved = torch.cuda.max_memory_reserved(device)
        rows.append(Row("peak_device", peak, "B", "lower", 0, factors))
        rows.append(Row("peak_device_reserved", reserved, "B", "lower", 0, factors))
    for metric in ("resident", "device"):
        points = [
            (float(row.factors["after_requests"]), row.value)
            for row in rows
            if row.metric == metric and float(row.factors["after_requests"]) > s.warmup
        ]
        if len(points) >= 3:
            growth = growth_per_request([p[0] for p in points], [p[1] for p in points])
            rows.append(Row(f"{metric}_growth", growth, "B", "", 0, factors))
    return rows


def _look(device: torch.device, factors: dict[str, Factor], i: int) -> list[Row]:
    gc.collect()  # what only awaits collection is no leak
    rows = [Row("resident", resident_bytes(), "B", "", i, factors)]
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device)
        rows.append(Row("device", held, "B", "", i, factors))
    return rows


def growth_per_request(requests: Sequence[float], held: Sequence[float]) -> float:
    """Bytes per request: the median slope between all pairs (Theil-Sen), deaf to single jumps."""
    x, y = np.asarray(requests, float), np.asarray(held, float)
    i, j = np.triu_indices(len(x), k=1)
    return float(np.median((y[j] - y[i]) / (x[j] - x[i])))


def resident_bytes() -> float:
    """Memory that this process holds now."""
    status = Path("/proc/self/statm")
    if status.is_file():
        return float(int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return peak_resident_bytes()


def peak_resident_bytes() -> float:
    """The most that this process has held so far; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak * (1 if sys.platform == "darwin" else 1024))


def report(records: Sequence[Record], picture: Path) -> str:
    """Peaks and growth of each profile; the picture shows memory over the requests."""
    label = label_of(records)
    metrics = (
        *("resident_loaded", "peak_loaded", "peak_resident", "peak_device"),
        *("counted_alone", "counted_house"),
    )
    rows = [
        (
            label(record),
            *(_gib(record.values(metric)) for metric in metrics),
            *(_kib(record.values(f"{where}_growth")) for where in ("resident", "device")),
            max(record.levels("after_requests"), default=0),
        )
        for record in records
    ]
    heads = (
        *("", "loaded GiB", "peak while loading", "peak resident", "peak device"),
        *("counted alone", "counted full house"),
        *("KiB per request", "on the device", "requests"),
    )
    fig, (axes,) = figure()
    for record in records:
        counts = record.levels("after_requests", "resident")
        held = [median(record.values("resident", after_requests=n)) / GIB for n in counts]
        axes.plot(counts, held, label=label(record))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("requests")
    axes.set_ylabel("resident GiB")
    axes.legend(frameon=False)
    save_figure(fig, picture)
    return table(heads, rows)


def _gib(values: Sequence[float]) -> str:
    return f"{max(values) / GIB:.3f}" if values else ""


def _kib(values: Sequence[float]) -> str:
    return f"{values[0] / 1024:.1f}" if values else ""


if __name__ == "__main__":
    launch(NAME, MemorySettings, measure)
