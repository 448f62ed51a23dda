"""Was it understood? An offline recogniser that only has to choose among known sentences.

pocketsphinx with its own English model (both in its package) decodes against a grammar. Free
decoding is useless here: it gets two thirds of the synthesiser's own words wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from echo.audio.resample import Samples, resample
from echo.errors import ConfigError
from echo.training import slots
from echo.training.texts import bare

RECOGNISER_RATE = 16_000  # Hz
_PEAK = 0.7
_PADDING_SECONDS = 0.15  # the recogniser wants silence around the words, and it wants a noise
_NOISE = 0.001  # floor: with digital silence it gets 7 % of the teacher's words wrong, else 0.2 %


@dataclass(frozen=True)
class WordErrors:
    """Substitutions, insertions and deletions against the words that were to be said."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word; above 1 where more is wrong than was to be said."""
        return self.errors / max(1, self.words)

    def __add__(self, other: WordErrors) -> WordErrors:
        return WordErrors(self.errors + other.errors, self.words + other.words)


class Recogniser:
    """Speech to the likeliest sentence of one grammar.

    Loads about 30 MB once. The verdict on a recording does not depend on those before it.
    """

    def __init__(self, grammar: str) -> None:
        try:
            import pocketsphinx
        except ImportError as error:
            raise ConfigError(
                "judging needs pocketsphinx; install the extra: pip install 'echo-tts[train]'"
            ) from error
        self._decoder = pocketsphinx.Decoder(
            samprate=float(RECOGNISER_RATE), lm=None, cmn="batch", loglevel="FATAL"
        )
        self._decoder.add_jsgf_string("judged", grammar)
        self._decoder.activate_search("judged")

    @classmethod
    def of_slots(cls) -> Recogniser:
        """For :func:`echo.training.slots.slot_sentence`."""
        return cls(slots.jsgf())

    @classmethod
    def of_choice(cls, sentences: Sequence[str]) -> Recogniser:
        """For one of ``sentences``, a closed choice: a guess is right once in their number."""
        lines = " | ".join(f"( {bare(sentence)} )" for sentence in sentences)
        return cls(f"#JSGF V1.0;\ngrammar choice;\npublic <sentence> = {lines};\n")

    def transcribe(self, samples: Samples, sample_rate: int) -> str:
        """Lower-case words, or nothing. ``samples``: [T] float32 in -1..1 at ``sample_rate``."""
        audio = resample(samples, sample_rate, RECOGNISER_RATE)
        peak = float(np.abs(audio).max(initial=0.0))
        if peak == 0.0:
            return ""
        padded = np.pad(audio * (_PEAK / peak), round(_PADDING_SECONDS * RECOGNISER_RATE))
        padded += _NOISE * np.random.default_rng(0).standard_normal(padded.size)
        self._decoder.start_utt()
        self._decoder.process_raw((padded * 32767.0).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return "" if found is None else str(found.hypstr)


def nearest(sentences: Sequence[str], heard: str) -> str | None:
    """The one of ``sentences`` with the fewest word errors; None where no single word fits.

    A recogniser that runs out of sound leaves the end of a sentence away.
    """
    found = min(sentences, key=lambda sentence: word_errors(sentence, heard).errors)
    errors = word_errors(found, heard)
    return found if errors.errors < errors.words else None


def word_errors(expected: str, heard: str) -> WordErrors:
    """Least number of edits that turn ``heard`` into ``expected``; case and punctuation aside."""
    wanted, found = bare(expected).split(), bare(heard).split()
    row = list(range(len(found) + 1))
    for line, word in enumerate(wanted, 1):
        diagonal, row[0] = row[0], line
        for column, other in enumerate(found, 1):
            edits = min(row[column] + 1, row[column - 1] + 1, diagonal + (word != other))
            diagonal, row[column] = row[column], edits
    return WordErrors(row[-1], len(wanted))
