import re
from dataclasses import asdict

import pytest

from echo.config import compose, describe, shipped_path, to_yaml, unknown_flags
from echo.config.resolvers import PRESET_FLAG
from echo.errors import ConfigError

# Flag -> (its value, the keys that it changes in model=base, with their new values).
FLAGS = {
    "PORT": ("9001", {"server.port": 9001}),
    "HOST": ("0.0.0.0", {"server.host": "0.0.0.0"}),
    "ECHO_API_KEYS": ("first,second", {"server.api_keys": "first,second"}),
    "ECHO_UI_PASSWORD": ("a secret", {"ui.password": "a secret"}),
    "ECHO_METRICS": ("0", {"server.metrics": False}),
    "ECHO_LOG_FORMAT": ("json", {"server.log_format": "json"}),
    "ECHO_MODEL_REPO": ("me/dit", {"model.repo": "me/dit", "model.pca_repo": "me/dit"}),
    "ECHO_FISH_REPO": ("me/codec", {"model.codec_repo": "me/codec"}),
    "ECHO_PCA_REPO": ("me/pca", {"model.pca_repo": "me/pca"}),
    "ECHO_DEVICE": ("cuda:1", {"model.device": "cuda:1"}),
    "ECHO_FISH_DEVICE": ("cpu", {"model.codec_device": "cpu"}),
    "ECHO_MODEL_DTYPE": ("fp16", {"model.dtype": "float16"}),
    "ECHO_FISH_DTYPE": ("bf16", {"model.codec_dtype": "bfloat16"}),
    "ECHO_CARD": (
        "6gb",
        {
            "model.quantize": "int8",
            "model.codec_dtype": "bfloat16",
            "voices.encode_device": "cpu",
            "voices.max_latents": 1292,
            "compile.graph_latents": 128,
            "compile.codec_graph_latents": 32,
            "engine.max_active": 3,
            "engine.max_batch_tokens": 2048,
        },
    ),
    "ECHO_TF32": ("0", {"model.tf32": False}),
    "ECHO_QUANTIZE": ("int8", {"model.quantize": "int8"}),
    "ECHO_COMPILE": ("1", {"compile.model": True}),
    "ECHO_COMPILE_AE": ("0", {"compile.codec": False}),
    "ECHO_COMPILE_LORA_ONLY": ("1", {"compile.lora_only": True}),
    "ECHO_CACHE_DIR": ("/var/echo", {"compile.cache_dir": "/var/echo"}),
    "ECHO_CACHE_VERSION": ("v2_0", {"compile.cache_version": "v2_0"}),
    "ECHO_VOICE_DEVICE": ("cpu", {"voices.encode_device": "cpu"}),
    "ECHO_CACHE_SPEAKER_ON_GPU": ("1", {"voices.cache_on_device": True}),
    "ECHO_SHARED_VOICES": ("s3://us/voices", {"voices.shared": "s3://us/voices"}),
    "RAY_ADDRESS": ("ray-head:6379", {"cluster.address": "ray-head:6379"}),
    "ECHO_DEBUG_LOGS": ("1", {"engine.debug": True}),
    "ECHO_CHUNKING": ("0", {"chunking.enabled": False}),
    "ECHO_CHUNK_CHARS_PER_SECOND": ("12.5", {"chunking.chars_per_second": 12.5}),
    "ECHO_CHUNK_WORDS_PER_SECOND": ("3", {"chunking.words_per_second": 3.0}),
    "ECHO_NORMALIZE_EXCLAMATION": ("0", {"text.normalize_exclamation": False}),
    "ECHO_MAX_SPEAKER_LATENT_LENGTH": ("640", {"voices.max_latents": 640}),
    "ECHO_FOLDER_SUPPORT": ("0", {"voices.folder_support": False}),
    "ECHO_IDLE_UNLOAD_SECONDS": ("600", {"engine.idle_unload_seconds": 600.0}),
    "ECHO_TRACES": ("1", {"server.traces": True}),
    "ECHO_WARMUP_VOICE": ("Ann, who reads", {"engine.warmup_voice": "Ann, who reads"}),
    "ECHO_WARMUP_TEXT": ("Hello: {you} ${x}!", {"engine.warmup_text": "Hello: {you} ${x}!"}),
    "ECHO_PERFORMANCE_PRESET": (
        "equal",
        {
            "preset.name": "equal",
            "preset.block_sizes": (213, 213, 214),
            "preset.num_steps": (15, 15, 15),
        },
    ),
    "ECHO_NUM_STEPS_NONSTREAM": ("33", {"sampler.nonstream_num_steps": (33,)}),
    "ECHO_VAD_REROLL_ENABLED": ("1", {"vad.enabled": True}),
    "ECHO_VAD_SILENCE_THRESHOLD_MS": ("750", {"vad.silence_threshold_ms": 750.0}),
    "ECHO_VAD_MAX_REROLLS": ("5", {"vad.max_rerolls": 5}),
    "ECHO_INWORLD_COMPAT": ("0", {"inworld.compat": False}),
    "ECHO_INWORLD_CLONE_ENABLED": ("1", {"inworld.clone_enabled": True}),
    "ECHO_INWORLD_MAX_SAMPLE_SIZE": ("1000", {"inworld.max_sample_size": 1000}),
    "ECHO_INWORLD_DEFAULT_WORKSPACE": ("mine", {"inworld.default_workspace": "mine"}),
    "ECHO_LORA_REPO": ("me/lora", {"model.lora.repo": "me/lora"}),
    "ECHO_LORA_HF_NAME": ("a.safetensors", {"model.lora.filename": "a.safetensors"}),
    "ECHO_LORA_SCALE": ("0.5", {"model.lora.scale": 0.5}),
    "ECHO_LORA_ALPHA": ("16", {"model.lora.alpha": 16.0}),
    "ECHO_LORA_FIRST_BLOCK": ("1", {"model.lora.first_block": True}),
}
BOOLEANS = {
    flag: key
    for flag, (_, changes) in FLAGS.items()
    for key, value in changes.items()
    if isinstance(value, bool)
}


