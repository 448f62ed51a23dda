import json
import shlex

import numpy as np
import pytest

from echo.api.speech import parse_speech
from echo.cli import _say_options
from echo.config import compose
from echo.config.difference import GROUPS, overrides_of
from echo.engine import SpeechRequest
from echo.engine.request import resolve_settings
from echo.ui.recipes import curl, hydra, python
from echo.ui.session import Run
from echo.ui.speak import Form, speak
from echo.ui.speak_tab import remember

TEXT = 'It\'s "quoted" -- and $HOME; [S2] fine?'
SETTINGS = {"cfg_scale_text": 4.5, "early_stop_on_zero": False, "rescale_k": None, "num_steps": 2}


@pytest.fixture
def entry(make_engine, session, add_voice):
    add_voice("anna")

    def make(*overrides, **form):
        engine = make_engine(*overrides)
        filled = Form(**{"text": TEXT, "voice": "anna", "seed": 7, "settings": SETTINGS, **form})
        *_, done = speak(engine, filled, Run())
        clip = session.shelf.put("x", done.result.audio, engine.sample_rate)
        return engine, remember(session, engine, filled, clip, done.result)

    return make


def test_the_curl_line_is_a_request_for_the_same_audio(entry):
    engine, made = entry()
    words = shlex.split(curl(made).replace("\\\n", " "))
    order = parse_speech(json.loads(words[words.index("-d") + 1]))
    np.testing.assert_array_equal(engine.synthesize(order.request), made.clip.audio())
    assert order.output.format.name == "wav"


def test_the_python_lines_are_a_request_for_the_same_audio(entry):
    engine, made = entry()
    code = python(made)
    compile(code, "recipe", "exec")
    call = code[code.rindex("SpeechRequest(") : code.rindex(")")]
    request = eval(call, {"SpeechRequest": SpeechRequest})
    np.testing.assert_array_equal(engine.synthesize(request), made.clip.audio())


@pytest.mark.parametrize("preset", [None, "low"])
def test_the_command_line_has_the_same_settings(entry, preset):
    _, made = entry(preset=preset, settings={**SETTINGS, "chunk_target_seconds": 25.0})
    words = shlex.split(hydra(made))
    assert words[:2] == ["echo-tts", "say"]
    options, text, overrides = _say_options(words[2:])
    assert (text, options.voice, options.seed) == (TEXT, "anna", 7)
    assert overrides[0] == "model=base"
    config = compose(overrides)
    settings = resolve_settings(config, SpeechRequest(text))
    assert settings.blocks == made.info.settings.blocks
    assert settings.sampler == made.info.settings.sampler
    assert settings.chunking == made.info.settings.chunking


def test_what_the_page_was_started_with_is_part_of_the_lines(entry):
    own = ("sampler.cfg_scale_text=4", "vad.max_rerolls=1", "text.max_text_length=99")
    engine, made = entry("preset=low_mid", *own, settings={"cfg_min_t": 0.25})
    words = shlex.split(hydra(made))
    assert {"model=base", "preset=low_mid", *own, "sampler.cfg_min_t=0.25"} < {*words}
    code = python(made)
    assert eval(code[code.index("compose(") + 8 : code.index(")) as engine")]) == [
        f"{key}={value}" for key, value in made.base.items()
    ]
    composed = compose([f"{key}={value}" for key, value in made.base.items()])
    for group in GROUPS:
        assert getattr(composed, group) == getattr(engine.config, group)
    assert composed.voices.roots == engine.config.voices.roots


def test_a_default_configuration_needs_no_words():
    assert overrides_of(compose()) == {}
    assert overrides_of(compose(["server.port=1", "preset=low"])) == {"preset": "low"}


def test_a_text_that_looks_like_an_option_stays_the_text(entry):
    _, made = entry(text="--seed 5 is what they said.")
    _, text, _ = _say_options(shlex.split(hydra(made))[2:])
    assert text == "--seed 5 is what they said."
