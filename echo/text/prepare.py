"""From a request's text to what is generated: checks, normalisation, chunks."""

from __future__ import annotations

from dataclasses import dataclass

from echo.config.schema import ChunkingConfig, TextConfig
from echo.errors import InvalidRequestError, LimitExceededError
from echo.text.chunks import chunk
from echo.text.normalize import normalize


@dataclass(frozen=True)
class PreparedText:
    """``normalized``: the whole text; ``chunks``: one generation each; ``warnings``: in ASCII."""

    normalized: str
    chunks: tuple[str, ...]
    warnings: tuple[str, ...]


def prepare(
    text: object,
    text_cfg: TextConfig,
    chunking: ChunkingConfig,
) -> PreparedText:
    """The one way from a request's ``text`` (a str of any Unicode) to chunks for the model.

    Raises :class:`InvalidRequestError` (not a string, or nothing to speak) and
    :class:`LimitExceededError` (over ``text_cfg.max_input_chars``), both with ``param="input"``.
    """
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"the text must be a string, not {type(text).__name__}", param="input"
        )
    if len(text) > text_cfg.max_input_chars:
        raise LimitExceededError(
            f"the text has {len(text)} characters; at most {text_cfg.max_input_chars} are "
            "accepted, send it in parts",
            param="input",
        )
    normalized = normalize(text, exclamation=text_cfg.normalize_exclamation)
    chunks = chunk(
        normalized.text,
        chunking,
        max_tokens=text_cfg.max_text_length,
    )
    return PreparedText(normalized.text, tuple(chunks), normalized.warnings)
