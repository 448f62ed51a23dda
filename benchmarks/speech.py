"""What the benchmarks have spoken: texts that never repeat, and reference voices of any length."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from echo.audio.encode import encode_file
from echo.audio.load import load_reference
from echo.audio.resample import Samples
from echo.config import shipped_path
from echo.spec import SAMPLE_RATE
from echo.training.texts import TextMix, draw_text

CHARS_PER_SECOND = 14.0  # as in conf/chunking
WORDS_PER_SECOND = 2.7
HUSH = 1e-4  # amplitude of the noise that makes one voice different from another
FADE_SAMPLES = 441
MAX_CLIP_BYTES = 100 * 2**20

_MIX = TextMix(sentences=0.8, slots=0.2, word_runs=0.0, short=0.0)


def estimated_seconds(text: str) -> float:
    """How long ``text`` takes to say, by the chunking's estimate."""
    return max(len(text) / CHARS_PER_SECOND, len(text.split()) / WORDS_PER_SECOND)


def texts(seconds: float, seed: int) -> Iterator[str]:
    """Endless different texts of about ``seconds`` (within a tenth, at least 0.4 s)."""
    rng = random.Random(f"{seconds}/{seed}")
    slack = max(0.1 * seconds, 0.4)
    seen: set[str] = set()
    while True:
        text = ""
        while estimated_seconds(text) < seconds - slack:
            sentence = draw_text(rng, _MIX, held_out=True).removeprefix("[S1] ")
            longer = f"{text} {sentence}".strip()
            fits = estimated_seconds(longer) <= seconds + slack
            text = longer if fits or (text and rng.random() < 0.02) else text
            if not fits and rng.random() < 0.05:
                text = ""  # what is left may fit no sentence: begin again
        if estimated_seconds(text) <= seconds + slack and text not in seen:
            seen.add(text)
            yield text


def text_of_chars(chars: int, seed: int) -> str:
    """A sentence of exactly ``chars`` characters."""
    words = " ".join(t.rstrip(".!?") for _, t in zip(range(8), texts(4.0, seed), strict=False))
    return words[: chars - 1].strip().ljust(chars - 1, "a") + "."


def reference(seconds: float, seed: int) -> Samples:
    """A voice of ``seconds``, float32 [T] at 44.1 kHz: a shipped clip, repeated or cut.

    Another ``seed`` is another voice to every cache, by noise that nobody hears.
    """
    clip = load_reference(
        shipped_path("audio_prompts") / "clara.flac", max_bytes=MAX_CLIP_BYTES, max_seconds=300
    )
    ramp = np.minimum(1.0, np.arange(len(clip), dtype=np.float32) / FADE_SAMPLES)
    clip = clip * ramp * ramp[::-1]
    length = round(seconds * SAMPLE_RATE)
    samples = np.tile(clip, -(-length // len(clip)))[:length]
    noise = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    return np.clip(samples + HUSH * noise, -1.0, 1.0).astype(np.float32)


def inline_voice(samples: Samples) -> str:
    """``samples`` as the base64 WAV that a request may carry for a voice."""
    return base64.b64encode(encode_file(samples, SAMPLE_RATE, "wav")).decode()


def write_voice(folder: Path, name: str, samples: Samples) -> str:
    """Put a voice file into ``folder``; returns the voice's name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.wav").write_bytes(encode_file(samples, SAMPLE_RATE, "wav"))
    return name
