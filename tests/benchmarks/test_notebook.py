from __future__ import annotations

import re
from base64 import b64decode

import numpy as np
import pytest

from benchmarks import notebook as nb
from echo.audio.decode import decode_audio
from echo.spec import SAMPLE_RATE


def tone(seconds: float) -> np.ndarray:
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (0.3 * np.sin(2 * np.pi * 220 * t)).astype(np.float32)


def seconds_of(data: bytes) -> float:
    heard = decode_audio(data, max_bytes=1 << 20, max_seconds=60)
    return len(heard.samples) / heard.sample_rate


def test_a_player_is_small_and_plays_what_it_was_given() -> None:
    page = nb.player(tone(2.0))._repr_html_()
    encoded = re.search(r'src="data:audio/mpeg;base64,([^"]+)" type="audio/mpeg"', page)
    assert encoded
    assert len(encoded.group(1)) < 2.2 * 8_000 + 1_000
    assert seconds_of(b64decode(encoded.group(1))) == pytest.approx(2.0, abs=0.06)


def test_players_stand_under_their_names_and_in_order() -> None:
    page = nb.players({"a < b": tone(0.5), "c": tone(1.0)}).data
    assert page.index("a &lt; b") < page.index(">c<")
    lengths = [seconds_of(b64decode(url)) for url in re.findall(r"base64,([^']+)'", page)]
    assert lengths == pytest.approx([0.5, 1.0], abs=0.06)


def test_every_kind_of_plot_becomes_a_small_picture() -> None:
    fig, (left, right) = nb.figure(8, 3, columns=2)
    nb.dots(left, {"low": [200.0, 210.0, 190.0], "default": [300.0]}, "first sound (ms)")
    nb.band(right, [0, 1], [[0.1, 0.2], [0.3, 0.5]], "word error", colour=nb.ORANGE)
    assert [label.get_text() for label in left.get_yticklabels()] == ["low", "default"]
    assert left.get_xlabel() == "first sound (ms)"
    low, high = right.get_lines()[0].get_ydata()
    assert (low, high) == pytest.approx((0.15, 0.4))
    alone, axes = nb.axes_of()
    nb.staircase(axes, [(0.2, 1.5), (0.8, 2.0)])
    reading = nb.reading(tone(0.5), np.eye(4), list("^abc"))
    for each in (fig, alone, reading):
        data = nb.picture(each).data
        assert data[:4] == b"\x89PNG"
        assert len(data) < 60_000


def test_the_staircase_says_when_the_first_sound_came_and_shows_every_wait() -> None:
    _, axes = nb.axes_of()
    nb.staircase(axes, [(0.25, 1.5), (0.8, 2.0), (5.0, 1.0)])
    assert "250 ms" in axes.texts[0].get_text()
    made, played = axes.get_lines()[:2]
    assert list(made.get_xdata()) == pytest.approx([0, 0.25, 0.25, 0.8, 0.8, 5, 5, 6])
    assert made.get_ydata()[-1] == pytest.approx(4.5)
    # All is played by 3.75 s; from then on the listener waits until 5 s.
    assert list(played.get_xdata()) == pytest.approx([0.25, 0.25, 1.75, 1.75, 3.75, 5.0, 6.0])
    assert list(played.get_ydata()) == pytest.approx([0, 0, 1.5, 1.5, 3.5, 3.5, 4.5])


def test_a_program_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"latency failed(.|\n)*preset/nonsense"):
        nb.run("latency", "preset=nonsense")
