"""A normalised text as chunks, one generation each (service.md §1, "Chunking").

Time is estimated, sentence by sentence, as max(chars / chars per second, words / words per
second). A chunk's time is the sum over its sentences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from echo.config.schema import ChunkingConfig
from echo.errors import ConfigError
from echo.text.sentences import SPEAKER_TAG, Sentence, split_sentences

# Where to cut a sentence that is too long for one generation, best places first.
_CLAUSE = re.compile(r"(?<=[,;:])\s+|(?<=[,;:]['\")\]])\s+|(?<=\.\.)\s+")
_CONJUNCTION = re.compile(
    r"\s(?=(?:and|but|or|nor|so|yet|because|since|although|though|while|when|where|which|who|"
    r"whose|that|if|unless|until|after|before|than)\s)",
    re.IGNORECASE,
)
_LONGEST_CHARACTER = 4  # bytes of UTF-8


def estimate_seconds(sentence: str, cfg: ChunkingConfig) -> float:
    """Seconds that ``sentence`` takes to say, its leading speaker tag not counted."""
    tag = SPEAKER_TAG.match(sentence)
    if tag:
        sentence = sentence[tag.end() :].lstrip()
    return _seconds(len(sentence), len(sentence.split()), cfg)


def chunk(
    text: str,
    cfg: ChunkingConfig,
    *,
    max_tokens: int,
) -> list[str]:
    """``text`` as chunks for one generation each, every one with a speaker tag in front.

    Each has at most ``max_tokens`` - 1 UTF-8 bytes, and at most ``cfg.max_seconds`` of speech by
    the estimate. Sentences stay whole where they fit;
    longer ones are cut at clauses, then before conjunctions, then at words, then inside a word.
    Joined by spaces the chunks hold every word in order; a chunk of nothing but punctuation is
    left out. With ``cfg.enabled`` false only these limits cut: a generation cannot say more.

    Raises :class:`ConfigError` if the limits leave no room for a single word.
    """
    limits = _limits(cfg, max_tokens)
    builder = _Builder(limits)
    for sentence in split_sentences(text):
        for index, piece in enumerate(_fitting(sentence, limits, cfg)):
            # The space before a later piece is part of the sentence, so it takes time as well.
            seconds = _seconds(len(piece) + (index > 0), len(piece.split()), cfg)
            builder.add(Sentence(sentence.tag, piece), seconds)
    return builder.finish()


@dataclass(frozen=True)
class _Limits:
    target: float  # seconds, as are the next two
    minimum: float
    maximum: float
    max_bytes: int  # tag included


def _limits(cfg: ChunkingConfig, max_tokens: int) -> _Limits:
    maximum = cfg.max_seconds
    target = cfg.target_seconds if cfg.enabled else maximum
    minimum = cfg.min_seconds if cfg.enabled else maximum
    shortest = _seconds(2, 1, cfg)  # a letter and a space
    if maximum < shortest:
        raise ConfigError(
            f"a chunk may last {maximum:g} s, less than one word takes; "
            f"set chunking.max_seconds to at least {shortest:.3g}",
            param="chunking.max_seconds",
        )
    smallest = 1 + len("[S1] ") + _LONGEST_CHARACTER
    if max_tokens < smallest:
        raise ConfigError(
            f"text.max_text_length is {max_tokens}, too small for a tag and a letter; "
            f"set at least {smallest}",
            param="text.max_text_length",
        )
    return _Limits(target, minimum, maximum, max_tokens - 1)


def _size(text: str) -> int:
    """UTF-8 bytes; a lone surrogate, which the tokenizer refuses, counts as three."""
    return len(text.encode("utf-8", "surrogatepass"))


def _seconds(chars: int, words: int, cfg: ChunkingConfig) -> float:
    return max(chars / cfg.chars_per_second, words / cfg.words_per_second)


@dataclass
class _Builder:
    """Collects sentences into chunks."""

    limits: _Limits
    chunks: list[str] = field(default_factory=list)
    _parts: list[str] = field(default_factory=list)
    _tag: str = ""
    _seconds: float = 0.0
    _bytes: int = 0

    def add(self, sentence: Sentence, seconds: float) -> None:
        if self._parts and self._is_full(sentence, seconds):
            self._close()
        part = self._part(sentence)
        self._bytes += _size(part) + bool(self._parts)
        self._parts.append(part)
        self._tag = sentence.tag
        self._seconds += seconds

    def finish(self) -> list[str]:
        if self._parts:
            self._close()
        return self.chunks

    def _is_full(self, sentence: Sentence, seconds: float) -> bool:
        total = self._seconds + seconds
        return (
            (total > self.limits.target and self._seconds >= self.limits.minimum)
            or total > self.limits.maximum
            or self._bytes + 1 + _size(self._part(sentence)) > self.limits.max_bytes
        )

    def _part(self, sentence: Sentence) -> str:
        return sentence.text if sentence.tag == self._tag else f"{sentence.tag} {sentence.text}"

    def _close(self) -> None:
        text = " ".join(self._parts)
        if any(char.isalnum() for char in SPEAKER_TAG.sub("", text)):
            self.chunks.append(text)
        self._parts, self._tag, self._seconds, self._bytes = [], "", 0.0, 0


def _fitting(sentence: Sentence, limits: _Limits, cfg: ChunkingConfig) -> list[str]:
    """The sentence's text whole if it fits one chunk, else in pieces that do."""
    room = limits.max_bytes - len(sentence.tag) - 1

    def fits(piece: str, seconds: float) -> bool:
        # One character more than it has: pieces after the first bring a space.
        spoken = _seconds(len(piece) + 1, len(piece.split()), cfg)
        return _size(piece) <= room and spoken <= seconds

    whole = estimate_seconds(sentence.text, cfg) <= limits.maximum
    if whole and _size(sentence.text) <= room:
        return [sentence.text]
    pieces: list[str] = []
    for clause in _CLAUSE.split(sentence.text):
        if fits(clause, limits.maximum):
            pieces.append(clause)
            continue
        for part in map(str.strip, _CONJUNCTION.split(clause)):
            if fits(part, limits.maximum):
                pieces.append(part)
            else:
                pieces += _at_words(part, room, limits, fits, cfg)
    return pieces


