"""When words are said, approximately: a chunk's words spread over the speech found in its audio.

Nothing is aligned. A voice activity detector tells where somebody speaks; there the words follow
one another, each for a time in proportion to its letters. Good for captions, not for lip sync.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from echo.audio.resample import Samples
from echo.audio.vad import Span, SpeechDetector
from echo.text.sentences import SPEAKER_TAG

LETTERS_PER_SECOND = 14.0  # of speech, while a chunk's end is not known


@dataclass(frozen=True)
class TimedWord:
    """``start`` and ``end`` in seconds from the start of the reply's audio."""

    word: str
    start: float
    end: float


class Detector(Protocol):
    """As :class:`~echo.audio.vad.SpeechDetector`."""

    def speech_spans(self, samples: Samples, sample_rate: int) -> list[Span]: ...


class SpeechFinder:
    """A detector in a thread of its own, which alone may use it; made when first asked."""

    def __init__(self, make: Callable[[], Detector] = SpeechDetector) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "echo-timestamps")

    @cached_property
    def _detector(self) -> Detector:
        return self._make()

    async def spans(self, samples: Samples, sample_rate: int) -> list[Span]:
        """Where somebody speaks, in seconds; all of it if that is nowhere."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._thread, self._find, samples, sample_rate)
        return found or [(0.0, len(samples) / sample_rate)]

    def _find(self, samples: Samples, sample_rate: int) -> list[Span]:
        return self._detector.speech_spans(samples, sample_rate)


class WordClock:
    """Deals the words of one chunk out over its audio, part by part."""

    def __init__(self, words: Sequence[str]) -> None:
        self._left = list(words)

    def take(self, spans: Sequence[Span], *, last: bool) -> list[TimedWord]:
        """The words said in ``spans`` of speech: all that are left in the ``last`` part, else as
        many as fit at the usual pace; a part of them may begin in one span and end in the next."""
        speech = sum(end - start for start, end in spans)
        total = sum(map(_weight, self._left)) / LETTERS_PER_SECOND
        if last:
            pace = speech / total if total else 0.0
            taken = len(self._left)
        else:
            pace = 1.0
            taken = said = 0
            for word in self._left:
                said += _weight(word)
                if said / LETTERS_PER_SECOND > speech:
                    break
                taken += 1
        words, self._left = self._left[:taken], self._left[taken:]
        timed, at = [], 0.0
        for word in words:
            until = at + _weight(word) / LETTERS_PER_SECOND * pace
            timed.append(TimedWord(word, _place(at, spans), _place(until, spans, end=True)))
            at = until
        return timed


def words_of(text: str, chunks: Sequence[str]) -> list[list[str]]:
    """The words of ``text`` that each of its ``chunks`` says: as they were written, where the
    normalisation has left their number alone."""
    normalised = [_words(chunk) for chunk in chunks]
    written = _words(text)
    if len(written) != sum(map(len, normalised)):
        return normalised
    remaining = iter(written)
    return [[next(remaining) for _ in words] for words in normalised]


def word_info(words: Sequence[TimedWord]) -> dict[str, Any]:
    """``timestampInfo`` of WORD: three arrays of equal length."""
    return {
        "wordAlignment": {
            "words": [word.word for word in words],
            "wordStartTimeSeconds": [round(word.start, 3) for word in words],
            "wordEndTimeSeconds": [round(word.end, 3) for word in words],
        }
    }


def character_info(words: Sequence[TimedWord], *, first: bool) -> dict[str, Any]:
    """``timestampInfo`` of CHARACTER, spaces between the words included; one before them, too,
    unless they are the ``first`` of a reply."""
    rows: list[tuple[str, float, float]] = []
    before = None if first else words[0].start if words else None
    for word in words:
        if before is not None:
            rows.append((" ", before, word.start))
        each = (word.end - word.start) / len(word.word)
        for index, char in enumerate(word.word):
            start = word.start + index * each
            rows.append((char, start, start + each))
        before = word.end
    return {
        "characterAlignment": {
            "characters": [char for char, _, _ in rows],
            "characterStartTimeSeconds": [round(start, 3) for _, start, _ in rows],
            "characterEndTimeSeconds": [round(end, 3) for _, _, end in rows],
        }
    }


def _words(text: str) -> list[str]:
    return [w for w in SPEAKER_TAG.sub(" ", text).split() if any(c.isalnum() for c in w)]


def _weight(word: str) -> int:
    return len(word) + 1


def _place(spoken: float, spans: Sequence[Span], *, end: bool = False) -> float:
    """The time at which so many seconds of speech have passed; at a border between two spans, the
    ``end`` of the earlier or the start of the later one."""
    place = spans[-1][1] if spans else 0.0
    for start, stop in spans:
        length = stop - start
        if spoken < length - 1e-9 or (end and spoken <= length + 1e-9):
            return min(start + spoken, stop)
        spoken -= length
    return place
