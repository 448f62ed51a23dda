"""Who says what was heard: recognisers that run offline, by name."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Protocol

from echo.audio.resample import Samples, resample
from echo.errors import ConfigError
from echo.training import slots
from echo.training.recognise import RECOGNISER_RATE, Recogniser


class Listener(Protocol):
    """Speech to lower-case words. ``name`` says by what, and goes into the metric's name."""

    name: str

    def hear(self, samples: Samples, sample_rate: int, sentences: int = 1) -> str:
        """``sentences``: how many were to be said, for those that must be told."""
        ...


class SlotListener:
    """pocketsphinx, choosing among the sentences of :mod:`echo.training.slots`.

    A trend, no absolute figure: it never hears a word that the grammar does not have.
    """

    name = "pocketsphinx_slots"

    def __init__(self) -> None:
        self._recognisers = {1: Recogniser.of_slots()}

    def hear(self, samples: Samples, sample_rate: int, sentences: int = 1) -> str:
        if sentences not in self._recognisers:
            self._recognisers[sentences] = Recogniser(_several(sentences))
        return self._recognisers[sentences].transcribe(samples, sample_rate)


def _several(sentences: int) -> str:
    """The grammar of so many sentences of :mod:`echo.training.slots`, one after the other."""
    one = slots.jsgf().replace("public <sentence>", "<sentence>")
    return f"{one}public <text> = {' '.join(['<sentence>'] * sentences)};\n"


class WhisperListener:
    """faster-whisper, free English transcription. ``model``: its ``WhisperModel``."""

    name = "whisper"

    def __init__(self, model: Any) -> None:
        self._model = model

    @classmethod
    def named(cls, model: str) -> WhisperListener:
        """By the model's name or local folder. Raises ConfigError without faster-whisper."""
        if find_spec("faster_whisper") is None:
            raise ConfigError(
                "benchmark.whisper_model needs faster-whisper: pip install faster-whisper",
                param="benchmark.whisper_model",
            )
        from faster_whisper import WhisperModel  # type: ignore[import-not-found]

        return cls(WhisperModel(model))

    def hear(self, samples: Samples, sample_rate: int, sentences: int = 1) -> str:
        audio = resample(samples, sample_rate, RECOGNISER_RATE)
        segments, _ = self._model.transcribe(audio, language="en", beam_size=5)
        return " ".join(segment.text.strip() for segment in segments).lower()


def listeners(whisper_model: str | None) -> list[Listener]:
    """pocketsphinx where it is installed (extra ``train``), Whisper where a model is named."""
    found: list[Listener] = [SlotListener()] if find_spec("pocketsphinx") else []
    return found if whisper_model is None else [*found, WhisperListener.named(whisper_model)]
