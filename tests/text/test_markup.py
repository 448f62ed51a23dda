from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo.text.markup import MAX_PAUSES, Pause, parse_markup, strip_markup


@pytest.mark.parametrize(
    ("tag", "seconds"),
    [
        ('<break time="1s"/>', 1.0),
        ("<break time='1.5s' />", 1.5),
        ('<BREAK TIME="300ms">', 0.3),
        ('<break strength="weak" time=".5s"/>', 0.5),
        ("<break/>", 0.5),
        ('<break time="soon"/>', 0.5),
        ('<break time="60s"/>', 10.0),
        ('<break time="999999999s"/>', 10.0),
    ],
)
def test_a_break_is_a_pause_of_its_length_and_of_ten_seconds_at_most(tag, seconds):
    assert parse_markup(f"One. {tag} Two.") == ["One.", Pause(seconds), "Two."]


def test_a_break_of_no_time_is_none():
    assert parse_markup('One <break time="0s"/> two') == ["One", "two"]


def test_pauses_stand_at_the_ends_and_next_to_each_other():
    text = '<break time="1s"/>Hi<break time="2s"/> ... <break time="3s"/>'
    assert parse_markup(text) == [Pause(1.0), "Hi", Pause(2.0), Pause(3.0)]


def test_too_many_pauses_are_left_out():
    pieces = parse_markup("a <break/>" * 50)
    assert sum(isinstance(piece, Pause) for piece in pieces) == MAX_PAUSES
    assert sum(piece == "a" for piece in pieces) == 50


def test_the_speaker_goes_on_after_a_pause():
    text = "[S2] Hi. <break/> You. [S1] Me. <break/> Still me. <break/> [S2] You."
    spoken = [piece for piece in parse_markup(text) if isinstance(piece, str)]
    assert spoken == ["[S2] Hi.", "[S2] You. [S1] Me.", "[S1] Still me.", "[S2] You."]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("<speak>Hello <emphasis level='strong'>you</emphasis>!</speak>", "Hello you!"),
        ("[happy] Hello [clear throat] you", "Hello you"),
        ("[S1] Hello [S2] you", "[S1] Hello [S2] you"),
        ("It is *very* **big** and ***new***.", "It is very big and new."),
        ("*Hello there*, he said", "Hello there, he said"),
        ("3*4*5 is 60", "3*4*5 is 60"),
        ("3 < 5 and 7 > 2", "3 < 5 and 7 > 2"),
        ("see [12] and a[0]", "see [12] and a[0]"),
        ("(laughs) yes", "(laughs) yes"),
        ("", ""),
    ],
)
def test_other_markup_is_dropped_and_what_is_none_stays(text, clean):
    assert strip_markup(text) == clean


@given(st.text(alphabet='<>/[]*S1 ab="s.break', max_size=200))
def test_any_text_is_parsed_and_pieces_can_be_spoken(text):
    for piece in parse_markup(text):
        if isinstance(piece, str):
            assert any(char.isalnum() for char in piece)
        else:
            assert 0 < piece.seconds <= 10


def test_hostile_markup_takes_no_time():
    begun = time.monotonic()
    for text in ("<break " * 5000, "*a" * 10_000, "[a" * 10_000, "<a" * 10_000, "** " * 10_000):
        parse_markup(text)
    assert time.monotonic() - begun < 10  # milliseconds, unless it is quadratic
