"""Text before the model: normalise, cut into generations, turn into tokens. No torch here."""

from echo.text.chunks import chunk, estimate_seconds
from echo.text.normalize import Normalized, normalize
from echo.text.prepare import PreparedText, prepare
from echo.text.sentences import Sentence, split_sentences
from echo.text.tokens import normalize_prompt, tokenize

__all__ = [
    "Normalized",
    "PreparedText",
    "Sentence",
    "chunk",
    "estimate_seconds",
    "normalize",
    "normalize_prompt",
    "prepare",
    "split_sentences",
    "tokenize",
]
