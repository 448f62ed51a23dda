"""Text that arrives in pieces: what of it can be spoken, and when."""

from __future__ import annotations

import re

from echo.text.sentences import SPEAKER_TAG, split_sentences

_NEXT = " Next"  # what could follow: a sentence that ends before it has ended
MAX_HELD_CHARS = 2_000  # without any sentence's end; then it is cut at a space


class PendingText:
    """Pieces of a text, in order, until whole sentences are taken out."""

    def __init__(self) -> None:
        self._text = ""
        self._speaker = ""  # the tag of who spoke last

    def __len__(self) -> int:
        return len(self._text)

    def add(self, piece: str) -> None:
        """Append ``piece`` as it is: a word may go on from one piece to the next."""
        self._text += piece

    def take_sentences(self, *, at_rest: bool) -> str:
        """All complete sentences, removed. One that has not ended stays.

        What ends with a full stop may still go on (``3.`` ``14``, ``e.`` ``g.``); it counts as
        complete where white space follows, or where nothing has come for a while (``at_rest``).
        """
        if not self._text.strip():
            return ""
        cut = self._end_of_sentences(at_rest=at_rest)
        if not cut and len(self._text) > MAX_HELD_CHARS:
            space = self._text.rfind(" ", 0, MAX_HELD_CHARS)
            cut = space if space > 0 else MAX_HELD_CHARS
        return self._take(cut)

    def take_all(self) -> str:
        """Everything, removed."""
        return self._take(len(self._text))

    def _take(self, cut: int) -> str:
        taken, self._text = self._text[:cut], self._text[cut:]
        tags = SPEAKER_TAG.findall(taken)
        if self._speaker and taken.strip() and not SPEAKER_TAG.match(taken.lstrip()):
            taken = f"{self._speaker} {taken}"
        self._speaker = tags[-1] if tags else self._speaker
        return taken

    def _end_of_sentences(self, *, at_rest: bool) -> int:
        """Where the last complete sentence ends."""
        text = self._text
        settled = at_rest or text[-1].isspace()
        if "<" in text and ">" not in text[text.rfind("<") :]:  # inside a tag
            text, settled = text[: text.rfind("<")], False
        sentences = split_sentences(text + _NEXT if settled else text)
        last = sentences[-1].text if sentences else ""
        if settled and last.endswith(_NEXT.strip()):
            last = last.removesuffix(_NEXT.strip()).strip()
        if not last:
            return len(text)
        end = _last_place(last, text)
        tag = list(SPEAKER_TAG.finditer(text, 0, end))
        if tag and not text[tag[-1].end() : end].strip():
            return tag[-1].start()
        return end


def _last_place(sentence: str, text: str) -> int:
    """Where ``sentence``, whose white space may have been simplified, begins in ``text``."""
    words = re.compile(r"\s+".join(map(re.escape, sentence.split())))
    return max((match.start() for match in words.finditer(text)), default=0)