def _at_words(
    text: str,
    room: int,
    limits: _Limits,
    fits: Callable[[str, float], bool],
    cfg: ChunkingConfig,
) -> Iterator[str]:
    """Runs of words of at most ``room`` bytes and the target seconds; a monster word in slices."""
    slice_seconds = limits.target if limits.target >= _seconds(2, 1, cfg) else limits.maximum
    by_time = max(1, int(min(slice_seconds * cfg.chars_per_second, 1e9)) - 1)
    run: list[str] = []
    chars = size = 0
    for word in text.split():
        whole = fits(word, limits.maximum)
        for part in (word,) if whole else _slices(word, min(by_time, room)):
            part_size = _size(part)
            spoken = _seconds(chars + len(part) + 2, len(run) + 1, cfg)
            if run and (spoken > limits.target or size + 1 + part_size > room):
                yield " ".join(run)
                run, chars, size = [], 0, 0
            chars += len(part) + bool(run)
            size += part_size + bool(run)
            run.append(part)
    if run:
        yield " ".join(run)


def _slices(word: str, longest: int) -> Iterator[str]:
    """``word`` in even slices of at most ``longest`` UTF-8 bytes, at least one character each."""
    total = _size(word)
    even = math.ceil(total / math.ceil(total / longest))
    longest = min(longest, even + _LONGEST_CHARACTER - 1)
    start = size = 0
    for index, char in enumerate(word):
        width = _size(char)
        if size + width > longest and index > start:
            yield word[start:index]
            start, size = index, 0
        size += width
    yield word[start:]
