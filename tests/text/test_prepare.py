import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo.config.schema import ChunkingConfig, TextConfig
from echo.errors import InvalidRequestError, LimitExceededError
from echo.text import normalize_prompt, prepare, tokenize

CASES = json.loads(
    (Path(__file__).parents[1] / "data" / "parity" / "text_cases.json").read_text("utf-8")
)
TEXT = TextConfig(normalize_exclamation=True, max_text_length=768, max_input_chars=200_000)
CHUNKING = ChunkingConfig(
    enabled=True,
    target_seconds=30.0,
    min_seconds=20.0,
    max_seconds=40.0,
    chars_per_second=14.0,
    words_per_second=2.7,
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["input"][:30])
def test_golden_cases_are_met_exactly(case):
    params = dict(case["params"])
    exclamation = params.pop("normalize_exclamation", True)
    prepared = prepare(
        case["input"],
        replace(TEXT, normalize_exclamation=exclamation),
        replace(CHUNKING, **params),
    )
    assert prepared.normalized == case["normalized"]
    assert list(prepared.chunks) == case["chunks"]
    assert prepared.warnings == ()


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a"]])
def test_a_text_must_be_a_string(text):
    with pytest.raises(InvalidRequestError, match="must be a string") as caught:
        prepare(text, TEXT, CHUNKING)
    assert caught.value.param == "input"


def test_a_text_over_the_limit_is_refused_and_one_at_it_is_not():
    limited = replace(TEXT, max_input_chars=10)
    assert prepare("a" * 10, limited, CHUNKING).chunks == ("[S1] " + "a" * 10,)
    with pytest.raises(LimitExceededError, match="11 characters") as caught:
        prepare("a" * 11, limited, CHUNKING)
    assert caught.value.param == "input"


def test_warnings_reach_the_caller():
    assert "U+0007" in prepare("a\x07b", TEXT, CHUNKING).warnings[0]


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters()))
def test_any_unicode_gives_chunks_that_the_tokenizer_takes_or_a_typed_error(text):
    try:
        prepared = prepare(text, TEXT, CHUNKING)
    except InvalidRequestError:
        return
    assert prepared.chunks
    for piece in prepared.chunks:
        assert normalize_prompt(piece) == piece
        assert len(tokenize(piece, 768)) <= 768
