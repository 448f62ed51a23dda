"""Everything that is asked of one GPU, in one command and one record.

    python -m benchmarks.gpu [--compile off,full] [--listeners 40,80,120,160] [KEY=VALUE ...]

Real sizes with random weights in bfloat16: first sound with a known voice, 30 s of audio at 20
steps, how many listeners at once play without a gap, and the operations and bytes per second of
every part against the chip's. ``--device cpu`` with small sizes (``model.repo=FOLDER``) tries the
program itself.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks import components
from benchmarks.latency import factors_of, voice_name, voices_of
from benchmarks.listening import Crowd, EngineTarget, Lines, Target, regular
from benchmarks.machine import hardware
from benchmarks.record import Factor, Record, Row, plain_config
from benchmarks.report import integers, say, table
from benchmarks.speaking import speak
from benchmarks.speech import text_of_chars
from benchmarks.throughput import load_rows
from benchmarks.timing import median, percentile
from echo.config import EchoConfig, compose
from echo.engine import Engine, SpeechRequest
from echo.errors import EchoError
from echo.spec import LATENTS_PER_SECOND

NAME = "gpu"
SETTINGS = (
    "model=base",
    "model.weights=random",
    "model.dtype=bfloat16",
    "preset=default",
    "sampler.nonstream_num_steps=20",
    "sampler.early_stop_on_zero=false",
    "voices.cache_on_device=true",
    "engine.max_active=256",
    "engine.max_queued=256",
)
LONGEST_WAIT_S = 1.0  # for the first sound: who waits longer is not served in real time
TARGET_TTFB_S, TARGET_WHOLE_S, TARGET_LISTENERS = 0.045, 0.30, 80  # one H100
# Dense bfloat16 FLOP/s with float32 sums, and bytes/s of memory, by NVIDIA's data sheets.
CHIPS = {
    "H200": (989.5e12, 4.8e12),
    "H100 80GB HBM3": (989.5e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
    "L40S": (362e12, 864e9),
    "L4": (121e12, 300e9),
    "RTX 4090": (165.2e12, 1.008e12),
}


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    device: str
    compile: tuple[str, ...]  # options of conf/compile
    listeners: tuple[int, ...]  # at once, ascending; the first ones with gaps or long waits end it
    requests: int  # of each listener
    spread_s: float  # over which listeners arrive
    repeats: int  # of the first sound; a third of it of the whole
    warmup: int
    reference_seconds: float
    text_chars: int
    text_seconds: tuple[float, ...]
    parts: components.ComponentSettings
    seed: int


def plan_of(args: argparse.Namespace) -> Plan:
    """The plan of the command line."""
    parts = components.ComponentSettings(
        seed=args.seed,
        repeats=args.part_repeats,
        warmup=2,
        min_seconds=args.part_seconds,
        text_tokens=(66, 768),
        speaker_latents=(212, 1292),
        block_latents=args.block_latents,
    )
    return Plan(
        device=args.device,
        compile=tuple(args.compile.split(",")),
        listeners=tuple(sorted(args.listeners)),
        requests=args.requests,
        spread_s=args.spread_seconds,
        repeats=args.repeats,
        warmup=args.warmup,
        reference_seconds=parts.speaker_latents[0] / LATENTS_PER_SECOND,
        text_chars=60,
        text_seconds=(4.0, 13.0, 28.0),
        parts=parts,
        seed=args.seed,
    )


def run(plan: Plan, overrides: Sequence[str]) -> Record:
    """Measure with every way of compiling.

    Raises:
        EchoError: settings that cannot be, or weights that are not there.
    """
    rows: list[Row] = []
    configs = {}
    for mode in plan.compile:
        chosen = (f"compile={mode}", f"model.device={plan.device}")
        config = compose([*SETTINGS, *chosen, f"model.codec_device={plan.device}", *overrides])
        configs[mode] = plain_config(config)
        rows += [
            replace(row, factors={**row.factors, "compile": mode}) for row in measure(config, plan)
        ]
        gc.collect()  # recorded networks hold themselves; the next ones need the room
    described = {"compile": configs, "benchmark": asdict(plan)}
    return Record.of(NAME, rows, seed=plan.seed, config=described)


def measure(config: EchoConfig, plan: Plan) -> list[Row]:
    """All measurements of one engine, loaded and warmed up here."""
    factors = factors_of(config)
    cuda = config.model.device.startswith("cuda")
    with voices_of(config, [plan.reference_seconds], 0, plan.seed) as own:
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        begun = time.perf_counter()
        with Engine.from_config(own) as engine:
            loaded = time.perf_counter()
            engine.warm_up()
            warm = time.perf_counter()
            rows = [
                Row("load_s", loaded - begun, "s", "lower", 0, factors),
                Row("warm_up_s", warm - loaded, "s", "lower", 0, factors),
                *_first_sound(engine, plan, factors),
                *_whole(engine, plan, factors),
                *find_sustained(EngineTarget(engine), plan, factors),
                *components.measure_engine(engine, plan.parts),
            ]
            if cuda:
                peak = torch.cuda.max_memory_allocated()
                rows.append(Row("peak_device", peak, "B", "lower", 0, factors))
    return rows


def _requests(plan: Plan) -> Iterator[SpeechRequest]:
    voice = voice_name([plan.reference_seconds], None, 0)
    for seed in range(plan.seed, 1 << 62):
        yield SpeechRequest(text_of_chars(plan.text_chars, seed), voice=voice, seed=seed)


def _first_sound(engine: Engine, plan: Plan, factors: dict[str, Factor]) -> Iterator[Row]:
    requests = _requests(plan)
    for i in tqdm(range(-plan.warmup, plan.repeats), desc="first sound", disable=None):
        spoken = speak(engine, next(requests))
        if i >= 0:
            yield Row("ttfb_s", spoken.ttfb_s, "s", "lower", i, factors)
            yield Row("streamed_total_s", spoken.total_s, "s", "lower", i, factors)
            for stage, seconds in spoken.stages.items():
                yield Row("stage_s", seconds, "s", "", i, {**factors, "stage": stage})


def _whole(engine: Engine, plan: Plan, factors: dict[str, Factor]) -> Iterator[Row]:
    requests = _requests(plan)
    for i in tqdm(range(-plan.warmup, max(3, plan.repeats // 3)), desc="whole", disable=None):
        spoken = speak(engine, replace(next(requests), streaming=False))
        if i >= 0:
            yield Row("whole_s", spoken.total_s, "s", "lower", i, factors)
            yield Row("whole_audio_s", spoken.audio_s, "s", "", i, factors)


def find_sustained(target: Target, plan: Plan, factors: dict[str, Factor]) -> Iterator[Row]:
    """More and more listeners, arriving over ``spread_s``, until one hears a gap or waits long."""
    lines = Lines(plan.text_seconds, [voice_name([plan.reference_seconds], None, 0)], plan.seed + 1)
    rng, sustained = random.Random(plan.seed), 0
    for count in tqdm(plan.listeners, desc="listeners", disable=None):
        crowd = Crowd()
        for _ in range(count):
            crowd.add(_late(rng.uniform(0, plan.spread_s), target, lines, plan.requests))
        heard = crowd.join()
        yield from load_rows(heard, {**factors, "load": "real_time", "listeners": count})
        if any(h.refused or h.gap_s > 0 or h.ttfb_s > LONGEST_WAIT_S for h in heard):
            break
        sustained = count
    yield Row("sustained_listeners", sustained, "count", "higher", 0, factors)


def _late(seconds: float, target: Target, lines: Lines, requests: int) -> Callable[[Crowd], None]:
    def run(crowd: Crowd) -> None:
        if not crowd.stop.wait(seconds):
            regular(target, lines, requests, real_time=True)(crowd)

    return run


def chip_of(gpu: str | None) -> tuple[float, float] | None:
    """FLOP/s and bytes/s of a known chip, by its name."""
    found = [peaks for name, peaks in CHIPS.items() if gpu and gpu.endswith(name)]
    return found[0] if found else None


def report(record: Record, picture: Path) -> str:
    """The figures beside what is asked of an H100, the listeners, and the parts."""
    rows = []
    for mode in record.levels("compile"):
        rows.append(
            (
                mode,
                f"{median(record.values('load_s', compile=mode)):.1f}",
                f"{median(record.values('warm_up_s', compile=mode)):.1f}",
                f"{1e3 * median(_first(record, mode)):.1f}",
                f"{1e3 * percentile(_first(record, mode), 95):.1f}",
                f"{median(record.values('whole_s', compile=mode)):.3f}",
                f"{median(record.values('whole_audio_s', compile=mode)):.1f}",
                f"{median(record.values('sustained_listeners', compile=mode)):.0f}",
            )
        )
    heads = (
        *("compile", "load s", "warm-up s", "TTFB p50 ms", "p95", "whole s", "of audio"),
        "listeners",
    )
    asked = (
        f"asked of one H100: TTFB p50 {1e3 * TARGET_TTFB_S:.0f} ms, whole {TARGET_WHOLE_S} s, "
        f"{TARGET_LISTENERS} listeners"
    )
    chip = chip_of(record.machine.get("gpu"))
    sheet = (
        f"{record.machine['gpu']} by its data sheet: {chip[0] / 1e12:.0f} TFLOP/s dense bfloat16, "
        f"{chip[1] / 1e12:.2f} TB/s"
        if chip
        else f"{record.machine.get('gpu') or record.machine['cpu']}: no data sheet here"
    )
    parts = [_parts(record, mode, picture) for mode in record.levels("compile")]
    return "\n\n".join((table(heads, rows), asked, sheet, *parts))


def _first(record: Record, mode: str) -> list[float]:
    """First sound of a lone listener: those under load have a ``load``."""
    return [
        row.value
        for row in record.rows
        if row.metric == "ttfb_s" and "load" not in row.factors and row.factors["compile"] == mode
    ]


def _parts(record: Record, mode: str, picture: Path) -> str:
    rows = tuple(row for row in record.rows if row.factors["compile"] == mode)
    own = picture.with_name(f"{picture.stem}-{mode}{picture.suffix}")
    return f"compile={mode}\n{components.report([replace(record, rows=rows)], own)}"


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status: 2 where there is no such device."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try the program")
    parser.add_argument("--compile", default="off,full", help="options of conf/compile")
    parser.add_argument("--listeners", type=integers, default=(40, 80, 120, 160))
    parser.add_argument("--requests", type=int, default=2, help="of each listener")
    parser.add_argument(
        "--spread-seconds", type=float, default=30.0, help="of their arrival: all of a sound's time"
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--part-repeats", type=int, default=5)
    parser.add_argument("--part-seconds", type=float, default=0.05)
    parser.add_argument("--block-latents", type=integers, default=(32, 128, 480))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--name", help="of the record's file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the engine")
    args = parser.parse_intermixed_args(argv)
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        say(
            "error: PyTorch finds no CUDA device here. Run this on a machine with an NVIDIA GPU "
            "and a PyTorch built for CUDA (python -m torch.utils.collect_env tells more)",
            sys.stderr,
        )
        return 2
    say(f"on {hardware()['gpu'] or hardware()['cpu']}", sys.stderr)
    try:
        record = run(plan_of(args), args.overrides)
    except EchoError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    path = record.write(args.out, args.name)
    say(report(record, path.with_suffix(".png")))
    say(f"record: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
