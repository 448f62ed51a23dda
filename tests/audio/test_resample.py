from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from echo.audio import resample as module
from echo.audio.resample import StreamResampler, load_torchaudio, resample


@pytest.fixture
def fresh_choice():
    """The choice of a backend is made once per process: make it anew around a test."""
    load_torchaudio.cache_clear()
    yield
    sys.modules.pop("torchaudio", None)
    load_torchaudio.cache_clear()


def tone(rate, seconds=0.5, hertz=440.0):
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


@pytest.mark.parametrize("from_rate", [8_000, 16_000, 22_050, 48_000, 96_000, 44_101])
def test_a_tone_keeps_its_pitch_and_length(from_rate):
    converted = resample(tone(from_rate), from_rate, 44_100)
    expected = tone(44_100)
    assert converted.dtype == np.float32
    assert abs(converted.size - expected.size) <= 2
    inner = slice(2000, 20_000)  # away from the edges, where filters ring
    np.testing.assert_allclose(converted[inner], expected[inner], atol=5e-3)


def test_equal_rates_change_nothing():
    samples = tone(44_100)
    assert resample(samples, 44_100, 44_100) is samples


@pytest.mark.parametrize("part", [1, 100, 2048, 9_999])
def test_streamed_equals_whole(part):
    samples = tone(44_100, 0.3 if part > 1 else 0.05)
    stream = StreamResampler(44_100, 48_000)
    parts = [stream.push(samples[i : i + part]) for i in range(0, samples.size, part)]
    joined = np.concatenate([*parts, stream.finish()])
    whole = StreamResampler(44_100, 48_000)
    expected = np.concatenate([whole.push(samples), whole.finish()])
    assert joined.size == round(samples.size * 48_000 / 44_100)
    np.testing.assert_allclose(joined, expected, atol=1e-6)


def test_a_stream_of_nothing_ends_in_nothing():
    assert StreamResampler(44_100, 24_000).finish().size == 0
    assert StreamResampler(44_100, 44_100).finish().size == 0


def test_a_torchaudio_that_fails_to_load_leaves_soxr(tmp_path: Path, monkeypatch, fresh_choice):
    (tmp_path / "torchaudio.py").write_text("raise OSError('libcudart.so: cannot open')\n")
    sys.modules.pop("torchaudio", None)
    monkeypatch.syspath_prepend(tmp_path)
    assert load_torchaudio() is None
    assert resample(tone(48_000), 48_000, 44_100).size == 22_050


FAKE = """
import torch
calls = []
class functional:
    @staticmethod
    def resample(samples, from_rate, to_rate):
        assert isinstance(samples, torch.Tensor) and samples.dtype == torch.float32
        calls.append((from_rate, to_rate))
        return samples.repeat_interleave(to_rate // from_rate + 1)[: samples.numel() * to_rate // from_rate]
"""  # noqa: E501


def test_a_torchaudio_that_loads_is_used_unless_its_filter_would_be_huge(
    tmp_path: Path, monkeypatch, fresh_choice
):
    (tmp_path / "torchaudio.py").write_text(FAKE)
    sys.modules.pop("torchaudio", None)
    monkeypatch.syspath_prepend(tmp_path)
    assert resample(tone(22_050), 22_050, 44_100).size == 22_050
    assert resample(tone(44_101), 44_101, 44_100).dtype == np.float32
    assert load_torchaudio().calls == [(22_050, 44_100)]
    assert module.MAX_TORCHAUDIO_PHASES < 44_101
