"""Markup in a text: pauses are kept as pauses, the rest is dropped, none is spoken as symbols.

=======================================  =====================================================
``<break time="1.5s"/>``, ``"300ms"``    silence of that length, at most 10 s; without a time 0.5 s
``<emphasis>word</emphasis>``, ``<b>``   any other tag goes, what it encloses stays
``[happy]``, ``[clear throat]``          brackets around words go, words and all
``[S1]``, ``[S2]``                       stay: they switch speakers, also across a pause
``*word*``, ``**word**``                 the word
=======================================  =====================================================

What only looks like markup (``3 < 5``, ``3*4``, ``[12]``) stays for the normalisation. Of more
than 20 pauses the last ones are left out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from echo.text.sentences import SPEAKER_TAG

MAX_PAUSE_SECONDS = 10.0
DEFAULT_PAUSE_SECONDS = 0.5
MAX_PAUSES = 20

_BREAK = re.compile(r"<break\b([^<>]*)>", re.IGNORECASE)
_TIME = re.compile(
    r"""\btime\s*=\s*["']?\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s*(m?s)""", re.IGNORECASE
)
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_GLUED = re.compile(r"</?[A-Za-z][^<>]*>(?=[.,!?;:])")  # no space before a full stop
_DIRECTION = re.compile(r"\[(?!S\d\])[^\W\d][\w' ,\-]{0,59}\]")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3})(?=[^\s*])([^*]*[^\s*])\1(?![\w*])")


@dataclass(frozen=True)
class Pause:
    """Silence between two pieces of text."""

    seconds: float


def parse_markup(text: str) -> list[str | Pause]:
    """``text`` without markup, cut at its pauses; each piece has a letter or digit to speak.

    A piece after a pause begins with the tag of the speaker who spoke last, if there was one.
    """
    pieces: list[str | Pause] = []
    speaker = ""
    start = 0
    for number, match in enumerate(_BREAK.finditer(text)):
        speaker = _add_text(pieces, text[start : match.start()], speaker)
        start = match.end()
        if number < MAX_PAUSES:
            _add_pause(pieces, match[1])
    _add_text(pieces, text[start:], speaker)
    return pieces


def strip_markup(text: str) -> str:
    """``text`` without markup other than speaker tags; no pause is left of a break."""
    text = _DIRECTION.sub(" ", _TAG.sub(" ", _GLUED.sub("", text)))
    return " ".join(_EMPHASIS.sub(r"\2", text).split())


def _add_text(pieces: list[str | Pause], text: str, speaker: str) -> str:
    """Returns whose turn it is afterwards."""
    clean = strip_markup(text)
    tags = SPEAKER_TAG.findall(clean)
    if any(char.isalnum() for char in SPEAKER_TAG.sub("", clean)):
        opens_with_tag = SPEAKER_TAG.match(clean) is not None
        pieces.append(clean if opens_with_tag or not speaker else f"{speaker} {clean}")
    return tags[-1] if tags else speaker


def _add_pause(pieces: list[str | Pause], attributes: str) -> None:
    seconds = DEFAULT_PAUSE_SECONDS
    if time := _TIME.search(attributes):
        seconds = float(time[1]) / (1000.0 if time[2].lower() == "ms" else 1.0)
    if seconds > 0:
        pieces.append(Pause(min(seconds, MAX_PAUSE_SECONDS)))
