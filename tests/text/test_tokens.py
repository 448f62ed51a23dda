import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo.errors import InvalidRequestError, LimitExceededError
from echo.text import normalize_prompt, tokenize


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[S1] Hello, this is a parity check.", "[S1] Hello, this is a parity check."),
        (
            "One: two; three—four… it’s “fine”!",
            "[S1] One, two, three, four... it's “fine\"!",  # the left quote stays
        ),
        ("one\ntwo", "[S1] one two"),
        ("(laughs) Oh.", "(laughs) Oh."),
        ("Then S2 spoke.", "Then S2 spoke."),
        ("", "[S1] "),
    ],
)
def test_the_tokenizers_own_normalisation_follows_the_original(text, expected):
    assert normalize_prompt(text) == expected


def test_tokens_are_a_zero_and_the_utf8_bytes():
    assert tokenize("aé", 768) == [0, 97, 0xC3, 0xA9]


def test_a_text_that_just_fits_is_whole():
    assert len(tokenize("x" * 767, 768)) == 768


def test_a_text_over_the_limit_is_refused():
    with pytest.raises(LimitExceededError, match="769 tokens") as caught:
        tokenize("x" * 768, 768)
    assert caught.value.param == "input"


def test_truncation_is_there_when_asked_for():
    assert tokenize("abcdef", 4, truncate=True) == [0, 97, 98, 99]


def test_a_lone_surrogate_has_no_tokens():
    with pytest.raises(InvalidRequestError, match="U\\+D83D"):
        tokenize("a\ud83d", 768)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_tokens_decode_to_the_text(text):
    ids = tokenize(text, 10**6)
    assert bytes(ids[1:]).decode() == text
