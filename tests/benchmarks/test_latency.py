from __future__ import annotations

import sys
import time
from dataclasses import replace
from operator import truediv

import pytest

from benchmarks.app import fingerprint, launch
from benchmarks.compare import compare
from benchmarks.compare import main as compare_program
from benchmarks.latency import (
    NAME,
    LatencySettings,
    measure,
    measure_engine,
    report,
    voices_of,
)
from benchmarks.record import Record, read_records
from echo.engine import Engine
from echo.engine.components import Components
from echo.models.codec import S1DAC

SETTINGS = LatencySettings(
    seed=3, text_seconds=(2.0,), reference_seconds=(1.0,), repeats=6, new_voices=0, warmup=1
)


class SlowCodec(S1DAC):
    """Takes six times as long, however busy the machine is, and 0.1 s more."""

    def decode(self, *args, **kwargs):
        begun = time.perf_counter()
        audio = super().decode(*args, **kwargs)
        time.sleep(0.1 + 5 * (time.perf_counter() - begun))
        return audio


class PacedCodec(S1DAC):
    """Takes ``pace_s`` more for each block: time that no busy machine makes shorter or longer."""

    pace_s = 0.0

    def decode(self, *args, **kwargs):
        time.sleep(self.pace_s)
        return super().decode(*args, **kwargs)


def paced(components: Components, pace_s: float) -> Components:
    codec = PacedCodec(components.codec.config)
    codec.pace_s = pace_s
    for name, module in components.codec.named_children():
        setattr(codec, name, module)
    return Components.from_parts(components.model, codec, components.pca)


def record_of(config, components: Components, settings: LatencySettings = SETTINGS) -> Record:
    with (
        voices_of(config, settings.reference_seconds, settings.new_voices, 0) as own,
        Engine(own, components) as engine,
    ):
        return Record.of(NAME, measure_engine(engine, settings), seed=3, config={})


def half(record: Record, odd: int) -> Record:
    return replace(record, rows=tuple(row for row in record.rows if row.sample % 2 == odd))


def test_a_planted_slowdown_is_caught_and_an_equal_run_is_not(
    toy_components, toy_config, tmp_path
) -> None:
    config = toy_config("preset.block_sizes=[8]", "preset.num_steps=[3]", "chunking=off")
    plain = record_of(config, toy_components)
    slow_codec = SlowCodec(toy_components.codec.config)
    for name, module in toy_components.codec.named_children():
        setattr(slow_codec, name, module)
    parts = Components.from_parts(toy_components.model, slow_codec, toy_components.pca)
    slow = record_of(config, parts)
    # The machine may be busy; taking turns, both halves of one run see that alike.
    equal = compare([half(plain, 0)], [half(plain, 1)], limit=1.3, confidence=0.99)
    planted = compare([plain], [slow], limit=1.3, confidence=0.99)
    assert {change.verdict for change in equal} <= {"same", "not judged"}
    assert "latency.block_codec_s" in {
        change.name.split(" ")[0] for change in planted if change.verdict == "worse"
    }
    assert "TTFB ms" in report([plain, slow], tmp_path / "latency.png")
    assert (tmp_path / "latency.png").read_bytes()[:4] == b"\x89PNG"


def test_two_runs_are_told_apart_by_the_program_if_and_only_if_one_is_slower(
    toy_components, toy_config, tmp_path, capsys
) -> None:
    """Three engines from scratch; what is planted is six times what each decode takes anyway."""
    config = toy_config("preset.block_sizes=[8]", "preset.num_steps=[3]", "chunking=off")
    paths = {}
    for name, pace_s in (("before", 0.15), ("again", 0.15), ("slowed", 0.9)):
        paths[name] = record_of(config, paced(toy_components, pace_s)).write(tmp_path, name)
    limit = ("--limit", "2")
    assert compare_program([str(paths["before"]), str(paths["again"]), *limit]) == 0
    assert compare_program([str(paths["before"]), str(paths["slowed"]), *limit]) == 1
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    worse = {line[1] for line in shown if line[:1] == ["worse"]}
    assert {"latency.ttfb_s", "latency.block_codec_s"} <= worse
    assert "latency.block_sampling_s" not in worse
    assert compare_program([str(paths["slowed"]), str(paths["before"]), *limit]) == 0


def test_stages_add_up_and_a_new_voice_is_told_apart(toy_components, toy_config) -> None:
    settings = replace(SETTINGS, repeats=2, new_voices=2)
    record = record_of(toy_config("chunking=off"), toy_components, settings)
    new, cached = (record.values("ttfb_s", voice=voice) for voice in ("new", "cached"))
    assert len(new) == len(cached) == 2
    assert min(new) > min(cached)  # encoding a voice is what takes long
    sums = [0.0, 0.0]
    for row in record.rows:
        if row.metric == "stage_s":
            sums[row.sample] += row.value
    assert max(map(truediv, sums, cached)) == pytest.approx(1, rel=0.2)  # one may have been held up


def test_a_sweep_ends_with_a_table_and_is_not_measured_again(
    tmp_path, toy_settings, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    command = [
        *("benchmarks.latency", "-m", "hydra/hydra_logging=none", "hydra/job_logging=none"),
        *(*toy_settings("preset=low,equal"), "benchmark.text_seconds=[2]"),
        *("benchmark.reference_seconds=[1]", "benchmark.repeats=1", "benchmark.new_voices=0"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    launch(NAME, LatencySettings, measure)
    first = capsys.readouterr()
    assert "TTFB ms" in first.out
    assert list(tmp_path.glob("outputs/benchmarks/sweeps/*/latency.png"))
    records = read_records(tmp_path / "outputs" / "benchmarks")
    assert {record.rows[0].factors["preset"] for record in records} == {"low", "equal"}

    launch(NAME, LatencySettings, measure)
    second = capsys.readouterr()
    assert second.err.count("measured already") == 2
    assert second.out.partition("record:")[0] == first.out.partition("record:")[0]
    assert read_records(tmp_path / "outputs" / "benchmarks") == records


def test_what_was_measured_is_known_again_whatever_threads_the_last_job_left() -> None:
    config = {"engine": {"cpu_threads": 2}, "benchmark": {"name": NAME}}
    before, after = ({"cpu": "toy", "cores": 2, "threads": n} for n in (1, 2))
    assert fingerprint(config, before) == fingerprint(config, after)
    assert fingerprint(config, before) != fingerprint(config, {**before, "cores": 4})
    one = {**config, "engine": {"cpu_threads": 1}}
    assert fingerprint(one, before) != fingerprint(config, before)


def test_a_wrong_setting_is_one_clear_line(tmp_path, toy_settings, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = ["hydra/hydra_logging=none", "hydra/job_logging=none", "benchmark.repeats=often"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.latency", *wrong, *toy_settings()])
    with pytest.raises(SystemExit) as stopped:
        launch(NAME, LatencySettings, measure)
    assert stopped.value.code == 2
    assert "benchmark.repeats must be a whole number" in capsys.readouterr().err
