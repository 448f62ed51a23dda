"""The judges: right on the teacher, and proven to object to what is wrong."""

from itertools import pairwise

import numpy as np
import pytest

from echo.audio.resample import Samples
from echo.audio.vad import SpeechDetector
from echo.spec import SAMPLE_RATE
from echo.training.catalogue import VOICES
from echo.training.heldout import GENERAL_SENTENCES
from echo.training.judge import (
    held_out_trials,
    judge_audio,
    judge_speaker,
    teach,
)
from echo.training.measure import longest_pause_ms, median_f0, speech_end_seconds, tail_dbfs
from echo.training.recognise import nearest, word_errors


def tone(hz: float, seconds: float = 1.0, level: float = 0.3) -> Samples:
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    overtones = sum(np.sin(2 * np.pi * hz * n * time) / n for n in (1, 2, 3))
    return (level * overtones).astype(np.float32)


def silence(seconds: float) -> Samples:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)


@pytest.mark.parametrize(
    ("heard", "errors"),
    [
        ("farmers opened bottles", 0),
        ("farmers bottles", 1),
        ("farmers opened two bottles", 1),
        ("sailors opened bottles", 1),
        ("bottles opened farmers", 2),
        ("", 3),
    ],
)
def test_word_errors_count_edits(heard: str, errors: int) -> None:
    counted = word_errors("[S1] Farmers opened bottles.", heard)
    assert (counted.errors, counted.words) == (errors, 3)


def test_the_nearest_sentence_is_none_when_no_word_fits() -> None:
    sentences = ["A red house.", "The old bridge."]
    assert nearest(sentences, "the old") == "The old bridge."
    assert nearest(sentences, "") is None


@pytest.mark.parametrize("hz", [70.0, 118.0, 215.0, 390.0])
def test_the_pitch_of_a_tone_is_found(hz: float) -> None:
    assert median_f0(tone(hz), SAMPLE_RATE) == pytest.approx(hz, rel=0.01)


def test_noise_and_silence_have_no_pitch() -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
    assert median_f0(noise, SAMPLE_RATE) == 0.0
    assert median_f0(silence(1.0), SAMPLE_RATE) == 0.0
    assert median_f0(silence(0.01), SAMPLE_RATE) == 0.0


def test_the_end_of_speech_and_the_tail_are_measured() -> None:
    audio = np.concatenate([silence(0.2), tone(200, 0.5), silence(0.4)])
    assert speech_end_seconds(audio, SAMPLE_RATE) == pytest.approx(0.7, abs=0.02)
    assert tail_dbfs(audio, SAMPLE_RATE) == -100.0
    assert tail_dbfs(audio[: -round(0.4 * SAMPLE_RATE)], SAMPLE_RATE) > -20.0
    assert speech_end_seconds(silence(1.0), SAMPLE_RATE) == 0.0


def test_a_planted_pause_is_found() -> None:
    text = "[S1] The old bridge near our village was closed for the whole winter."
    speech = teach(text, "clara")
    middle = speech.size // 2
    planted = np.concatenate([speech[:middle], silence(1.0), speech[middle:]])
    detector = SpeechDetector()
    assert longest_pause_ms(speech, SAMPLE_RATE, detector) < 400.0
    assert longest_pause_ms(planted, SAMPLE_RATE, detector) > 800.0


def test_the_teacher_is_understood_and_ends_in_silence() -> None:
    voices = [voice.name for voice in VOICES]
    report = judge_speaker(teach, held_out_trials(voices, slot_sentences=12, choices=1))
    assert report.total.slots.rate <= 0.05
    assert report.total.slots.chance > 0.7
    assert report.total.choice_accuracy == 1.0
    assert report.total.ends_on_time == 1.0
    assert report.total.too_long == 0
    assert report.total.loudest_tail_dbfs < -50.0
    assert all(voice.f0_ratio == 1.0 for voice in report.voices)
    assert len(report.table().splitlines()) == 2 + len(voices) + 1


def test_voices_are_told_apart_by_pitch_but_for_one_pair() -> None:
    text = "[S1] We watched the full moon rise slowly behind the mountains."
    pitches = sorted(median_f0(teach(text, voice.name), SAMPLE_RATE) for voice in VOICES)
    assert all(high / low > 1.1 for low, high in pairwise(pitches))
    assert pitches[-1] / pitches[0] > 2.5


def test_a_speaker_who_says_something_else_fails() -> None:
    trials = held_out_trials(["clara"], slot_sentences=6, choices=2, split="tuning")
    others = {a.text: b.text for a, b in zip(trials, [*trials[1:], trials[0]], strict=True)}
    report = judge_speaker(lambda text, _: teach(others[text], "bruno"), trials)
    assert report.total.slots.rate > 0.7
    assert report.total.slots.teacher == pytest.approx(0.0, abs=0.1)
    assert report.total.choice_accuracy == 0.0
    assert report.total.f0_ratio < 0.6


def test_noise_that_goes_on_is_not_understood_and_too_long() -> None:
    rng = np.random.default_rng(0)
    trials = held_out_trials(["clara"], slot_sentences=3, choices=1)
    report = judge_speaker(
        lambda *_: rng.normal(0, 0.1, 10 * SAMPLE_RATE).astype(np.float32), trials
    )
    assert report.total.slots.rate > 0.7
    assert report.total.too_long == len(trials)
    assert report.total.ends_on_time == 0.0
    assert report.total.loudest_tail_dbfs > -50.0
    assert report.total.f0_ratio == 0.0


def test_a_verdict_does_not_depend_on_what_was_judged_before() -> None:
    text = "[S1] " + GENERAL_SENTENCES[3]
    first = judge_audio(teach(text, "felix"), SAMPLE_RATE, text, "choice")
    judge_audio(tone(300, 2.0), SAMPLE_RATE, text, "choice")
    assert judge_audio(teach(text, "felix"), SAMPLE_RATE, text, "choice") == first


def test_tuning_and_final_trials_share_no_general_sentence() -> None:
    splits = [
        {t.text for t in held_out_trials(["iris"], slot_sentences=0, split=split)}
        for split in ("tuning", "final")
    ]
    assert len(splits[0]) == len(splits[1]) == 20
    assert not splits[0] & splits[1]


def test_slot_sentences_are_shared_out_over_the_voices() -> None:
    trials = held_out_trials(["clara", "oscar", "iris"], slot_sentences=100, choices=0)
    counts = [sum(t.voice == voice for t in trials) for voice in ("clara", "oscar", "iris")]
    assert counts == [34, 33, 33]
