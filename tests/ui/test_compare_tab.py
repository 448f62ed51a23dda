import gradio as gr
import pandas as pd
import pytest

from echo.ui.compare_tab import NOTHING, begin_blind, comparer, voter
from echo.ui.form import default_voice, fill_fields


def fields(engine, **given):
    values = fill_fields(engine, given)
    return [values[0], given.get("voice", default_voice(engine)), *values[2:]]


def compared(engine, session, *axes, **given):
    return list(comparer(engine)(session, *axes, *fields(engine, text="Hi there.", **given)))


def test_variants_share_everything_but_what_varies(make_engine, session, add_voice):
    for name in ("anna", "bert"):
        add_voice(name)
    engine = make_engine()
    *_, (grid, _, _) = compared(
        *(engine, session, "Voices", ["anna", "bert"], "Following the text", ["1", "5"])
    )
    assert "Done: 4 of 4 made" in grid.value
    assert grid.value.count('class="play"') == 4
    assert "--columns:2" in grid.value
    assert len(set(_seeds(grid.value))) == 1  # random, and the same for all
    assert len({clip.audio().tobytes() for clip in session.compared}) == 4


def _seeds(html):
    return [part.split("<")[0] for part in html.split("seed ")[1:]]


def test_a_variant_that_fails_is_told_in_its_place(make_engine, session, add_voice):
    add_voice("anna")
    engine = make_engine()
    *_, (grid, _, _) = compared(engine, session, "Voices", ["anna", "nobody"], NOTHING, [], seed=1)
    assert "Done: 1 of 2 made" in grid.value
    assert "No voice &#x27;nobody&#x27;" in grid.value
    with pytest.raises(gr.Error, match="Compare at least two variants first"):
        begin_blind(session)


def test_what_cannot_be_compared_is_one_sentence(make_engine, session):
    with pytest.raises(gr.Error, match="one variant only"):
        compared(make_engine(), session, "Seeds", ["1"], NOTHING, [])


def test_a_blind_test_names_nobody_until_the_vote_is_in(make_engine, session, tmp_path):
    path = tmp_path / "votes.csv"
    engine = make_engine(f"ui.votes_file={path}")
    compared(engine, session, "Seeds", ["1", "2", "3"], NOTHING, [])
    hidden, pair, votes = begin_blind(session)
    assert hidden.visible is False
    assert votes.visible is True
    for choice, left in (("a", "Pair 2 of 3"), ("same", "Pair 3 of 3"), ("b", "All pairs")):
        assert "seed" not in str(pair.value if isinstance(pair, gr.HTML) else pair)
        pair, votes, results = voter(engine, choice)(session, "Hi there.")
        assert left in pair
    assert votes.visible is False
    assert "3 votes, 1 without a difference" in results
    assert list(pd.read_csv(path)["choice"]) == ["a", "same", "b"]
    with pytest.raises(gr.Error, match="no pair to vote on"):
        voter(engine, "a")(session, "Hi there.")


def test_a_new_comparison_forgets_the_one_before(make_engine, session):
    engine = make_engine()
    for _ in range(2):
        compared(engine, session, "Seeds", ["1", "2"], NOTHING, [])
    assert len(session.shelf) == 2