def flat(tree, prefix=""):
    values = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            values |= flat(value, f"{prefix}{name}.")
        else:
            values[f"{prefix}{name}"] = value
    return values


def composed(*overrides):
    return flat(asdict(compose(["model=base", *overrides])))


@pytest.fixture(scope="module")
def defaults():
    with pytest.MonkeyPatch.context() as patch:
        for flag in FLAGS:
            patch.delenv(flag, raising=False)
        yield composed("voices.roots=[]")


def test_every_flag_in_conf_is_in_this_table():
    texts = [file.read_text() for file in shipped_path("conf").rglob("*.yaml")]
    wired = {flag for text in texts for flag in re.findall(r"\$\{echo\.env:(\w+)", text)}
    assert wired - {"NAME"} | {PRESET_FLAG} == set(FLAGS)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_changes_exactly_what_it_says(flag, monkeypatch, defaults):
    value, changes = FLAGS[flag]
    assert all(defaults[key] != new for key, new in changes.items())
    monkeypatch.setenv(flag, value)
    after = composed("voices.roots=[]")
    assert {key: new for key, new in after.items() if new != defaults[key]} == changes


def test_empty_flags_count_as_unset(monkeypatch, defaults):
    for flag in FLAGS:
        monkeypatch.setenv(flag, "")
    assert composed("voices.roots=[]") == defaults


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag != PRESET_FLAG])
def test_the_command_line_beats_a_flag(flag, monkeypatch, defaults):
    value, changes = FLAGS[flag]
    monkeypatch.setenv(flag, value)
    key = next(iter(changes))
    old = defaults[key]
    written = "null" if old is None else list(old) if isinstance(old, tuple) else old
    assert composed("voices.roots=[]", f"{key}={written}")[key] == old


def test_a_preset_on_the_command_line_beats_its_flag(monkeypatch):
    monkeypatch.setenv(PRESET_FLAG, "equal")
    assert composed("preset=low")["preset.name"] == "low"


def test_explicit_options_beat_the_flags(monkeypatch):
    for flag in ("ECHO_COMPILE", "ECHO_COMPILE_AE", "ECHO_VAD_REROLL_ENABLED"):
        monkeypatch.setenv(flag, "0")
    cfg = compose(["model=base", "compile=full", "vad=on", "chunking=off"])
    assert (cfg.compile.model, cfg.compile.codec) == (True, True)
    assert cfg.vad.enabled
    assert not cfg.chunking.enabled


def test_checkpoint_flags_do_not_touch_the_shipped_model(monkeypatch):
    for flag in ("ECHO_MODEL_REPO", "ECHO_FISH_REPO", "ECHO_PCA_REPO"):
        monkeypatch.setenv(flag, "me/real")
    model = compose(["model=tiny"]).model
    assert {model.repo, model.codec_repo, model.pca_repo} == {"shipped:tiny"}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *((text, True) for text in ("1", "true", "TRUE", "Yes", "on", " on ")),
        *((text, False) for text in ("0", "false", "False", "NO", "off")),
    ],
)
def test_spellings_of_booleans(text, meant, monkeypatch):
    monkeypatch.setenv("ECHO_CHUNKING", text)
    assert compose(["model=tiny"]).chunking.enabled is meant


