from __future__ import annotations

import pytest

from benchmarks.first_sound import main
from benchmarks.record import read_records
from benchmarks.speech import estimated_seconds, reference, text_of_chars, texts
from benchmarks.timing import median


@pytest.mark.parametrize(("whole", "voices"), [(False, (2.0, 6.0)), (True, (2.0,))])
def test_both_ways_are_measured_side_by_side(
    tmp_path, toy_settings, capsys, whole: bool, voices: tuple[float, ...]
) -> None:
    flags = ["--whole"] if whole else []
    out = tmp_path / "out"
    sizes = ["--repeats", "2", "--out", str(out), "--name", "it", "--voice-seconds"]
    assert main([*flags, *sizes, ",".join(map(str, voices)), *toy_settings()]) == 0
    assert "ours / usual" in capsys.readouterr().out
    (record,) = read_records(out)
    metric = "total_s" if whole else "ttfb_s"
    for seconds in voices:
        ours, usual = (
            record.values(metric, way=way, voice_seconds=seconds) for way in ("ours", "usual")
        )
        assert len(ours) == len(usual) == 2
        assert median(usual) > 0
        ratios = record.values(f"{metric}_ratio", voice_seconds=seconds)
        assert ratios == [a / b for a, b in zip(ours, usual, strict=True)]
        for way, taken in (("ours", ours), ("usual", usual)):
            for i, total in enumerate(taken):
                stages = [
                    row.value
                    for row in record.rows
                    if row.metric == "stage_s"
                    and row.sample == i
                    and (row.factors["way"], row.factors["voice_seconds"]) == (way, seconds)
                ]
                assert 0 < sum(stages) < total * 1.05 + 0.02
    assert record.config["model"]["weights"] == "random"
    assert "api_keys" not in record.config["server"]


def test_an_impossible_setting_is_one_clear_line(toy_settings, capsys) -> None:
    assert main(toy_settings("preset.num_steps=[0,1,1]")) == 2
    assert "preset.num_steps" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [1.0, 4.0, 28.0])
def test_texts_never_repeat_and_keep_to_their_length(seconds: float) -> None:
    some = [text for _, text in zip(range(60), texts(seconds, 3), strict=False)]
    assert len(set(some)) == 60
    assert all(abs(estimated_seconds(text) - seconds) <= max(0.4, 0.1 * seconds) for text in some)
    assert [text for _, text in zip(range(3), texts(seconds, 3), strict=False)] == some[:3]
    assert some[0] != next(texts(seconds, 4))


def test_a_text_of_so_many_characters_has_so_many() -> None:
    assert len(text_of_chars(60, 1)) == 60
    assert text_of_chars(60, 1) != text_of_chars(60, 2)


def test_references_of_another_seed_sound_alike_and_are_not_the_same() -> None:
    a, b = reference(12.5, 1), reference(12.5, 2)
    assert len(a) == len(b) == round(12.5 * 44_100)
    assert 0 < abs(a - b).max() < 2e-3
    assert abs(a).max() > 0.05
