"""Texts to train on, endless and seeded: sentences from a grammar, word runs, short replies.

Own words and own sentences. Varied on purpose: a model that only sees a few hundred words learns
those words, not how English is spelt.
"""

from __future__ import annotations

import functools
import random
import re
from dataclasses import dataclass

from echo.text.normalize import normalize
from echo.training.heldout import GENERAL_SENTENCES
from echo.training.slots import slot_sentence
from echo.training.words import read_sections, vocabulary, word_lists

MAX_WORDS = 16


@dataclass(frozen=True)
class TextMix:
    """How often each kind of text is drawn; the weights need not add up to anything."""

    sentences: float  # of data/grammar.txt
    slots: float  # three or four common words, see .slots
    word_runs: float  # unrelated words: the only way to say them is to read them
    short: float  # one to three words, replies, counting


def draw_text(rng: random.Random, mix: TextMix, *, held_out: bool) -> str:
    """One text as the engine would tokenise it: ASCII, ``[S1] `` in front, up to 16 words.

    With ``held_out`` there are no short texts, which could not differ from trained ones, but
    :data:`GENERAL_SENTENCES` and combinations of slots that are never trained on.
    """
    makers = {"sentences": _sentence, "word_runs": _word_run, "short": _short}
    weights = [mix.sentences, mix.word_runs, 0.0 if held_out else mix.short, mix.slots]
    while True:
        kind = rng.choices((*makers, "slots"), weights)[0]
        if kind == "slots":
            text = slot_sentence(rng, held_out=held_out)
        elif held_out and kind == "sentences" and rng.random() < 0.5:
            text = rng.choice(GENERAL_SENTENCES)
        else:
            text = makers[kind](rng)
        fits = (3 if held_out else 1) <= len(text.split()) <= MAX_WORDS
        if fits and (held_out or bare(text) not in _kept_apart()):
            return normalize(text, exclamation=True).text


def bare(text: str) -> str:
    """Lower case, words only, single spaces: what two texts that sound alike have in common."""
    return " ".join(re.findall(r"[a-z0-9']+", re.sub(r"\[S\d\]", "", text).lower()))


_VOWEL_SOUND = re.compile(r"(?i)(?:[aeio]|u(?!ni|se|su))(?!ne\b|nce\b)|hon[eo]|hour|heir")
_ARTICLE = re.compile(r"A/AN (?=(\S+))")


@functools.cache
def _kept_apart() -> frozenset[str]:
    return frozenset(bare(sentence) for sentence in GENERAL_SENTENCES)


@functools.cache
def _grammar() -> dict[str, tuple[str, ...]]:
    rules = {
        symbol: tuple(part.strip() for line in lines for part in line.split("|") if part.strip())
        for symbol, lines in read_sections("grammar.txt").items()
    }
    return {**word_lists(), **rules}


def _sentence(rng: random.Random) -> str:
    text = _expand(rng, "{S}")
    roll = rng.random()
    if roll < 0.06:  # people do not always write the full stop
        return text[:-1] if text.endswith(".") else text
    return text.lower() if roll < 0.1 else text


def _word_run(rng: random.Random) -> str:
    picked = [rng.choice(vocabulary()) for _ in range(rng.randint(2, 9))]
    if rng.random() < 0.3:  # function words, as often as they are in speech
        common = word_lists()["function"]
        picked = [rng.choice(common) if rng.random() < 0.4 else word for word in picked]
    joint = ", " if rng.random() < 0.25 else " "
    return _capital(joint.join(picked)) + rng.choice((".", ".", ".", "?", ""))


def _short(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.25:
        return _expand(rng, "{reply}")
    if roll < 0.45:
        return _counting(rng)
    if roll < 0.55:
        return _expand(rng, "{NP}") + "."
    words = [rng.choice(vocabulary()) for _ in range(rng.randint(1, 3))]
    return _capital(" ".join(words)) + rng.choice((".", ".", "?", ""))


def _counting(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.3:
        start, count = rng.randint(0, 17), rng.randint(3, 8)
        return _capital(", ".join(word_lists()["number"][start : start + count])) + "."
    if roll < 0.5:
        return f"{rng.randint(0, 100 if rng.random() < 0.7 else 2100)}."
    if roll < 0.7:
        return _expand(rng, f"{rng.randint(2, 99)} {{ns}}.")
    if roll < 0.85:
        return _expand(rng, f"{{weekday}}, {{month}} {rng.randint(1, 30)}.")
    return _expand(rng, "{num} and {num} is {num}.")


def _expand(rng: random.Random, pattern: str) -> str:
    """``pattern`` without symbols, articles settled, sentences capitalised."""
    while "{" in pattern:
        pattern = re.sub(r"\{(\w+)\}", lambda m: _symbol(rng, m[1]), pattern)
    settled = _ARTICLE.sub(lambda m: "an " if _VOWEL_SOUND.match(m[1]) else "a ", pattern)
    return re.sub(r"(?:^|(?<=[.?!] ))[a-z]", lambda m: m[0].upper(), settled)


def _symbol(rng: random.Random, symbol: str) -> str:
    numbers = word_lists()["number"]
    if symbol == "hour":
        return rng.choice(numbers[1:13])
    if symbol == "num":
        if rng.random() < 0.7:
            return rng.choice(numbers[2:13])
        return f"{rng.choice(numbers[20:])} {rng.choice(numbers[1:10])}"
    return rng.choice(_grammar()[symbol])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