@pytest.mark.parametrize("flag", BOOLEANS)
def test_anything_else_for_a_boolean_is_an_error_that_names_the_flag(flag, monkeypatch):
    monkeypatch.setenv(flag, "maybe")
    with pytest.raises(ConfigError, match=rf"{flag}='maybe'") as caught:
        compose(["model=base"])
    assert caught.value.param == BOOLEANS[flag]


@pytest.mark.parametrize(
    ("flag", "value", "key"),
    [
        ("PORT", "http", "server.port"),
        ("PORT", "80.5", "server.port"),
        ("PORT", "70000", "server.port"),
        ("ECHO_DEVICE", "gpu", "model.device"),
        ("ECHO_FISH_DTYPE", "int8", "model.codec_dtype"),
        ("ECHO_NUM_STEPS_NONSTREAM", "0", "sampler.nonstream_num_steps"),
        ("ECHO_CHUNK_WORDS_PER_SECOND", "nan", "chunking.words_per_second"),
        ("ECHO_CHUNK_CHARS_PER_SECOND", "inf", "chunking.chars_per_second"),
        ("ECHO_CHUNK_CHARS_PER_SECOND", "1e999", "chunking.chars_per_second"),
        ("ECHO_VAD_MAX_REROLLS", "-1", "vad.max_rerolls"),
        ("ECHO_LORA_ALPHA", "0", "model.lora.alpha"),
    ],
)
def test_a_bad_value_names_the_key_and_the_flag(flag, value, key, monkeypatch):
    monkeypatch.setenv(flag, value)
    with pytest.raises(ConfigError) as caught:
        compose(["model=base"])
    assert caught.value.param == key
    assert key in caught.value.message
    assert f"{flag}={value!r}" in caught.value.message


def test_a_bad_flag_that_is_overridden_does_no_harm(monkeypatch):
    monkeypatch.setenv("PORT", "http")
    assert compose(["model=tiny", "server.port=1"]).server.port == 1
    with pytest.raises(ConfigError) as caught:
        compose(["model=tiny", "server.port=x"])
    assert "PORT=" not in caught.value.message


def test_an_unknown_preset_in_the_environment_is_the_default_with_a_warning(monkeypatch, caplog):
    monkeypatch.setenv(PRESET_FLAG, "bogus")
    assert compose(["model=tiny"]).preset.name == "default"
    assert "ECHO_PERFORMANCE_PRESET='bogus'" in caplog.text
    assert "low_mid" in caplog.text


def test_a_known_preset_gives_no_warning(monkeypatch, caplog):
    monkeypatch.setenv(PRESET_FLAG, " Low_Mid ")
    assert compose(["model=tiny"]).preset.name == "low_mid"
    assert not caplog.records


def test_sources_of_settings(monkeypatch):
    monkeypatch.setenv("PORT", "9001")
    monkeypatch.setenv("HOST", "0.0.0.0")
    monkeypatch.setenv(PRESET_FLAG, "equal")
    overrides = ["model=base", "server.host=localhost", "vad=on"]
    settings = {setting.key: setting for setting in describe(overrides)}
    assert settings.keys() == composed().keys()
    assert settings["server.port"].value == 9001
    assert settings["server.port"].source == "environment PORT"
    assert settings["server.host"].source == "command line"
    assert settings["vad.enabled"].source == "command line"
    assert settings["preset.num_steps"].source == "environment ECHO_PERFORMANCE_PRESET"
    assert settings["text.max_text_length"].source == "default"


def test_a_preset_chosen_on_the_command_line_is_the_source_of_its_values(monkeypatch):
    monkeypatch.setenv(PRESET_FLAG, "equal")
    settings = {s.key: s for s in describe(["model=tiny", "preset=low", "preset.num_steps=9"])}
    assert settings["preset.name"].source == "command line"
    assert settings["preset.num_steps"].value == (9, 9, 9, 9)


def test_unknown_flags_are_told_with_the_nearest_known_one():
    known = dict.fromkeys((*FLAGS, "PORT", "PATH", "HOME"), "1")
    assert unknown_flags(known) == {}
    typed = {"ECHO_CHUNKNIG": "0", "echo_device": "cpu", "ECHO_XYZZY": "", "ECHOES": "1"}
    assert unknown_flags({**known, **typed}) == {
        "ECHO_CHUNKNIG": "ECHO_CHUNKING",
        "ECHO_XYZZY": None,
        "echo_device": "ECHO_DEVICE",
    }


def test_a_key_in_the_environment_is_never_shown(monkeypatch):
    monkeypatch.setenv("ECHO_API_KEYS", "very-secret")
    shown = [repr(compose(["model=tiny"])), to_yaml(["model=tiny"]), *map(str, describe())]
    assert not any("very-secret" in text for text in shown)
