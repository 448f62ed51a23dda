"""The tokenizer of the checkpoints: UTF-8 bytes with a start token, and its own normalisation."""

from __future__ import annotations

from echo.errors import InvalidRequestError, LimitExceededError
from echo.spec import BOS_TOKEN

# In this order. The left double quote stays: a quirk of the original that its values depend on.
_REPLACEMENTS = (
    ("…", "..."),
    ("’", "'"),
    ("”", '"'),
    ("\n", " "),
    (":", ","),
    (";", ","),
    ("—", ", "),
)


def normalize_prompt(text: str) -> str:
    """The tokenizer's own normalisation (model.md §1), with ``[S1] `` in front where it is due.

    The service's richer one is :func:`echo.text.normalize.normalize`; its result passes through
    here unchanged, as does every chunk.
    """
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    return with_speaker(text)


def with_speaker(text: str) -> str:
    """``[S1] `` in front, unless the text opens with ``[`` or ``(`` or names S1 or S2."""
    if text.startswith(("[", "(")) or "S1" in text or "S2" in text:
        return text
    return f"[S1] {text}"


def tokenize(text: str, max_length: int, *, truncate: bool = False) -> list[int]:
    """Token ids of ``text``: 0, then its UTF-8 bytes; 1 to ``max_length`` ids in 0..255.

    Raises :class:`LimitExceededError` for a longer text. ``truncate`` cuts it instead, as the
    original Python API does. :class:`InvalidRequestError`: lone surrogates have no UTF-8 form.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"the text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}; send valid Unicode",
            param="input",
        ) from error
    ids = [BOS_TOKEN, *data]
    if len(ids) > max_length and not truncate:
        raise LimitExceededError(
            f"the text takes {len(ids)} tokens and one generation holds {max_length}; "
            "split it into shorter parts",
            param="input",
        )
    return ids[:max_length]
