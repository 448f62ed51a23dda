import random

import pandas as pd
import pytest

from echo.errors import InvalidRequestError, LimitExceededError, StorageError
from echo.ui.compare import (
    Axis,
    Vote,
    draw_matches,
    parse_axis,
    save_vote,
    standings,
    variants,
    wilson,
)


def test_two_axes_make_a_grid():
    cells = variants(Axis("preset", ("low", "equal")), Axis("seed", (1, 2)))
    assert [(cell.row, cell.column) for cell in cells] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert cells[2].changes == {"preset": "low", "seed": 2}
    assert cells[3].label == "preset equal · seed 2"


@pytest.mark.parametrize(
    ("columns", "rows", "sentence"),
    [
        (Axis("seed", (1,)), None, "one variant only"),
        (Axis("seed", (1, 2)), Axis("seed", (3,)), "both vary seed"),
        (Axis("seed", tuple(range(13))), None, "at most 12"),
        (None, None, "one variant only"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(columns, rows, sentence):
    with pytest.raises(InvalidRequestError, match=sentence):
        variants(columns, rows)


def test_too_many_variants_are_a_limit():
    with pytest.raises(LimitExceededError):
        variants(Axis("seed", (1, 2, 3, 4)), Axis("cfg_scale_text", (1.0, 2.0, 3.0, 4.0)))


@pytest.mark.parametrize(
    ("key", "words", "values"),
    [
        ("seed", ["1", " 2", "1"], (1, 2)),
        ("cfg_scale_text", ["1", "2.5"], (1.0, 2.5)),
        ("early_stop_on_zero", ["on", "off"], (True, False)),
        ("voice", ["anna"], ("anna",)),
    ],
)
def test_what_is_typed_becomes_values(key, words, values):
    assert parse_axis(key, words) == Axis(key, values)


@pytest.mark.parametrize("key", ["seed", "cfg_scale_text", "early_stop_on_zero"])
@pytest.mark.parametrize("words", [["many"], []])
def test_what_is_no_value_names_the_axis(key, words):
    with pytest.raises(InvalidRequestError) as caught:
        parse_axis(key, words)
    assert caught.value.param == key


def test_every_pair_is_heard_once_and_neither_side_is_favoured(session):
    cells = variants(Axis("seed", (1, 2, 3)), None)
    made = [(cell, session.shelf.put("x", [0.1], 44_100)) for cell in cells]
    matches = draw_matches(made, random.Random(1))
    assert {frozenset((m.a.label, m.b.label)) for m in matches} == {
        *(frozenset(("seed 1", "seed 2")), frozenset(("seed 1", "seed 3"))),
        frozenset(("seed 2", "seed 3")),
    }
    clips = {cell.label: clip for cell, clip in made}
    assert all(clips[m.a.label] is m.clip_a and clips[m.b.label] is m.clip_b for m in matches)
    first = [draw_matches(made[:2], random.Random(seed))[0].a.label for seed in range(200)]
    assert 70 < first.count("seed 1") < 130


def test_wins_are_counted_on_either_side_and_ties_decide_nothing():
    votes = [Vote("t", "x", "y", "a"), Vote("t", "y", "x", "b"), Vote("t", "x", "y", "same")]
    x, y = standings(votes)
    assert (x.label, x.wins, x.decided, x.ties) == ("x", 2, 2, 1)
    assert (y.label, y.wins, y.decided, y.ties) == ("y", 0, 2, 1)
    assert (x.low, x.high) == wilson(2, 2)
    assert standings([]) == []


def test_the_interval_is_wilsons():
    # Newcombe 1998, table I: 81 of 263 and 0 of 20, 95 %.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(0, 0) == (0.0, 1.0)


def test_votes_are_added_to_a_file(tmp_path):
    path = tmp_path / "new" / "votes.csv"
    for choice in ("a", "same"):
        save_vote(Vote('He said, "no".', "x", "y", choice), str(path))
    table = pd.read_csv(path)
    assert list(table["choice"]) == ["a", "same"]
    assert list(table["text"]) == ['He said, "no".'] * 2


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="the vote is counted, but"):
        save_vote(Vote("t", "x", "y", "a"), str(tmp_path / "file" / "votes.csv"))
