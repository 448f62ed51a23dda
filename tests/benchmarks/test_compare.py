from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.compare import compare, main
from benchmarks.record import Record, RecordError, Row, read_record, read_records


def record(samples, *, metric="ttfb_s", unit="s", better="lower", **factors) -> Record:
    rows = [Row(metric, float(v), unit, better, i, factors) for i, v in enumerate(samples)]
    return Record.of("test", rows, seed=1, config={"model": {"name": "toy"}})


def verdicts(a: Record, b: Record) -> list[str]:
    return [change.verdict for change in compare([a], [b], limit=1.1, confidence=0.99)]


def test_a_record_comes_back_as_it_was_written(tmp_path) -> None:
    written = record([0.5, 0.25], preset="low", listeners=4)
    path = written.write(tmp_path)
    assert read_record(path) == written
    head = json.loads(path.read_text())["machine"]
    assert head["torch"]
    assert head["cpu"]


def test_tables_of_two_runs_go_into_one(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    record([0.5, 0.25], preset="low").write(tmp_path, "a")
    record([3e9], metric="peak", unit="B", profile="int8").write(tmp_path, "b")
    both = pandas.concat(pandas.read_parquet(tmp_path / f"{name}.parquet") for name in "ab")
    assert list(both["value"]) == [0.5, 0.25, 3e9]
    assert {"commit", "driver", "config", "factor_preset", "factor_profile"} <= set(both)
    assert [r.rows[0].unit for r in read_records(tmp_path)] == ["s", "B"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
def test_what_is_no_record_is_refused(tmp_path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(RecordError, match=r"x\.json"):
        read_record(tmp_path / "x.json")


def test_two_equal_runs_do_not_cry_wolf() -> None:
    """Five samples with 15 % of noise, two hundred times: the limit of 10 % is hardly reached."""
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        a, b = (record(0.3 * rng.lognormal(0, 0.15, 5)) for _ in range(2))
        alarms += verdicts(a, b) == ["worse"]
    assert alarms <= 2


def test_a_real_slowdown_is_seen_through_the_same_noise() -> None:
    rng = np.random.default_rng(7)
    seen = 0
    for _ in range(50):
        a = record(0.3 * rng.lognormal(0, 0.15, 5))
        b = record(0.6 * rng.lognormal(0, 0.15, 5))
        seen += verdicts(a, b) == ["worse"]
        assert verdicts(b, a) != ["worse"]
    assert seen >= 48


def test_more_is_better_where_the_metric_says_so() -> None:
    slow = record([10, 11, 10, 11, 10], metric="audio_per_s", unit="1/s", better="higher")
    fast = record([20, 21, 20, 20, 21], metric="audio_per_s", unit="1/s", better="higher")
    assert verdicts(slow, fast) == ["better"]
    assert verdicts(fast, slow) == ["worse"]


def test_few_samples_are_not_judged_but_for_bytes() -> None:
    assert verdicts(record([1.0]), record([9.0])) == ["not judged"]
    assert verdicts(record([1.0] * 4), record([9.0] * 5)) == ["not judged"]
    assert verdicts(record([1.0] * 5), record([9.0] * 5)) == ["worse"]
    small, large = (record([v], metric="peak", unit="B") for v in (1e9, 2e9))
    assert verdicts(small, large) == ["worse"]


def test_only_what_was_measured_alike_is_compared() -> None:
    assert verdicts(record([1] * 5, preset="low"), record([9] * 5, preset="default")) == []


def test_error_rates_and_decibels_are_judged_by_their_difference() -> None:
    """Zeros have no ratio, and twice as many decibels mean nothing."""
    rng = np.random.default_rng(3)

    def errors(rate: float) -> Record:
        return record(rng.random(60) < rate, metric="word_error", unit="ratio")

    assert verdicts(errors(0.1), errors(0.5)) == ["worse"]
    assert verdicts(errors(0.5), errors(0.1)) == ["better"]
    assert verdicts(record([0.0] * 5, unit="ratio"), record([0.0] * 5, unit="ratio")) == ["same"]
    tails = [record(rng.normal(mean, 2, 30), metric="tail", unit="dB") for mean in (-60, -60, -50)]
    assert verdicts(tails[0], tails[1]) == ["same"]
    assert verdicts(tails[0], tails[2]) == ["worse"]
    few = [record([mean], metric="tail", unit="dB") for mean in (-60, -20)]
    assert verdicts(*few) == ["not judged"]


def test_listeners_who_begin_to_hear_gaps_are_worse() -> None:
    smooth = record([0.0] * 12, metric="gap_s", listeners=4)
    starved = record([0.0, 0.9, 0.4] * 4, metric="gap_s", listeners=4)
    assert verdicts(smooth, starved) == ["worse"]
    assert verdicts(starved, smooth) == ["better"]
    assert verdicts(smooth, smooth) == ["same"]


def test_equal_error_rates_do_not_cry_wolf() -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(200):
        a, b = (record(rng.random(36) < 0.1, metric="errors", unit="ratio") for _ in range(2))
        alarms += verdicts(a, b) == ["worse"]
    assert alarms <= 2


def test_quality_is_compared_over_all_voices_together() -> None:
    def heard(errors: float) -> Record:
        rows = [
            Row("word_error", errors, "ratio", "lower", 0, {"voice": voice, "preset": "low"})
            for voice in ("a", "b", "c", "d", "e")
        ]
        return Record.of("quality", rows, seed=1, config={})

    (change,) = compare([heard(0.0)], [heard(0.5)], limit=1.1, confidence=0.99)
    assert (change.verdict, change.change, change.absolute) == ("worse", 0.5, True)
    assert "voice" not in change.name


def test_the_program_exits_1_past_the_limit_only(tmp_path, capsys) -> None:
    a = str(record([1.0, 1.01, 1.02, 1.0, 1.01]).write(tmp_path, "a"))
    b = str(record([1.3, 1.31, 1.33, 1.32, 1.3]).write(tmp_path, "b"))
    assert main([a, a]) == 0
    assert main([a, b]) == 1
    assert "1 worse, 0 better, 0 same, 0 not judged" in capsys.readouterr().out
    other = record([1.0] * 5, metric="rtf", unit="ratio").write(tmp_path, "other")
    assert main([a, str(other)]) == 2
    (tmp_path / "both").mkdir()
    record([1.0] * 5).write(tmp_path / "both", "a")
    record([0.1] * 5, metric="rtf", unit="ratio").write(tmp_path / "both", "c")
    assert main([str(tmp_path / "both"), a]) == 0
    assert "only in A: test.rtf" in capsys.readouterr().out
    assert main([a, b, "--limit", "1.5"]) == 0
    assert main([a, str(tmp_path / "none.json")]) == 2
