import re
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo.config.schema import ChunkingConfig
from echo.errors import ConfigError
from echo.text import chunk, estimate_seconds, split_sentences

CFG = ChunkingConfig(
    enabled=True,
    target_seconds=30.0,
    min_seconds=20.0,
    max_seconds=40.0,
    chars_per_second=14.0,
    words_per_second=2.7,
)
SMALL = replace(CFG, target_seconds=3.0, min_seconds=2.0, max_seconds=4.0)
TAG = re.compile(r"\[S\d\]")


def words(text):
    return TAG.sub(" ", text).split()


def letters(spoken):
    return [char for word in spoken for char in word if char.isalnum()]


def seconds(piece, cfg):
    """Of a chunk: the sum over its sentences."""
    return sum(estimate_seconds(s.text, cfg) for s in split_sentences(piece))


def test_time_is_the_slower_of_characters_and_words_without_the_tag():
    assert estimate_seconds("[S2] " + "a" * 28, CFG) == 2.0
    assert estimate_seconds("a b c d e f g h i", CFG) == pytest.approx(9 / 2.7)


def test_a_chunk_ends_at_the_target_once_it_has_the_minimum():
    half = "b" * 209 + "."  # 15 s
    assert chunk(f"{half} {half} {half}", CFG, max_tokens=768) == [
        f"[S1] {half} {half}",
        f"[S1] {half}",
    ]


def test_a_chunk_below_the_minimum_goes_past_the_target_but_not_the_maximum():
    short, medium, long = ("b" * (14 * s - 1) + "." for s in (19, 20, 22))
    assert len(chunk(f"{short} {medium}", CFG, max_tokens=768)) == 1
    assert len(chunk(f"{short} {long}", CFG, max_tokens=768)) == 2


def test_a_tag_opens_every_chunk_and_returns_only_where_the_speaker_changes():
    text = "[S1] One. [S1] Two. [S2] Three. Four. [S1] Five."
    assert chunk(text, CFG, max_tokens=768) == ["[S1] One. Two. [S2] Three. Four. [S1] Five."]
    assert chunk("(laughs) Oh.", CFG, max_tokens=768) == ["[S1] (laughs) Oh."]
    tight = replace(CFG, target_seconds=1.0, min_seconds=0.0, max_seconds=1.0)
    assert chunk("[S2] One here. Two there.", tight, max_tokens=768) == [
        "[S2] One here.",
        "[S2] Two there.",
    ]


def test_a_long_sentence_is_cut_at_clauses_first():
    text = "the cat slept on the mat, the dog ran in the yard, and the bird sang."
    assert chunk(text, SMALL, max_tokens=768) == [
        "[S1] the cat slept on the mat,",
        "[S1] the dog ran in the yard,",
        "[S1] and the bird sang.",
    ]


def test_a_long_clause_is_cut_before_conjunctions_and_then_at_words():
    text = "the small cat slept on the old mat and the big dog ran"
    assert chunk(text, SMALL, max_tokens=768) == [
        "[S1] the small cat slept on the old mat",
        "[S1] and the big dog ran",
    ]
    assert chunk("one two six ten " * 3, SMALL, max_tokens=768) == [
        "[S1] one two six ten one two six ten",
        "[S1] one two six ten",
    ]


def test_a_monster_word_is_cut_inside_as_the_last_resort():
    pieces = chunk("hm " + "x" * 1000 + " end.", CFG, max_tokens=768)
    assert "".join(words(" ".join(pieces))) == "hm" + "x" * 1000 + "end."
    assert all(seconds(p, CFG) <= 40 for p in pieces)


@pytest.mark.parametrize("enabled", [True, False])
def test_no_chunk_takes_longer_than_the_limit_chunking_or_not(enabled):
    cfg = replace(CFG, enabled=enabled, max_seconds=10.0, target_seconds=8.0, min_seconds=5.0)
    text = " ".join(["word"] * 200) + "."
    pieces = chunk(text, cfg, max_tokens=768)
    assert all(seconds(p, cfg) <= 10.0 for p in pieces)
    assert words(" ".join(pieces)) == words(text)


def test_without_chunking_only_bytes_and_the_limit_cut():
    off = replace(CFG, enabled=False, max_seconds=1000.0)
    sentence = "a bb ccc " * 9 + "end."
    assert len(chunk(" ".join([sentence] * 8), off, max_tokens=768)) == 1
    pieces = chunk(" ".join([sentence] * 9), off, max_tokens=768)
    assert pieces == ["[S1] " + " ".join([sentence] * 8), "[S1] " + sentence]


def test_a_chunk_of_punctuation_alone_is_not_generated():
    assert chunk("... ! ?", CFG, max_tokens=768) == []
    (piece,) = chunk(". " * 2000 + "end", CFG, max_tokens=768)
    assert re.fullmatch(r"\[S1\] (\. )+end", piece)


def test_limits_that_leave_no_room_for_a_word_are_errors():
    with pytest.raises(ConfigError, match="less than one word") as caught:
        chunk(
            "Hi.",
            replace(CFG, target_seconds=0.1, min_seconds=0.0, max_seconds=0.1),
            max_tokens=768,
        )
    assert caught.value.param == "chunking.max_seconds"
    with pytest.raises(ConfigError, match="too small for a tag"):
        chunk("Hi.", CFG, max_tokens=9)


TEXTS = st.lists(
    st.one_of(
        st.from_regex(r"[a-zA-Z]{1,12}[.,!?]?", fullmatch=True),
        st.sampled_from(["[S1]", "[S2]", "(laughs)", "and", "Dr.", "3.5", "...", "é你"]),
        st.integers(40, 900).map(lambda n: "x" * n),
    ),
    max_size=300,
).map(" ".join)
CONFIGS = st.builds(
    lambda low, mid, high, enabled, cps, wps: ChunkingConfig(
        enabled, low + mid, low, low + mid + high, cps, wps
    ),
    st.floats(0, 20),
    st.floats(1.1, 20),
    st.floats(0, 20),
    st.booleans(),
    st.floats(5, 100),
    st.floats(1, 8),
)


@settings(deadline=None, max_examples=200)
@given(TEXTS, CONFIGS, st.sampled_from([16, 64, 768]))
def test_chunks_hold_every_word_in_order_within_the_limits(text, cfg, max_tokens):
    pieces = chunk(text, cfg, max_tokens=max_tokens)
    spoken = [word for word in words(" ".join(pieces)) if any(c.isalnum() for c in word)]
    expected = [word for word in words(text) if any(c.isalnum() for c in word)]
    assert letters(spoken) == letters(expected)
    longest_word = max((len(w.encode()) for w in expected), default=0)
    if longest_word + len("[S1] ") < max_tokens and longest_word / cfg.chars_per_second < 1.0:
        assert spoken == expected  # nothing is cut inside a word that fits
    for piece in pieces:
        assert TAG.match(piece)
        assert len(piece.encode()) <= max_tokens - 1
        assert seconds(piece, cfg) <= cfg.max_seconds + 1e-6


@settings(deadline=None)
@given(st.text(st.characters()))
def test_any_unicode_can_be_chunked(text):
    for piece in chunk(text, CFG, max_tokens=768):
        assert TAG.match(piece)


@pytest.mark.parametrize("unit", ["word ", "a, ", "x. ", "Hello there my friend. ", "y", "a  "])
def test_a_hundred_kilobytes_take_a_blink(unit):
    text = unit * (100_000 // len(unit))
    start = time.thread_time()
    chunk(text, CFG, max_tokens=768)
    assert time.thread_time() - start < 5.0  # 0.03 to 0.2 here; quadratic would take minutes
