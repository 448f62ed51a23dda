"""The service's text normalisation (service.md §1): plain ASCII prose that the model can read."""

from __future__ import annotations

import re
from dataclasses import dataclass

from echo.errors import InvalidRequestError
from echo.text.sentences import SPEAKER_TAG
from echo.text.shouting import lower_shouted
from echo.text.tokens import with_speaker
from echo.text.transliterate import transliterate

_DASH = r"(?:-{2,}|(?<![^\s,])-(?!\S))"  # a lone hyphen before a space: well-known, -5 stay
_DASHES = re.compile(rf" ?{_DASH}(?: ?{_DASH})* ?")
_TIMES = re.compile(r"(?<=\d)( ?)\*\1(?=\d)")  # 3*4 must not become 34
_SINGLE_EXCLAMATION = re.compile(r"(?<!!)!(?!!)")
_EXCLAMATIONS = re.compile(r"!{2,}")
_TAG_COMMA = re.compile(rf"({SPEAKER_TAG.pattern})(?: ?,)+ ?")  # "[S1]: Hi"
_COMMAS = str.maketrans(":;", ",,")
_DROPPED = str.maketrans("", "", '"*')


@dataclass(frozen=True)
class Normalized:
    """``text``: ASCII, single spaces, at least one letter or digit. ``warnings``: in ASCII."""

    text: str
    warnings: tuple[str, ...]


def normalize(text: str, *, exclamation: bool) -> Normalized:
    """``text`` as the model should read it; no word of it is lost.

    Non-ASCII is transliterated; double quotes and ``*`` go; ``:``, ``;`` and ``…`` become commas,
    dashes ``, ``; shouted words are lower-cased; ``[S1] `` is put in front where the tokenizer
    would. With ``exclamation`` a single ``!`` becomes ``.`` and a run of them one ``!``.

    A second call changes nothing, except that with ``exclamation`` it would take the ``!`` left
    of a run for a single one. Raises :class:`InvalidRequestError` if nothing can be spoken.
    """
    ascii_text = transliterate(text)
    result = _TIMES.sub(" times ", " ".join(ascii_text.text.split()))
    result = " ".join(result.translate(_DROPPED).split())
    if exclamation:
        result = _EXCLAMATIONS.sub("!", _SINGLE_EXCLAMATION.sub(".", result))
    result = _DASHES.sub(_comma_for_dash, result.translate(_COMMAS))
    result = _TAG_COMMA.sub(r"\1 ", result)
    result = lower_shouted(result.strip().lstrip(", "))
    if not any(char.isalnum() for char in SPEAKER_TAG.sub("", result)):
        raise InvalidRequestError(
            "the text is empty" if not text.strip() else "the text has no letter or digit to speak",
            param="input",
        )
    return Normalized(with_speaker(result), ascii_text.warnings)


def _comma_for_dash(match: re.Match[str]) -> str:
    """``, `` unless there already is a pause on either side, or nothing to pause after."""
    before = match.string[match.start() - 1] if match.start() else "("
    after = match.string[match.end()] if match.end() < len(match.string) else ""
    if before in "([{":
        return ""
    if before in ",.!?]":
        return " "
    return "" if after and after in ",.!?)]}" else ", "
