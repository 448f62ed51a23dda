from __future__ import annotations

import time

import pytest
import torch

from benchmarks.components import ComponentSettings, measure_engine, report
from benchmarks.latency import voices_of
from benchmarks.record import Record
from benchmarks.timing import Stopwatch, time_calls
from echo.engine import Engine
from echo.spec import LATENTS_PER_SECOND

SETTINGS = ComponentSettings(
    seed=1,
    repeats=2,
    warmup=1,
    min_seconds=0.0,
    text_tokens=(20,),
    speaker_latents=(24,),
    block_latents=(8, 16),
)


def test_every_part_is_timed_with_its_rates(toy_components, toy_config, tmp_path) -> None:
    with (
        voices_of(toy_config(), [24 / LATENTS_PER_SECOND], 0, 1) as config,
        Engine(config, toy_components) as engine,
    ):
        record = Record.of("components", measure_engine(engine, SETTINGS), seed=1, config={})
    parts = {row.factors["component"] for row in record.rows if "component" in row.factors}
    encoders = {"text_encoder", "speaker", "prefix"}
    assert parts == encoders | {"dit_plain", "dit_step", "pca", "codec_decode", "codec_encode"}
    for guided in (True, False):
        steps = record.values("component_s", component="dit_step", size=16, guided=guided)
        assert len(steps) == 2
        assert min(steps) > 0
    assert min(record.values("peak_flop_per_s", of="codec")) > 1e9
    assert "GFLOP/s" in report([record], tmp_path / "parts.png")
    assert (tmp_path / "parts.png").is_file()


def test_short_calls_are_timed_in_groups_and_warm_up_does_not_count() -> None:
    calls = []

    def call() -> None:
        calls.append(time.perf_counter())
        time.sleep(0.2 if len(calls) == 1 else 0.002)

    taken = time_calls(call, torch.device("cpu"), repeats=3, warmup=1, min_s=0.02)
    assert len(taken) == 3
    assert max(taken) < 0.1
    assert len(calls) > 1 + 1 + 3 * 2


def test_a_stopwatch_adds_up_by_stage() -> None:
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.stage("sleep"):
            time.sleep(0.01)
    assert watch.seconds["sleep"] == pytest.approx(0.02, rel=0.9)
