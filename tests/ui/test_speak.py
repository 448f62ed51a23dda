import re
import threading
import time

import numpy as np
import pytest
import soundfile

from echo.engine import Progress, SpeechRequest
from echo.ui.session import Run, Session
from echo.ui.shelf import Shelf
from echo.ui.speak import Form, Pace, as_sentence, speak

TEXT = "Good morning. The kettle is on."
# Whoever does not take the audio stops the generation until they do, or leave.
UNHURRIED = "engine.buffer_seconds=0.001"


def last(updates):
    return list(updates)[-1]


def until_audio(updates):
    return next(update for update in updates if update.audio is not None)


def wait_until_idle(engine):
    deadline = time.monotonic() + 20
    while engine.stats()["active"] or engine.stats()["queued"]:
        assert time.monotonic() < deadline, engine.stats()
        time.sleep(0.01)


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.wav"
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 44_100)
    soundfile.write(path, noise, 44_100)
    return path


def test_audio_comes_before_the_end_and_the_figures_with_it(make_engine):
    engine = make_engine()
    updates = list(speak(engine, Form(TEXT, seed=7), Run()))
    result = updates[-1].result
    heard = [update.audio for update in updates if update.audio is not None]
    assert len(heard) == 3
    assert updates[-1].audio is None
    assert all(update.result is None for update in updates[:-1])
    np.testing.assert_array_equal(np.concatenate(heard), result.audio)
    np.testing.assert_array_equal(
        result.audio, engine.synthesize(SpeechRequest(TEXT, seed=7, streaming=True))
    )
    assert updates[-1].status == f"Done: {result.stats.audio_s:.1f} s of audio"
    assert (result.info.seed, result.stopped, result.sample_rate) == (7, False, 44_100)
    assert result.info.text.normalized == f"[S1] {TEXT}"
    assert 0 < result.stats.ttfb_s < result.stats.total_s


def test_the_status_names_block_and_step_and_how_much_is_done(make_engine):
    engine = make_engine("preset.num_steps=[20,40,40]")
    updates = list(speak(engine, Form(TEXT), Run()))
    places = [u for u in updates if re.match(r"block \d of 3 · step \d+ of \d+ · ", u.status)]
    assert len(places) >= 3
    assert places[-1].status.startswith("block 3 of 3 · step 40 of 40 · ")
    shares = [update.share for update in places]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_the_time_left_follows_the_pace_so_far():
    now = [100.0]
    pace = Pace([10, 30], clock=lambda: now[0])

    def after(seconds, chunk, block, step, steps):
        now[0] = 100.0 + seconds
        return pace.at(Progress(chunk, 2, block, 2, step, steps, 0, 0))

    assert after(0, 0, 0, 0, 5) == (0.0, None)
    assert after(0.01, 0, 0, 1, 5) == (0.025, None)  # too soon to tell
    assert after(2, 0, 0, 5, 5) == (0.125, 14.0)
    assert after(4, 0, 1, 5, 10) == (0.3125, 8.8)
    assert after(20, 1, 1, 10, 10) == (1.0, 0.0)


def test_the_status_names_the_part_of_a_long_text(make_engine):
    engine = make_engine("chunking.min_seconds=1", "chunking.target_seconds=2")
    form = Form("The first sentence is here. The second sentence is here.")
    lines = [update.status for update in speak(engine, form, Run())]
    assert any(line.startswith("part 2 of 2 · block 3 of 3") for line in lines)


def test_a_random_seed_is_told_and_repeats_the_audio(make_engine):
    engine = make_engine()
    first = last(speak(engine, Form(TEXT, seed=-1), Run())).result
    again = last(speak(engine, Form(TEXT, seed=first.info.seed), Run())).result
    np.testing.assert_array_equal(first.audio, again.audio)


def test_what_cannot_be_spoken_is_told_at_the_end(make_engine):
    done = last(speak(make_engine(), Form("Hello \x07 there."), Run()))
    assert done.result.info.text.warnings
    assert done.status.endswith(done.result.info.text.warnings[-1])


@pytest.mark.parametrize(
    ("form", "sentence"),
    [
        (Form(""), "The text is empty."),
        (Form("Hi.", voice="nobody"), "No voice 'nobody'"),
        (Form("Hi.", seed=-5), "Seed is -5"),
        (Form("Hi.", preset="bogus"), "there is no such option"),
    ],
)
def test_what_is_wrong_with_the_form_is_one_sentence(make_engine, form, sentence):
    updates = list(speak(make_engine(), form, Run()))
    assert sentence in updates[-1].error
    assert updates[-1].status == updates[-1].error
    assert updates[-1].error.endswith(".")
    assert all(update.audio is None and update.result is None for update in updates)


