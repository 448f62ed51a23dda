"""End to end with the weights that ship: what only a model that really speaks can show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from echo.audio.vad import SpeechDetector
from echo.config import compose
from echo.engine import Engine, SpeechRequest
from echo.spec import SAMPLE_RATE
from echo.training.judge import held_out_trials, judge_audio, teacher_verdict
from echo.training.measure import longest_pause_ms, median_f0, speech_end_seconds, tail_dbfs
from echo.training.recognise import WordErrors

VOICES = ("clara", "oscar", "iris", "bruno", "nora", "felix")
SHORT = "A quiet river."
ONE_CHUNK_EACH = {
    "chunk_min_seconds": 1.0,
    "chunk_target_seconds": 2.0,
    "chunk_max_seconds": 3.0,
}
LONG = "My neighbors painted seven windows in the morning and sold a red umbrella after lunch."


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine.from_config(compose(["model=tiny"])) as engine:
        yield engine


def test_a_short_text_stops_early_and_a_long_one_does_not(engine: Engine) -> None:
    with engine.stream(SpeechRequest(SHORT, voice="clara", seed=1)) as stream:
        short = stream.read()
    assert [block.ends for block in stream.stats.blocks][-1]
    assert stream.stats.early_stops == 1
    assert len(short) < 2.5 * SAMPLE_RATE
    # Blocks that speech fills to the end go on to the next.
    with engine.stream(SpeechRequest(LONG, voice="clara", seed=1)) as stream:
        stream.read()
    assert not stream.stats.blocks[0].ends
    assert len(stream.stats.blocks) >= 2


def test_a_latent_block_full_of_speech_does_not_look_like_an_end(engine: Engine) -> None:
    """Full length in one block that is all speech: no early stop, nothing cut away."""
    overrides = {"block_sizes": [56, 40], "num_steps": [8, 8]}
    request = SpeechRequest(LONG, voice="clara", seed=1, overrides=overrides)
    with engine.stream(request) as stream:
        audio = stream.read()
    assert stream.stats.early_stops == 0
    assert len(stream.stats.blocks) == 2
    assert speech_end_seconds(audio, SAMPLE_RATE) > 3.5


def test_the_tail_is_silent_and_cut(engine: Engine) -> None:
    for voice in VOICES:
        audio = engine.synthesize(SpeechRequest("Seven boats crossed the lake.", voice, seed=2))
        end = speech_end_seconds(audio, SAMPLE_RATE)
        assert tail_dbfs(audio, SAMPLE_RATE) < -50.0, voice
        assert 0.0 < len(audio) / SAMPLE_RATE - end < 0.6, voice


class _HoleInTheFirstTry:
    """A forward hook of the codec's decoder: the first audio it makes has a long hole."""

    planted = False

    def __call__(self, module: nn.Module, inputs: Any, audio: Tensor) -> Tensor:
        if not self.planted:
            self.planted = True
            audio = audio.clone()
            audio[..., round(0.4 * SAMPLE_RATE) : round(1.35 * SAMPLE_RATE)] = 0.0
        return audio


def test_a_planted_pause_is_rolled_again(engine: Engine) -> None:
    config = compose(["model=tiny", "vad=on", "vad.silence_threshold_ms=800"])
    request = SpeechRequest(LONG, voice="clara", seed=1)
    hole = _HoleInTheFirstTry()
    with Engine(config, engine.components) as careful:
        with careful.stream(request) as stream:
            stream.read()
        assert [block.attempts for block in stream.stats.blocks] == [1, 1]
        handle = engine.components.codec.decoder.register_forward_hook(hole)
        with careful.stream(request) as stream:
            stream.read()
        handle.remove()
    assert hole.planted
    assert [block.attempts for block in stream.stats.blocks] == [2, 1]
    silence = stream.stats.blocks[0].longest_silence_ms
    assert silence is not None
    assert silence < 800.0  # what is sent is the second try


def test_chunks_join_without_a_click_or_a_hole(engine: Engine) -> None:
    """Two chunks of one answer: both are understood, and the seam is a short silence."""
    texts = [trial.text for trial in held_out_trials(["clara"], slot_sentences=2, choices=0)]
    joined = " ".join(text.removeprefix("[S1] ") for text in texts)
    request = SpeechRequest(joined, voice="clara", seed=3, overrides=ONE_CHUNK_EACH)
    with engine.stream(request) as stream:
        parts = list(stream)
    assert len(stream.info.text.chunks) == 2
    audio = np.concatenate(parts)
    first = sum(block.samples for block in stream.stats.blocks if block.chunk == 0)
    around = audio[first - 441 : first + 441]
    assert float(np.abs(np.diff(around)).max()) < 0.02
    assert longest_pause_ms(audio, SAMPLE_RATE, SpeechDetector()) < 900.0
    errors = [
        judge_audio(part, SAMPLE_RATE, text, "slots").errors.errors
        for part, text in zip((audio[:first], audio[first:]), texts, strict=True)
    ]
    assert sum(errors) <= 4  # of 6 to 8 words; chance is all of them


def test_blockwise_speech_is_understood_like_full_length_speech(engine: Engine) -> None:
    blockwise = _word_error(engine, {"block_sizes": [32, 48, 48], "num_steps": [12, 12, 12]})
    whole = _word_error(engine, {"block_sizes": [128], "num_steps": [12]})
    assert whole.rate < 0.5
    assert blockwise.rate < whole.rate + 0.15


@pytest.mark.parametrize("voice", VOICES)
def test_every_voice_is_understood_and_keeps_its_pitch(engine: Engine, voice: str) -> None:
    """A small sample of what the model card reports; chance is near 1."""
    verdicts = []
    for trial in held_out_trials([voice], slot_sentences=5, choices=0):
        audio = engine.synthesize(SpeechRequest(trial.text, voice, seed=0))
        verdict = judge_audio(audio, SAMPLE_RATE, trial.text, trial.kind)
        verdicts.append((verdict, teacher_verdict(trial)))
    errors = sum((v.errors for v, _ in verdicts), WordErrors(0, 0))
    assert errors.rate < 0.6
    ratio = np.median([v.f0_hz for v, _ in verdicts]) / np.median([t.f0_hz for _, t in verdicts])
    assert 0.85 < ratio < 1.15
    late = [abs(v.end_seconds - t.end_seconds) for v, t in verdicts]
    assert float(np.median(late)) < 0.3


def test_a_reference_of_another_pitch_and_speed_changes_the_voice(engine: Engine) -> None:
    text = "Robots finished seven mountains yesterday."
    fast, slow = (engine.synthesize(SpeechRequest(text, v, seed=4)) for v in ("iris", "nora"))
    high, low = (engine.synthesize(SpeechRequest(text, v, seed=4)) for v in ("iris", "oscar"))
    assert speech_end_seconds(slow, SAMPLE_RATE) > 1.1 * speech_end_seconds(fast, SAMPLE_RATE)
    assert median_f0(high, SAMPLE_RATE) > 1.5 * median_f0(low, SAMPLE_RATE)


def _word_error(engine: Engine, overrides: dict[str, Any]) -> WordErrors:
    total = WordErrors(0, 0)
    for trial in held_out_trials(["clara", "iris"], slot_sentences=12, choices=0):
        request = SpeechRequest(trial.text, trial.voice, seed=5, overrides=overrides)
        total += judge_audio(engine.synthesize(request), SAMPLE_RATE, trial.text, trial.kind).errors
    return total
