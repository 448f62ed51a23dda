import pytest

from echo.text import Sentence, split_sentences


def texts(text):
    return [sentence.text for sentence in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("He said 'go.' Then (he left.) Wow.", ["He said 'go.'", "Then (he left.)", "Wow."]),
        ("So am I. Really?! Yes.", ["So am I.", "Really?!", "Yes."]),
        ("I said no. Never. He sat. Then", ["I said no.", "Never.", "He sat.", "Then"]),
        ("(laughs) Oh. (sighs) No.", ["(laughs) Oh.", "(sighs) No."]),
        ("In 1990. Then", ["In 1990.", "Then"]),
    ],
)
def test_sentence_ends_split(text, expected):
    assert texts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Miller met Prof. Lane and Mrs. Hill etc. in St. Paul.",
        "J. R. R. Tolkien of the U.S. army came at 5 p.m. sharp, e.g. today.",
        "It costs 3.50 or 1.000.000 at example.com.",
        "See No. 5, Fig. 3 and Dec. 24.",
        "Wait... what .. now . . . then",
        "Is it 'why?'not so",
    ],
)
def test_abbreviations_decimals_and_runs_of_dots_do_not_split(text):
    assert texts(text) == [text]


def test_speaker_tags_split_and_stay_with_what_they_govern():
    assert split_sentences("Hi [S2]Ho. So[S1] Ah. [S2]") == [
        Sentence("[S1]", "Hi"),
        Sentence("[S2]", "Ho."),
        Sentence("[S2]", "So"),
        Sentence("[S1]", "Ah."),
    ]


def test_loose_punctuation_joins_its_neighbour():
    assert texts("... Hi. ! ? [S2] ... [S1] Ho.") == ["... Hi. ! ? ...", "Ho."]
    assert texts("... !") == []