def test_a_clip_goes_before_the_picked_voice(make_engine, clip):
    engine = make_engine()
    done = last(speak(engine, Form(TEXT, voice="nobody", clip=clip, seed=1), Run()))
    assert done.error is None
    plain = last(speak(engine, Form(TEXT, seed=1), Run()))
    assert not np.array_equal(done.result.audio, plain.result.audio)


def test_a_clip_that_is_no_audio_is_one_sentence(make_engine, tmp_path):
    text = tmp_path / "clip.wav"
    text.write_text("not audio " * 100)
    assert "audio" in last(speak(make_engine(), Form(TEXT, clip=text), Run())).error


def test_a_clip_over_the_limit_is_not_even_read(make_engine, clip):
    engine = make_engine("voices.max_inline_bytes=1000")
    error = last(speak(engine, Form(TEXT, clip=clip), Run())).error
    assert error == f"The clip has {clip.stat().st_size} bytes; at most 1000 are taken, " + (
        "send a shorter one."
    )


def test_another_preset_is_used(make_engine):
    done = last(speak(make_engine(), Form(TEXT, preset="low"), Run()))
    assert [block.size for block in done.result.info.settings.blocks] == [32, 64, 272, 272]


def test_the_configured_preset_keeps_its_own_block_sizes(make_engine):
    engine = make_engine("preset.block_sizes=[4,8,16]")
    done = last(speak(engine, Form(TEXT, preset=engine.config.preset.name), Run()))
    assert [block.size for block in done.result.info.settings.blocks] == [4, 8, 16]


def test_settings_go_along_and_beside_the_preset(make_engine):
    engine = make_engine()
    form = Form(TEXT, preset="low", settings={"cfg_scale_text": 5.0, "num_steps": [1, 1, 1, 1]})
    settings = last(speak(engine, form, Run())).result.info.settings
    assert settings.sampler.cfg_scale_text == 5.0
    assert [(block.size, block.num_steps) for block in settings.blocks] == [
        *((32, 1), (64, 1), (272, 1), (272, 1))
    ]


def test_closing_the_generator_stops_the_engine(make_engine):
    engine = make_engine(UNHURRIED)
    updates = speak(engine, Form(TEXT), Run())
    until_audio(updates)
    assert engine.stats()["active"] == 1
    updates.close()
    wait_until_idle(engine)


def test_stop_ends_with_what_was_heard(make_engine):
    engine = make_engine(UNHURRIED)
    run = Run()
    updates = speak(engine, Form(TEXT), run)
    first = until_audio(updates)
    run.stop()
    done = last(updates)
    assert done.result.stopped
    assert done.status.startswith("Stopped after ")
    np.testing.assert_array_equal(done.result.audio, first.audio)
    wait_until_idle(engine)


def test_stop_works_while_no_audio_comes(make_engine):
    engine = make_engine("preset.num_steps=[200,200,200]", "preset.block_sizes=[200,200,200]")
    run = Run()
    threading.Timer(0.3, run.stop).start()
    done = last(speak(engine, Form(TEXT), run))
    assert done.result.stopped
    wait_until_idle(engine)


def test_stop_before_the_begin_is_not_lost(make_engine):
    engine = make_engine()
    run = Run()
    run.stop()
    done = last(speak(engine, Form(TEXT), run))
    assert done.result.stopped
    assert len(done.result.audio) == 0
    wait_until_idle(engine)


def test_a_visitor_who_starts_again_stops_only_their_own_run(make_engine):
    engine = make_engine(UNHURRIED)
    mine, yours = Session(Shelf()), Session(Shelf())
    first = speak(engine, Form(TEXT, seed=1), mine.start())
    other = speak(engine, Form(TEXT, seed=2), yours.start())
    until_audio(first), until_audio(other)
    second = speak(engine, Form(TEXT, seed=3), mine.start())
    assert last(first).result.stopped
    assert not last(second).result.stopped
    assert not last(other).result.stopped


def test_the_engine_closing_meanwhile_is_one_sentence(make_engine):
    engine = make_engine(UNHURRIED)
    updates = speak(engine, Form(TEXT), Run())
    until_audio(updates)
    engine.close()
    assert "engine was closed" in last(updates).error


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("the text is empty", "The text is empty."),
        ("num_steps is 'x'; write a number", "num_steps is 'x'; write a number."),
        ("preset=bogus: choose another", "preset=bogus: choose another."),
        ("Stop!", "Stop!"),
    ],
)
def test_an_error_is_a_sentence_that_leaves_the_names_of_settings(message, sentence):
    assert as_sentence(message) == sentence
