import pytest

from echo.config.help import HELP
from echo.engine import SpeechRequest
from echo.engine.request import OVERRIDES, resolve_settings
from echo.errors import InvalidRequestError
from echo.ui.settings import CONTROLS, FLAT, FORCED, fields, from_query, overrides, to_query


def changed(config, **given):
    return overrides(config, fields(config, given))


def test_every_setting_of_a_request_has_a_field_and_a_sentence():
    assert {control.key for control in CONTROLS} | {"preset"} == OVERRIDES
    assert set(HELP) == OVERRIDES | {"input", "voice", "seed"}
    assert all(text.endswith(".") for text in HELP.values())


def test_fields_as_they_are_at_first_change_nothing(toy_config):
    for settings in ((), ("sampler.init_scale=[0.9,0.95,0.99]", "sampler.speaker_kv_scale=1.5")):
        assert changed(toy_config(*settings)) == {}


@pytest.mark.parametrize(
    "given",
    [
        {"cfg_scale_text": 4.5, "early_stop_on_zero": False, "zero_tail_frames": 8},
        {"block_sizes": [32, 64], "num_steps": 5, "init_scale": [0.9, 0.99]},
        {"block_sizes": [64]},
        {"chunk_target_seconds": 25.0, "max_text_length": 200, "normalize_exclamation": False},
        {**FLAT, **FORCED},
        {"vad_enabled": True, "vad_silence_threshold_ms": 700.0, "vad_max_rerolls": 1},
    ],
)
def test_what_is_filled_in_is_what_a_request_takes(toy_config, given):
    config = toy_config()
    assert changed(config, **given) == given
    assert from_query(to_query(given)) == given
    resolve_settings(config, SpeechRequest("Hi.", overrides=given))


def test_a_field_that_is_emptied_turns_off_what_was_configured(toy_config):
    config = toy_config("sampler.speaker_kv_scale=1.5")
    assert changed(config, speaker_kv_scale=None) == {"speaker_kv_scale": None}
    assert from_query("speaker_kv_scale=null") == {"speaker_kv_scale": None}


def test_a_control_knows_its_key_in_the_configuration(toy_config):
    paths = {control.key: control.path for control in CONTROLS}
    assert paths["cfg_min_t"] == "sampler.cfg_min_t"
    assert paths["chunking_enabled"] == "chunking.enabled"
    assert paths["chunk_min_seconds"] == "chunking.min_seconds"
    assert paths["max_text_length"] == "text.max_text_length"
    assert paths["num_steps"] == "preset.num_steps"
    assert paths["vad_max_rerolls"] == "vad.max_rerolls"


def test_a_list_with_a_word_in_it_is_one_sentence(toy_config):
    config = toy_config()
    with pytest.raises(InvalidRequestError, match="num_steps is '8, many'; write a number") as e:
        overrides(config, _with(config, "8, many"))
    assert e.value.param == "num_steps"


def test_a_setting_that_may_be_off_takes_one_number(toy_config):
    config = toy_config()
    assert overrides(config, _with(config, " ", "speaker_kv_scale")) == {}
    assert overrides(config, _with(config, "1.5", "speaker_kv_scale")) == {"speaker_kv_scale": 1.5}
    with pytest.raises(InvalidRequestError, match="speaker_kv_scale takes one number"):
        overrides(config, _with(config, "1, 2", "speaker_kv_scale"))


def _with(config, value, key="num_steps"):
    keys = [control.key for control in CONTROLS]
    values = fields(config, {})
    values[keys.index(key)] = value
    return values


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("seed=many", "seed is 'many' in the link; it must be a number"),
        ("cfg_scale_text=x", "cfg_scale_text is 'x' in the link"),
        ("early_stop_on_zero=maybe", "must be true or false"),
    ],
)
def test_a_wrong_link_is_one_sentence(query, sentence):
    with pytest.raises(InvalidRequestError, match=sentence):
        from_query(query)


def test_a_link_says_text_and_voice_and_other_keys_are_nothing():
    given = {"text": "Ä & b?", "voice": "anna", "preset": "low", "seed": 3}
    assert from_query(to_query(given) + "&__theme=dark&view=api") == given
