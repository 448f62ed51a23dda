import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from echo.errors import InvalidRequestError
from echo.text import normalize, normalize_prompt


def normalized(text, exclamation=True):
    return normalize(text, exclamation=exclamation).text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there!", "[S1] Hello there."),
        ("Stop!! Wait! Now!!!", "[S1] Stop! Wait. Now!"),
        ("One: two; three.\n\tFour.  ", "[S1] One, two, three. Four."),
        ("Wait… what", "[S1] Wait, what"),
        ("three—four – five -- six - seven", "[S1] three, four, five, six, seven"),
        ("a well-known -5", "[S1] a well-known -5"),
        ("— Hi. — Go, — then —.", "[S1] Hi. Go, then."),
        ("So:- five,- six", "[S1] So, five, six"),
        ("Wait—", "[S1] Wait,"),
        ('He said "go" and “stay” «here».', "[S1] He said go and stay here."),
        ("It’s ‘fine’", "[S1] It's 'fine'"),
        ("*emphasis* and **more**", "[S1] emphasis and more"),
        ("3*4", "[S1] 3 times 4"),
        ("(laughs) Oh", "(laughs) Oh"),
        ("[S2]: Hi (laughs) there", "[S2] Hi (laughs) there"),
        ("Hi. [S2] Ho", "Hi. [S2] Ho"),
    ],
)
def test_punctuation_follows_the_rules(text, expected):
    assert normalized(text) == expected


def test_exclamation_marks_stay_when_the_rule_is_off():
    assert normalized("Stop!! Wait!", exclamation=False) == "[S1] Stop!! Wait!"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("STOP NOW, I AM NASA'S", "[S1] stop now, I am NASA's"),
        ("THE USA, DON'T, I'M, A, HMM", "[S1] the USA, don't, I'm, A, hmm"),
        ("U.S. HTTP RTX MP3 'QUIET'", "[S1] U.S. HTTP RTX MP3 'quiet'"),
        ("McDonald iPhone CEOs", "[S1] McDonald iPhone CEOs"),
        ("[S1] YES [S2] NO", "[S1] yes [S2] no"),
        ("ПРИВЕТ ÉCOLE", "[S1] privet ecole"),
    ],
)
def test_shouted_words_are_lowered_and_abbreviations_are_not(text, expected):
    assert normalized(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("résumé naïve ß", "[S1] resume naive ss"),
        ("re\u0301sume\u0301 и\u0306", "[S1] resume y"),  # decomposed
        ("Привет мир", "[S1] Privet mir"),
        ("你好，世界。再见！", "[S1] Ni Hao, Shi Jie. Zai Jian."),
        ("안녕하세요", "[S1] annyeonghaseyo"),
        ("¿Qué? ¡Hola!", "[S1] Que? Hola."),
        ("5 °C, €5.50, 1½, 3×4", "[S1] 5 degrees C, 5.50 euros, 1 1/2, 3 times 4"),
        ("a\u200bb\u00adc\ufeff", "[S1] abc"),
        ("a\u00a0b\u2028c", "[S1] a b c"),
    ],
)
def test_what_is_not_ascii_is_transliterated_without_a_warning(text, expected):
    result = normalize(text, exclamation=True)
    assert result.text == expected
    assert result.warnings == ()


def test_emoji_are_spoken_by_name_and_say_so():
    result = normalize("Hi😀👍🏽 🇺🇸", exclamation=True)
    assert result.text == "[S1] Hi grinning thumbsup US"
    assert result.warnings == ("spoken by name: U+1F600 (grinning), U+1F44D (thumbsup)",)


@pytest.mark.parametrize("char", ["\x00", "\x07", "\x1b", "\x7f", "\ue000", "\ud83d", "★"])
def test_what_cannot_be_spoken_is_named_in_a_warning(char):
    result = normalize(f"left {char}right", exclamation=True)
    assert result.text.split() == ["[S1]", "left", "right"]
    assert result.warnings == (f"left out, cannot be spoken: U+{ord(char):04X}",)


def test_a_long_list_of_unspeakable_characters_is_cut():
    result = normalize("a" + "".join(map(chr, range(0xE000, 0xE020))), exclamation=True)
    assert result.warnings[0].endswith("U+E009 and 22 more")


@pytest.mark.parametrize("text", ["", " \n", "...", "?!—…", "[S1]", "[S1] [S2] ...", "\x00", "★"])
def test_a_text_with_nothing_to_speak_is_an_error(text):
    with pytest.raises(InvalidRequestError) as caught:
        normalize(text, exclamation=True)
    assert caught.value.param == "input"


PROSE = st.text(st.sampled_from("aZ I1S2[]()*'\"-—…:;,.!?\n\t½é你€😀\x00ЩÉ"), max_size=40)


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), PROSE), st.booleans())
def test_any_text_becomes_stable_printable_ascii_or_a_typed_error(text, exclamation):
    try:
        once = normalized(text, exclamation)
    except InvalidRequestError:
        return
    assert re.fullmatch(r"[ -~]+", once)
    assert '"' not in once
    assert "*" not in once
    assert "  " not in once
    assert normalized(once, exclamation=False) == once
    if "!" not in once:
        assert normalized(once, exclamation) == once
    assert normalize_prompt(once) == once


WORD = st.from_regex(r"[a-z]{2,9}", fullmatch=True)


@settings(deadline=None)
@given(st.lists(st.tuples(WORD, st.sampled_from([" ", ", ", "! ", "… ", " — ", '" *', ": "]))))
def test_no_word_is_lost_or_moved(pairs):
    text = "".join(word + mark for word, mark in [*pairs, ("end", ".")])
    spoken = re.findall(r"[a-z]+", normalized(text))
    assert spoken == [word for word, _ in pairs] + ["end"]


@pytest.mark.parametrize(
    "unit", ["a ", "- ", "-", "!", "A'", "[S1],", " ", "你好，", "e\u0301\u0323", "€1,", "* "]
)
def test_a_hundred_kilobytes_take_a_blink(unit):
    text = unit * (100_000 // len(unit)) + "b"
    start = time.thread_time()
    normalize(text, exclamation=True)
    assert time.thread_time() - start < 5.0  # 0.02 to 0.2 here; quadratic would take minutes
