"""Sentences of a normalised text, each with its speaker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

DEFAULT_TAG = "[S1]"
SPEAKER_TAG = re.compile(r"\[S\d\]")

_TOKEN = re.compile(r"\S+")
_OPENERS = "'\"([{‘“«"
_CLOSERS = "'\")]}’”»"
_ENDS = ".!?。！？"
_DOTTED = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]")  # U.S, e.g, a.m (the last dot is cut off)

_ANYWHERE = """mr mrs ms mx dr prof st mt ft jr sr vs etc eg ie cf al viz approx ca resp incl
inc ltd co corp bros dept univ assn ave blvd rd esq messrs mme mlle phd"""
_CAPITALISED = "Gen Col Rep Sen Gov Pres Hon Rev Capt Sgt Lt Cmdr Maj Adm Supt Fr Ste Mgr Insp"
_NUMBERED = """no nos nr fig figs vol vols ch chap sec art p pp eq ver
jan feb mar apr jun jul aug sep sept oct nov dec"""
_ABBREVIATIONS = frozenset(_ANYWHERE.split())  # never end a sentence, however written
_TITLES = frozenset(_CAPITALISED.split())  # in lower case they are, or end, ordinary sentences
_BEFORE_NUMBERS = frozenset(_NUMBERED.split())  # "No. 5", "pp. 3", "Dec. 24"; but "No. Never."


@dataclass(frozen=True)
class Sentence:
    """One sentence without its speaker tag, and that tag."""

    tag: str
    text: str


def split_sentences(text: str) -> list[Sentence]:
    """``text`` cut at speaker tags and sentence ends; text before the first tag is ``[S1]``'s.

    White space around a sentence is dropped, nothing else. What has no letter or digit joins the
    sentence before it (or after, at the start): alone it would be a generation of noise.
    """
    sentences: list[Sentence] = []
    silent = ""  # of the start
    for tag, turn in _turns(text):
        for part in _parts(turn):
            if any(char.isalnum() for char in part):
                sentences.append(Sentence(tag, f"{silent} {part}" if silent else part))
                silent = ""
            elif sentences:
                last = sentences[-1]
                sentences[-1] = replace(last, text=f"{last.text} {part}")
            else:
                silent = f"{silent} {part}" if silent else part
    return sentences


def _turns(text: str) -> Iterator[tuple[str, str]]:
    """(tag, what is said under it), in order."""
    tag, start = DEFAULT_TAG, 0
    for match in SPEAKER_TAG.finditer(text):
        yield tag, text[start : match.start()]
        tag, start = match[0], match.end()
    yield tag, text[start:]


def _parts(turn: str) -> Iterator[str]:
    tokens = list(_TOKEN.finditer(turn))
    start = 0
    for index, token in enumerate(tokens):
        previous = tokens[index - 1][0] if index else ""
        following = tokens[index + 1][0] if index + 1 < len(tokens) else ""
        if not following or _ends_sentence(token[0], previous, following):
            yield turn[start : token.end()].strip()
            start = token.end()


def _ends_sentence(token: str, previous: str, following: str) -> bool:
    core = token.rstrip(_CLOSERS)
    if not core or core[-1] not in _ENDS:
        return False
    if core[-1] != ".":
        return True
    word = core[:-1].lstrip(_OPENERS)
    if not word:  # a dot on its own; ". . ." is a run
        return previous != "." and following != "."
    return word[-1] != "." and not _is_abbreviation(word, following)


def _is_abbreviation(word: str, following: str) -> bool:
    if word.lower() in _ABBREVIATIONS or word in _TITLES or _DOTTED.fullmatch(word):
        return True
    if word.lower() in _BEFORE_NUMBERS and following[0].isdigit():
        return True
    return len(word) == 1 and word.isupper() and word != "I"  # initials: J. R. R. Tolkien
