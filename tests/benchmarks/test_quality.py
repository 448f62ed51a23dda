from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.app import launch
from benchmarks.quality import (
    METRICS,
    NAME,
    QualitySettings,
    lines_of,
    measure,
    measure_engine,
    report,
    voices_of,
)
from benchmarks.record import Record, read_records
from benchmarks.speech import reference, write_voice
from benchmarks.timing import mean_interval
from echo.errors import ConfigError

SETTINGS = QualitySettings(
    seed=3,
    voices=None,
    sentences=3,
    long_texts=1,
    long_seconds=4.0,
    plain_sentences=1,
    best_steps=2,
    whisper_model=None,
)


class Deaf:
    """Hears nothing: every word is an error."""

    name = "pocketsphinx_slots"

    def hear(self, samples, sample_rate: int, sentences: int = 1) -> str:
        return ""


@pytest.fixture
def engine(make_engine, voice_root):
    for i, name in enumerate(("one", "two", "guest__three")):
        write_voice(voice_root, name, reference(1.0, i))
    return make_engine("sampler.early_stop_on_zero=false")


def test_every_text_is_judged_by_everything_that_applies(engine, tmp_path) -> None:
    record = Record.of(NAME, measure_engine(engine, SETTINGS, [Deaf()]), seed=3, config={})
    assert {row.metric for row in record.rows} <= set(METRICS)
    assert record.levels("voice") == ["one", "two"]
    assert record.values("word_error_pocketsphinx_slots") == [1.0] * 3
    assert len(record.values("loudness_lufs")) == 4
    assert len(record.values("speaker_margin")) == 4
    assert len(record.values("mcd_best_db")) == 1
    assert record.values("mcd_plain_db")[0] < 0.01
    assert len(record.values("seam_click", join="block")) >= 8
    assert record.values("seam_click", join="block", text="long")
    numbers = [row.sample for row in record.rows if row.factors == record.rows[0].factors]
    assert sorted(numbers)[0] == 0
    shown = report([record, record], tmp_path / "quality.png")
    assert "word error (slots)" in shown
    assert "1.000 (1.000 ... 1.000)" in shown
    assert (tmp_path / "quality.png").read_bytes()[:4] == b"\x89PNG"


def test_what_is_said_does_not_depend_on_the_preset(tmp_path, toy_settings, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_voice(tmp_path / "voices", "one", reference(1.0, 1))
    command = [
        *("benchmarks.quality", "-m", "hydra/hydra_logging=none", "hydra/job_logging=none"),
        *(*toy_settings("preset=low,equal"), "benchmark.sentences=2", "benchmark.long_texts=0"),
        *("benchmark.plain_sentences=0", "voices.roots=[voices]"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    launch(NAME, QualitySettings, measure)
    assert list(tmp_path.glob("outputs/benchmarks/sweeps/*/quality.png"))
    low, equal = read_records(tmp_path / "outputs" / "benchmarks")
    assert {r.rows[0].factors["preset"] for r in (low, equal)} == {"low", "equal"}
    assert len(low.values("peak_dbfs")) == len(equal.values("peak_dbfs")) == 2


def test_lines_are_different_texts_dealt_over_the_voices() -> None:
    lines = lines_of(replace(SETTINGS, sentences=8), ["a", "b", "c"])
    assert lines == lines_of(replace(SETTINGS, sentences=8), ["a", "b", "c"])
    assert len({line.text for line in lines}) == len({line.seed for line in lines}) == 9
    assert [line.voice for line in lines[:4]] == ["a", "b", "c", "a"]
    assert [line.kind for line in lines] == ["slots"] * 8 + ["long"]
    assert lines != lines_of(replace(SETTINGS, seed=4, sentences=8), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="nothing to say"):
        lines_of(replace(SETTINGS, sentences=0, long_texts=0), ["a"])


def test_a_voice_that_is_not_there_is_named(engine) -> None:
    assert voices_of(engine, ["two"]) == ("two",)
    with pytest.raises(ConfigError, match="nobody"):
        voices_of(engine, ["one", "nobody"])


def test_the_interval_of_a_mean_covers_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(200):
        mean, low, high = mean_interval(list(rng.normal(2.0, 1.0, 40)), 0.95)
        assert low <= mean <= high
        covered += low <= 2.0 <= high
    assert 180 <= covered <= 199
    assert mean_interval([3.0], 0.95) == (3.0, 3.0, 3.0)
