"""The search on paper: costs and times of a shape are arithmetic, so the answer is known."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.cards import Card
from benchmarks.judging import Judge, Line, speak
from benchmarks.record import Record, read_records
from benchmarks.scoring import Score, Scorer, Weights, different_lines
from benchmarks.shapes import Space, read_preset, shape_of
from benchmarks.speech import reference, write_voice
from benchmarks.tune import header_of, main, pareto, report, rows_of, verdict
from benchmarks.tuning import LOOK_AFTER, Found, TuneSettings, tune_with
from echo.engine import Engine
from echo.errors import ConfigError

WEIGHTS = Weights(
    word_error=1.0, speaker=0.2, pause=0.1, seam=0.02, click=0.1, tail=0.01, mcd_best=0.0, load=0.0
)
SPACE = Space(
    first_latents=(16, 64),
    growth=(1.0, 4.0),
    longest_latents=(64, 320),
    first_steps=(3, 20),
    later_steps=(3, 24),
    cfg_min_t=(0.0, 0.8),
    scales=(0.5, 2.0),
    truncation=(0.5, 1.0),
)
SETTINGS = TuneSettings(
    seed=1,
    preset_name="mine",
    preset_folder=None,
    journals="",
    trials=40,
    voices=None,
    sentences=(1,),
    search_lines=6,
    final_lines=6,
    finalists=3,
    held_out_lines=20,
    slack=1.05,
    best_steps=2,
    whisper_model=None,
    weights=WEIGHTS,
    space=SPACE,
    gpu=Card("cpu", ("model.dtype=float32",), None, None, None),
)


@dataclass(frozen=True)
class Parrot:
    """Hears the same words whatever is said."""

    words: str
    name: str = "parrot"

    def hear(self, samples, sample_rate: int, sentences: int = 1) -> str:
        return self.words


@dataclass
class PaperScorer(Scorer):
    """The more steps the better, up to a point; each costs time. Guidance is best to t = 0.6.

    ``heard``: called with the count of what it spoke.
    """

    heard: Callable[[int], None] = lambda spoken: None
    gain: float = 1.0
    spoken: int = 0

    def first_sound_s(self, line: Line, overrides: Mapping[str, Any]) -> float:
        return self._work(overrides)

    def score(self, line: Line, overrides: Mapping[str, Any]) -> Score:
        self.spoken += 1
        self.heard(self.spoken)
        work = self._work(overrides)
        steps = min(20, overrides["num_steps"][-1])
        cost = 0.1 + (20 - steps) / 50 + abs(overrides.get("cfg_min_t", 0.3) - 0.6) / 5
        luck = (line.seed % 100) / 1000
        return Score(0.3 + self.gain * (cost - 0.3) + luck, {"word_error": cost}, work, work / 2)

    def _work(self, overrides: Mapping[str, Any]) -> float:
        return 1e-3 * overrides["num_steps"][0] * overrides["block_sizes"][0]


@pytest.fixture
def engine(make_engine: Callable[..., Engine], voice_root: Path) -> Engine:
    write_voice(voice_root, "one", reference(1.0, 1))
    return make_engine("preset.block_sizes=[32,128,480]", "preset.num_steps=[8,15,20]")


def tune(engine: Engine, journal: Path, settings: TuneSettings = SETTINGS, **paper: Any) -> Found:
    scorer = PaperScorer(Judge(engine, [Parrot("")], 2), WEIGHTS, **paper)
    return tune_with(scorer, settings, journal / "search.journal")


def record_of(found: Found) -> Record:
    return Record.of("tune", rows_of(found, {}), seed=1, config={})


def test_the_search_finds_the_better_shape_within_the_limits(engine: Engine, tmp_path) -> None:
    found = tune(engine, tmp_path)
    base = shape_of(engine.config.preset)
    assert found.limits.ttfb_s == pytest.approx(1e-3 * 8 * 32)
    assert len(found.trials) == SETTINGS.trials
    first = found.winner.block_sizes[0] * found.winner.num_steps[0]
    assert first <= 1.05 * base.block_sizes[0] * base.num_steps[0]
    assert found.winner.num_steps[-1] > 15
    mean, _, high = found.difference()
    assert mean <= high < 0
    assert "better than default" in verdict(record_of(found))


def test_what_is_not_better_is_not_called_better(engine: Engine, tmp_path) -> None:
    few = replace(SETTINGS, trials=4)
    same = record_of(tune(engine, tmp_path / "same", few, gain=0.0))
    assert "not shown to differ from default" in verdict(same)
    worse = record_of(tune(engine, tmp_path / "worse", few, gain=-1.0))
    assert "better" not in verdict(worse) or "+" not in verdict(worse)


def test_an_interrupted_search_goes_on_where_it_was(engine: Engine, tmp_path) -> None:
    def cut(spoken: int) -> None:
        if spoken == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(engine, tmp_path, heard=cut)
    few = tune(engine, tmp_path, replace(SETTINGS, trials=8))
    more = tune(engine, tmp_path, replace(SETTINGS, trials=11))
    assert (len(few.trials), len(more.trials)) == (8, 11)
    assert [t.params for t in more.trials[:8]] == [t.params for t in few.trials]
    assert len({str(t.params) for t in more.trials}) == 11
    assert more.limits == few.limits


def test_a_shape_that_is_far_too_slow_is_not_heard_to_the_end(engine: Engine, tmp_path) -> None:
    tight = replace(SETTINGS.gpu, ttfb_s=0.1)
    found = tune(engine, tmp_path, replace(SETTINGS, trials=20, gpu=tight))
    lines = [(t.user_attrs["lines"], t.user_attrs["ttfb_s"]) for t in found.trials]
    assert (LOOK_AFTER, True) in {(count, ttfb > 0.15) for count, ttfb in lines}
    assert all(count == SETTINGS.search_lines for count, ttfb in lines if ttfb < 0.15)
    front = pareto(record_of(found))
    assert [cost for _, cost in front] == sorted((c for _, c in front), reverse=True)
    assert all(row.factors["lines"] == SETTINGS.search_lines for row, _ in front)


def test_limits_that_nothing_keeps_are_said(engine: Engine, tmp_path) -> None:
    impossible = replace(SETTINGS, trials=3, gpu=replace(SETTINGS.gpu, ttfb_s=1e-6))
    with pytest.raises(ConfigError, match="none of 3 shapes keeps the limits"):
        tune(engine, tmp_path, impossible)


def test_the_header_says_for_what_with_what_and_how_good(engine: Engine, tmp_path) -> None:
    found = tune(engine, tmp_path, replace(SETTINGS, trials=4))
    header = "\n".join(header_of(found, engine.config, SETTINGS, "model.dtype=float32"))
    for part in ("commit", "torch", "first sound 256 ms", "gpu=cpu", "20 texts", "tuned is"):
        assert part in header
    assert "preset=mine model.dtype=float32" in header
    assert max(map(len, header.splitlines())) <= 120


def test_lines_of_search_choice_and_held_out_share_no_text() -> None:
    sets = different_lines([6, 5, 9], [1, 2], ["a", "b"], 1)
    assert [len(lines) for lines in sets] == [6, 5, 9]
    sentences = [part for lines in sets for line in lines for part in line.text.split(". ")]
    assert len({part.rstrip(".") for part in sentences}) == len(sentences)
    assert [line.text.count(".") for line in sets[0]] == [1, 2] * 3
    assert [line.voice for line in sets[0]] == ["a", "a", "b", "b", "a", "a"]
    assert sets == different_lines([6, 5, 9], [1, 2], ["a", "b"], 1)


def test_the_cost_is_the_weighted_sum_of_what_is_wrong(make_engine, voice_root) -> None:
    write_voice(voice_root, "one", reference(1.0, 1))
    engine = make_engine()
    line = Line("Farmers opened bottles again.", "one", 3)
    judge = Judge(engine, [Parrot("farmers opened windows again")], 2)
    score = Scorer(judge, WEIGHTS).score(line, {})
    assert score.parts["word_error"] == 0.25
    expected = sum(getattr(WEIGHTS, name) * value for name, value in score.parts.items())
    assert score.cost == pytest.approx(expected)
    nothing = Weights(0, 0, 0, 0, 0, 0, 0, 0)
    assert Scorer(Judge(engine, [], 2), nothing).score(line, {}).cost == 0
    load = Scorer(Judge(engine, [], 2), replace(nothing, load=2.0)).score(line, {})
    assert load.cost == pytest.approx(2.0 * load.rtf)
    assert load.rtf > 0
    with pytest.raises(ConfigError, match="pocketsphinx"):
        Scorer(Judge(engine, [], 2), WEIGHTS)
    take = speak(engine, line, {"num_steps": 1})
    assert take.settings.blocks[0].num_steps == 1  # a request's settings reach the engine


def test_the_clock_counts_the_first_block_alone_and_no_waiting(make_engine, voice_root) -> None:
    write_voice(voice_root, "one", reference(1.0, 1))
    scorer = Scorer(Judge(make_engine(), [Parrot("")], 2), WEIGHTS)
    line = Line("Farmers opened bottles again.", "one", 3)
    begun = scorer.seconds()
    time.sleep(0.5)
    assert scorer.seconds() - begun < 0.25

    def first(size: int, steps: int) -> float:
        shape = {"block_sizes": (size, 320), "num_steps": (steps, 50)}
        return min(scorer.first_sound_s(line, shape) for _ in range(3))

    scorer.first_sound_s(line, {"block_sizes": (8,), "num_steps": (1,)})  # the voice, once
    assert 0 < first(8, 2) < first(160, 40)
    whole = scorer.score(line, {"block_sizes": (8, 320), "num_steps": (2, 50)})
    assert first(8, 2) < 0.5 * whole.rtf * 328 / 21.5


def test_the_whole_program_writes_a_preset_that_loads(
    tmp_path, toy_settings, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    write_voice(tmp_path / "voices", "one", reference(1.0, 1))
    command = [
        *("tune", "gpu=cpu", "hydra/hydra_logging=none", "hydra/job_logging=none"),
        *toy_settings("benchmark.gpu.setups=['model.dtype=float32','model.dtype=bfloat16']"),
        *("benchmark.trials=2", "benchmark.search_lines=2", "benchmark.final_lines=1"),
        *("benchmark.held_out_lines=2", "benchmark.finalists=2", "voices.roots=[voices]"),
        *("benchmark.weights.word_error=0", "benchmark.sentences=[1]", "benchmark.slack=100"),
        *("benchmark.preset_folder=presets", "benchmark.space.first_steps=[1,2]"),
        *("benchmark.space.later_steps=[1,2]", "benchmark.preset_name=toy"),
    ]
    monkeypatch.setattr(sys, "argv", command)
    main()
    shown = capsys.readouterr().out
    assert "Pareto front of 2 trials" in shown
    assert list(tmp_path.glob("outputs/benchmarks/runs/*/tune.png"))
    preset = read_preset(tmp_path / "presets" / "toy.yaml")
    assert preset.name == "toy"
    assert "cfg_min_t" in preset.sampler
    (record,) = read_records(tmp_path / "outputs" / "benchmarks")
    assert len(record.values("setup_rtf")) == 8
    assert len(record.values("held_out_cost", way="tuned")) == 2
    assert "held out" in report([record], tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes()[:4] == b"\x89PNG"
