"""Signals whose loudness, seams and distances are known beforehand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks import acoustics

RATE = 44_100


def tone(seconds: float, hertz: float = 997.0, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def noise(seconds: float, rms: float, seed: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (rms * drawn).astype(np.float32)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * RATE), dtype=np.float32)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_the_standards_own_tone_has_the_standards_loudness(rate: int) -> None:
    """BS.1770: 997 Hz at full scale in one channel is -3.01 LKFS."""
    full = np.sin(2 * np.pi * 997 * np.arange(3 * rate) / rate).astype(np.float32)
    assert acoustics.loudness_lufs(full, rate) == pytest.approx(-3.01, abs=0.02)
    assert acoustics.loudness_lufs(0.1 * full, rate) == pytest.approx(-23.01, abs=0.02)


def test_loudness_knows_what_ears_weigh_less() -> None:
    level = acoustics.loudness_lufs(tone(2.0), RATE)
    assert acoustics.loudness_lufs(tone(2.0, 40.0), RATE) < level - 3
    assert acoustics.loudness_lufs(tone(2.0, 4000.0), RATE) == pytest.approx(level + 3.3, abs=0.4)


def test_silence_between_words_does_not_make_speech_quieter() -> None:
    spoken = tone(6.0, amplitude=0.1)
    with_gaps = np.concatenate((spoken, silence(6.0)))
    alone = acoustics.loudness_lufs(spoken, RATE)
    assert acoustics.loudness_lufs(with_gaps, RATE) == pytest.approx(alone, abs=0.3)
    assert acoustics.loudness_lufs(silence(2.0), RATE) == acoustics.SILENT_LUFS
    assert acoustics.loudness_lufs(silence(0.0), RATE) == acoustics.SILENT_LUFS
    assert acoustics.loudness_lufs(tone(0.2), RATE) == pytest.approx(-3.0, abs=0.3)


def test_peaks_are_in_db_of_full_scale() -> None:
    assert acoustics.peak_dbfs(np.float32([0.1, -0.5])) == pytest.approx(-6.02, abs=0.01)
    assert acoustics.peak_dbfs(silence(0.0)) == -100


def test_the_tail_is_what_comes_before_the_fade() -> None:
    fade = silence(acoustics.FADE_MS / 1000)
    loud, soft = noise(0.5, 0.1), noise(acoustics.TAIL_MS / 1000, 0.01)
    spoken = np.concatenate((loud, soft, fade))
    assert acoustics.tail_noise_dbfs(spoken, RATE) == pytest.approx(-40, abs=0.3)
    cut = np.concatenate((loud, fade))
    assert acoustics.tail_noise_dbfs(cut, RATE) == pytest.approx(-20, abs=0.3)
    assert acoustics.tail_noise_dbfs(fade, RATE) == -100


def test_pauses_are_the_gaps_between_stretches_of_speech() -> None:
    assert acoustics.pauses_s([(0.1, 1.0), (1.25, 2.0), (2.0, 3.0)]) == [0.25, 0.0]
    assert acoustics.pauses_s([(0.1, 1.0)]) == []


def test_a_jump_at_a_seam_is_a_click_and_a_smooth_join_is_none() -> None:
    steady, at = tone(1.0, 100.0, 0.3), 22_050
    assert acoustics.seam_click(steady, RATE, at) == pytest.approx(1.0, abs=0.02)
    cut = steady.copy()
    cut[at:] += 0.5
    steepest = 0.3 * 2 * np.pi * 100 / RATE
    assert acoustics.seam_click(cut, RATE, at) == pytest.approx(0.5 / steepest, rel=0.03)
    assert acoustics.seam_click(cut, RATE, at + 2000) < 1.1
    hiss = noise(1.0, 1e-5)
    assert acoustics.seam_click(hiss, RATE, at) < 0.2  # far below what can be heard


def test_another_sound_after_a_seam_shows_in_its_spectrum() -> None:
    at = 22_050
    values = [acoustics.seam_spectrum(noise(1.0, 0.1, seed), RATE, at) for seed in range(20)]
    assert np.median(values) == pytest.approx(1.0, abs=0.25)
    changed = np.concatenate((noise(0.5, 0.1), tone(0.5, 500.0, 0.3)))
    assert acoustics.seam_spectrum(changed, RATE, at) > 3
    assert math.isnan(acoustics.seam_spectrum(changed, RATE, 500))


def test_the_same_sound_is_at_no_distance_however_loud() -> None:
    sound = noise(1.0, 0.1)
    for aligned in (True, False):
        assert acoustics.mel_cepstral_db(sound, sound, RATE, aligned=aligned) == 0
        quieter = acoustics.mel_cepstral_db(sound, 0.5 * sound, RATE, aligned=aligned)
        assert quieter == pytest.approx(0, abs=1e-3)
        assert acoustics.mel_cepstral_db(sound, tone(1.0), RATE, aligned=aligned) > 10


def test_warping_forgives_another_pace_and_not_another_sound() -> None:
    low, high = tone(0.5, 300.0, 0.3), tone(0.5, 3000.0, 0.3)
    spoken = np.concatenate((low, high))
    slower = np.concatenate((low, low, high))
    warped = acoustics.mel_cepstral_db(spoken, slower, RATE, aligned=False)
    assert warped < 0.2 * acoustics.mel_cepstral_db(spoken, slower, RATE, aligned=True)
    other = np.concatenate((high, low))
    assert acoustics.mel_cepstral_db(spoken, other, RATE, aligned=False) > 5 * warped


def test_the_cheapest_path_is_the_one_of_dynamic_programming() -> None:
    cost = np.array([[0.0, 9.0, 9.0], [0.0, 9.0, 9.0], [9.0, 3.0, 0.0]])
    assert acoustics._warped(cost) == pytest.approx(3.0 / 4)  # down, across both, right
    rng = np.random.default_rng(3)
    for shape in ((1, 5), (4, 1), (6, 9)):
        cost = rng.random(shape)
        assert acoustics._warped(cost) == pytest.approx(cheapest(cost))


def cheapest(cost: np.ndarray) -> float:
    """The plain recursion: mean along the path of least total cost."""
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for i, j in np.ndindex(*cost.shape):
        before = [best[p] for p in ((i - 1, j - 1), (i - 1, j), (i, j - 1)) if p in best]
        total, length = min(before, default=(0.0, 0))
        best[i, j] = total + cost[i, j], length + 1
    total, length = best[cost.shape[0] - 1, cost.shape[1] - 1]
    return total / length
