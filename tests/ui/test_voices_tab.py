from types import SimpleNamespace

import gradio as gr
import numpy as np
import pytest

from echo.ui.voices_tab import adder, copier, deleter, picker

CLONING = "inworld.clone_enabled=true"


def clicked(voice):
    return gr.EventData(None, {"voice": voice})


def test_a_voice_is_shown_with_its_figures_and_its_spectrogram(make_engine, session, add_voice):
    add_voice("anna", seconds=2.0)
    engine = make_engine(CLONING)
    listing, chosen, details, delete = picker(engine)(session, clicked("anna"))
    assert 'data-voice="anna" aria-pressed="true"' in listing
    assert chosen == "anna"
    assert "2.0 s" in details
    assert "Short: 2.0 s" in details
    assert "data:image/png" in details
    assert delete.visible is False  # not one that was added here
    assert len(session.auditions) == 1


def test_the_codecs_copy_comes_beside_the_original(make_engine, session, add_voice):
    add_voice("anna")
    html = copier(make_engine())(session, "anna")
    assert html.count("data:image/png") == 2
    original, copy = session.auditions
    assert (original.name, copy.name) == ("anna", "anna-codec")
    assert copy.samples == original.samples
    assert not np.array_equal(copy.audio(), original.audio())


def test_the_recordings_of_the_voice_before_are_forgotten(make_engine, session, add_voice):
    for name in ("anna", "bert"):
        add_voice(name)
    pick = picker(make_engine())
    for name in ("anna", "bert", "anna"):
        pick(session, clicked(name))
    assert len(session.shelf) == 1


@pytest.fixture
def sample(add_voice, voice_root, tmp_path):
    add_voice("sample")
    return str((voice_root / "sample.wav").rename(tmp_path / "sample.wav"))


def test_a_voice_is_added_and_deleted_where_that_is_allowed(make_engine, session, sample):
    engine = make_engine(CLONING)
    _, chosen, _, delete, voices, _, _ = adder(engine)(session, "My voice", sample, True)
    assert chosen == "default__My voice"
    assert voices.choices == [(chosen, chosen)]
    assert delete.visible is True
    deleter(engine)(chosen)
    assert engine.voices.list() == ()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"consent": False}, "the speaker has agreed"),
        ({"sample": None}, "Record or upload"),
        ({"name": "../etc"}, "may hold letters"),
    ],
)
def test_what_cannot_be_added_is_one_sentence(make_engine, session, sample, given, sentence):
    values = SimpleNamespace(**{"name": "Mine", "sample": sample, "consent": True, **given})
    engine = make_engine(CLONING)
    with pytest.raises(gr.Error, match=sentence):
        adder(engine)(session, values.name, values.sample, values.consent)
    assert engine.voices.list() == ()


def test_a_voice_of_the_folder_is_not_deleted_from_the_page(make_engine, add_voice):
    add_voice("anna")
    engine = make_engine(CLONING)
    with pytest.raises(gr.Error, match="Only voices that were added here"):
        deleter(engine)("anna")
    assert len(engine.voices.list()) == 1
