"""First sound, and a whole generation: Echo beside the usual way, in one run.

    python -m benchmarks.first_sound [--whole] [--voice-seconds 10,60] [--repeats 3] [KEY=VALUE ...]

Real sizes with random weights on the CPU in bfloat16, preset default, unless settings say
otherwise (``model.repo=FOLDER`` takes the sizes of a config.json). The voice is already encoded on
both sides: the usual way gets its latents, the engine has it in its cache. The two take turns.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.record import Factor, Record, Row, plain_config
from benchmarks.report import decimals, say, table
from benchmarks.speaking import Spoken, first_sound, speak
from benchmarks.speech import inline_voice, reference, text_of_chars
from benchmarks.timing import Stopwatch, median
from benchmarks.usual import UsualRequest, separate_projections, speak_usual
from echo.config import EchoConfig, compose
from echo.engine import Engine, SpeechRequest
from echo.engine.threads import in_passing_thread
from echo.errors import EchoError
from echo.inference import get_speaker_latent_and_mask

NAME = "first_sound"
SETTINGS = (
    "model=base",
    "model.weights=random",
    "model.device=cpu",
    "model.codec_device=cpu",
    "model.dtype=bfloat16",
    "model.codec_dtype=float32",
    "preset=default",
    "compile=off",
    "vad.enabled=false",
    "sampler.early_stop_on_zero=false",
    "voices.cache_on_device=true",
)
TARGETS = {"ttfb_s": 0.45, "total_s": 0.82}  # ours over the usual way's, 10 s voice, two CPU cores


@dataclass(frozen=True)
class Plan:
    """What to measure; ``whole``: to the last block, else to the first."""

    whole: bool
    voice_seconds: tuple[float, ...]
    repeats: int
    text_chars: int
    seed: int

    @property
    def metric(self) -> str:
        return "total_s" if self.whole else "ttfb_s"


def measure(engine: Engine, plan: Plan) -> list[Row]:
    """Samples of both ways, their stages, and the ratio of each pair."""
    rows: list[Row] = []
    bar = tqdm(total=len(plan.voice_seconds) * (plan.repeats + 1), desc=NAME, disable=None)
    for seconds in plan.voice_seconds:
        voice = reference(seconds, plan.seed)
        rows += _side_by_side(engine, plan, seconds, torch.from_numpy(voice)[None], bar)
    bar.close()
    return rows


def _side_by_side(
    engine: Engine, plan: Plan, length: float, voice: torch.Tensor, bar: tqdm
) -> Iterator[Row]:
    c = engine.components
    latent, mask = in_passing_thread(partial(get_speaker_latent_and_mask, c.codec, c.pca, voice))
    inline = inline_voice(voice[0].numpy())
    factors: dict[str, Factor] = {"voice_seconds": length}

    def ours(seed: int, *, whole: bool) -> tuple[float, Mapping[str, float]]:
        text = text_of_chars(plan.text_chars, seed)
        run = speak if whole else first_sound
        spoken = run(engine, SpeechRequest(text, voice=inline, seed=seed))
        return (spoken.total_s if whole else spoken.ttfb_s), _stages(spoken, plan)

    def usual(seed: int, *, whole: bool) -> tuple[float, Mapping[str, float]]:
        text = text_of_chars(plan.text_chars, seed)
        request = UsualRequest(text, latent, mask, seed, *_shape(engine))
        return in_passing_thread(partial(_usual, engine, request, whole=whole))

    ways = {"ours": ours, "usual": usual}
    for way in ways.values():  # warm-up; the engine encodes the voice here
        way(plan.seed, whole=False)
    bar.update()
    for i in range(plan.repeats):
        turns = reversed(ways) if i % 2 else ways  # neither always runs on a warmer machine
        taken = {name: ways[name](plan.seed + 1 + i, whole=plan.whole) for name in turns}
        for name, (seconds, stages) in taken.items():
            own = {**factors, "way": name}
            yield Row(plan.metric, seconds, "s", "lower", i, own)
            for stage, part in stages.items():
                yield Row("stage_s", part, "s", "", i, {**own, "stage": stage})
        ratio = taken["ours"][0] / taken["usual"][0]
        yield Row(f"{plan.metric}_ratio", ratio, "ratio", "lower", i, factors)
        bar.update()


def _shape(engine: Engine) -> tuple[Sequence[int], Sequence[int]]:
    return engine.config.preset.block_sizes, engine.config.preset.num_steps


def _usual(engine: Engine, request: UsualRequest, *, whole: bool) -> tuple[float, dict[str, float]]:
    c = engine.components
    watch = Stopwatch(c.model.device, c.codec.device)
    with separate_projections(c.model):
        begun = watch.now()
        for _ in speak_usual(c.model, c.codec, c.pca, request, watch):
            if not whole:
                break
        return watch.now() - begun, watch.seconds


def _stages(spoken: Spoken, plan: Plan) -> dict[str, float]:
    return dict(spoken.all_stages if plan.whole else spoken.stages)


def report(record: Record) -> str:
    """Medians, ratios and stages."""
    parts = []
    metric = next(m for m in TARGETS if record.values(m))
    for seconds in record.levels("voice_seconds"):
        rows = []
        stages = record.levels("stage")
        for way in ("usual", "ours"):
            middle = median(record.values(metric, way=way, voice_seconds=seconds))
            by_stage = [
                median(record.values("stage_s", way=way, voice_seconds=seconds, stage=s))
                for s in stages
            ]
            shown = ["" if v != v else f"{v:.3f}" for v in by_stage]
            rows.append((way, f"{middle:.3f}", *shown))
        ratio = median(record.values(f"{metric}_ratio", voice_seconds=seconds))
        parts.append(
            f"voice of {seconds:g} s: {metric} ours / usual = {ratio:.3f}"
            f" (target for 10 s on the real sizes: {TARGETS[metric]})\n"
            + table(("way", metric, *stages), rows)
        )
    return "\n\n".join(parts)


def run(config: EchoConfig, plan: Plan) -> Record:
    """Load, measure, and say with what."""
    begun = time.perf_counter()
    with Engine.from_config(config) as engine:
        load = Row("load_s", time.perf_counter() - begun, "s")
        engine.warm_up()
        rows = [load, *measure(engine, plan)]
    return Record.of(NAME, rows, seed=plan.seed, config={**plain_config(config), **_plain(plan)})


def _plain(plan: Plan) -> dict[str, object]:
    return {"benchmark": {**vars(plan), "voice_seconds": list(plan.voice_seconds)}}


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{NAME}", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--whole", action="store_true", help="to the last block, about 30 s")
    parser.add_argument("--voice-seconds", type=decimals, help="default: 10,60; whole: 10")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--text-chars", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks"))
    parser.add_argument("--name", help="of the record's file")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings of the engine")
    args = parser.parse_intermixed_args(argv)
    voices = args.voice_seconds or ((10.0,) if args.whole else (10.0, 60.0))
    plan = Plan(args.whole, voices, args.repeats, args.text_chars, args.seed)
    try:
        record = run(compose([*SETTINGS, *args.overrides]), plan)
    except EchoError as error:
        say(f"error: {error.message}", sys.stderr)
        return 2
    say(report(record))
    say(f"record: {record.write(args.out, args.name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
