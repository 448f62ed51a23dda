import math
import subprocess
import sys
import threading

import pytest
from omegaconf import OmegaConf

from echo.config import (
    compose,
    load_preset,
    preset_names,
    register_resolvers,
    shipped_path,
    to_yaml,
)
from echo.config.resolvers import choose_model
from echo.config.schema import sampler_of
from echo.errors import ConfigError

PRESETS = {
    "default": ((32, 128, 480), (8, 15, 20)),
    "low_mid": ((32, 128, 480), (8, 10, 15)),
    "low": ((32, 64, 272, 272), (8, 10, 15, 15)),
    "equal": ((213, 213, 214), (15, 15, 15)),
    "quality": ((640,), (40,)),
}


def tiny(*overrides):
    return compose(["model=tiny", *overrides])


@pytest.mark.parametrize("name", PRESETS)
def test_the_numbers_of_each_preset(name):
    preset = tiny(f"preset={name}").preset
    assert (preset.name, preset.block_sizes, preset.num_steps) == (name, *PRESETS[name])
    assert load_preset(name) == preset


def test_every_preset_can_be_loaded():
    assert set(preset_names()) >= set(PRESETS)
    assert [load_preset(name).name for name in preset_names()] == list(preset_names())


@pytest.mark.parametrize("group", ["gpu", "training"])
def test_groups_of_other_programs_are_none_of_the_service(group):
    with pytest.raises(ConfigError, match="unknown key"):
        tiny(f"{group}=cpu")


def test_a_preset_may_say_how_to_sample_and_wins_over_the_model():
    own = "+preset.sampler.cfg_min_t=0.7"
    cfg = tiny(own)
    assert sampler_of(cfg.sampler, cfg.preset).cfg_min_t == 0.7
    assert sampler_of(cfg.sampler, cfg.preset).cfg_scale_text == cfg.sampler.cfg_scale_text
    assert cfg.sampler.cfg_min_t == tiny().sampler.cfg_min_t  # for requests with another preset


@pytest.mark.parametrize("order", [1, -1])
def test_the_command_line_wins_over_the_preset(order):
    given = ["+preset.sampler={cfg_min_t: 0.7, cfg_max_t: 0.9}", "sampler.cfg_min_t=0.2"]
    cfg = tiny(*given[::order])
    in_force = sampler_of(cfg.sampler, cfg.preset)
    assert (in_force.cfg_min_t, in_force.cfg_max_t) == (0.2, 0.9)


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("{zero_eps: 0.1}", "preset.sampler.zero_eps"),
        ("{cfg_min_t: 7}", "preset.sampler.cfg_min_t"),
        ("{cfg_min_t: much}", "preset.sampler.cfg_min_t"),
    ],
)
def test_what_a_preset_cannot_set_is_named(given, key):
    with pytest.raises(ConfigError) as raised:
        tiny(f"+preset.sampler={given}")
    assert raised.value.param == key
    assert key in raised.value.message


@pytest.mark.parametrize("name", ["bogus", "../model/base", ""])
def test_loading_an_unknown_preset_lists_those_that_exist(name):
    with pytest.raises(ConfigError, match="default, equal, low, low_mid, quality"):
        load_preset(name)


def test_defaults_of_the_service():
    cfg = compose(["model=base"])
    assert (cfg.server.host, cfg.server.port) == ("127.0.0.1", 8000)
    assert (cfg.sampler.cfg_scale_text, cfg.sampler.cfg_scale_speaker) == (3.0, 8.0)
    assert (cfg.sampler.cfg_min_t, cfg.sampler.cfg_max_t) == (0.5, 1.0)
    assert cfg.sampler.init_scale == 0.999
    assert cfg.sampler.nonstream_block_sizes == (640,)
    assert cfg.sampler.nonstream_num_steps == (20,)
    assert cfg.sampler.early_stop_on_zero
    assert (cfg.chunking.min_seconds, cfg.chunking.target_seconds) == (20.0, 30.0)
    assert cfg.chunking.max_seconds == 40.0
    assert (cfg.compile.model, cfg.compile.codec) == (False, None)
    assert cfg.voices.max_latents == 6400
    assert cfg.text.max_text_length == 768
    assert cfg.inworld.compat
    assert not cfg.inworld.clone_enabled


def test_the_real_model_is_the_public_checkpoint():
    model = compose(["model=base"]).model
    assert model.repo == model.pca_repo == "jordand/echo-tts-base"
    assert model.codec_repo == "jordand/fish-s1-dac-min"
    assert (model.weights, model.dtype, model.codec_dtype) == ("checkpoint", "bfloat16", "float32")


def test_the_pca_comes_from_the_model_repo_however_that_is_set():
    assert compose(["model=base", "model.repo=my/model"]).model.pca_repo == "my/model"


@pytest.mark.parametrize(
    ("environ", "cuda", "expected"),
    [
        ({}, False, "tiny"),
        ({}, True, "base"),
        ({"ECHO_MODEL_REPO": "my/model"}, False, "base"),
        ({"ECHO_MODEL_REPO": ""}, False, "tiny"),
        ({"ECHO_LORA_REPO": "my/lora"}, False, "base"),
        ({"ECHO_DEVICE": "cpu"}, False, "tiny"),
    ],
)
def test_choice_of_the_model(environ, cuda, expected):
    assert choose_model(environ, lambda: cuda) == expected


def test_auto_takes_the_real_model_once_a_repo_is_named(monkeypatch):
    monkeypatch.setenv("ECHO_MODEL_REPO", "my/model")
    assert compose().model == compose(["model=base"]).model
    assert compose().model.name == "base"


@pytest.mark.parametrize(
    ("spelling", "dtype"),
    [
        ("bf16", "bfloat16"),
        ("BFloat16", "bfloat16"),
        ("fp16", "float16"),
        ("half", "float16"),
        ("float", "float32"),
        ("torch.float32", "float32"),
    ],
)
def test_spellings_of_dtypes(spelling, dtype):
    assert tiny(f"model.dtype={spelling}").model.dtype == dtype


def test_one_step_count_holds_for_every_block():
    assert tiny("preset.num_steps=5").preset.num_steps == (5, 5, 5)
    sampler = tiny("sampler.nonstream_block_sizes=[320,320]").sampler
    assert sampler.nonstream_num_steps == (20, 20)


def test_settings_given_once_or_per_block():
    sampler = tiny("sampler.truncation_factor=0.8", "sampler.init_scale=[0.9,1,0.8]").sampler
    assert sampler.truncation_factor == 0.8
    assert sampler.init_scale == (0.9, 1.0, 0.8)


def test_whole_numbers_may_be_written_as_floats_but_not_cut():
    assert tiny("server.port=1e3").server.port == 1000
    with pytest.raises(ConfigError, match=r"server\.port must be a whole number"):
        tiny("server.port=1000.5")


def test_quoted_text_keeps_its_punctuation():
    text = "Hello, you = me: (laughs)"
    assert tiny(f'engine.warmup_text="{text}"').engine.warmup_text == text


@pytest.mark.parametrize(
    ("override", "param", "message"),
    [
        ("server.prt=1", "server.prt", "did you mean server.port"),
        ("port=1", "port", "did you mean server.port"),
        ("+server.prot=1", "server.prot", "did you mean server.port"),
        ("+zzz=1", "zzz", "unknown key 'zzz'"),
        ("lora.repo=x", "lora.repo", "model.lora.repo"),
        ("preset=bogus", "preset", "default, equal, low, low_mid, quality"),
        ("vad=true", "vad", "default, on"),
        ("server=3", "server", "choose one of default"),
        ("+preset=low", "preset", "write preset=OPTION"),
        ("~preset", "preset", "write preset=OPTION"),
        ("~server.port", "server.port", "missing"),
        ("hydra.verbose=true", "hydra", "not used here"),
        ("serve", "serve", "write KEY=VALUE"),
        ("=3", "", "unknown key"),
        ("server.port=10,20", "server.port", "cannot read the override"),
        ("engine.warmup_text=a=b", "engine.warmup_text", "quotes"),
        ("model.lora=4", "model.lora", "group of keys"),
        ("server.port=null", "server.port", "whole number, not null"),
        ("server.port=true", "server.port", "whole number"),
        ("server.port=${nope}", "server.port", "nope"),
        ("voices.roots=[a,${nope}]", "voices.roots", "nope"),
        ("server.port=${server.port}", "server.port", "cannot be resolved"),
        ("server.host=???", "server.host", "cannot be resolved"),
        ("server.host=true", "server.host", "must be text"),
        ("vad.enabled=2", "vad.enabled", "must be true or false"),
        ("vad.enabled=null", "vad.enabled", "must be true or false"),
        ("vad.enabled=[true]", "vad.enabled", "must be true or false"),
        ("sampler.init_scale=nan", "sampler.init_scale", "finite"),
        ("sampler.cfg_scale_text=inf", "sampler.cfg_scale_text", "finite"),
        ("sampler.truncation_factor=[0.8,x]", "sampler.truncation_factor", "finite number"),
        ("sampler.guidance_mode=joint", "sampler.guidance_mode", "independent"),
        ("preset.block_sizes=[320,320,1]", "preset.block_sizes", "641 latents"),
        ("preset.block_sizes=[0,1,2]", "preset.block_sizes", "lowest allowed value is 1"),
        ("preset.block_sizes=[]", "preset.block_sizes", "at least one"),
        ("preset.num_steps=[1,2]", "preset.num_steps", "3 blocks"),
        ("preset.num_steps=0", "preset.num_steps", "lowest allowed value is 1"),
        ("preset.num_steps=[8,15,1.5]", "preset.num_steps", "whole number"),
        ("preset.num_steps.7=3", "preset.num_steps.7", "preset.num_steps.7"),
        ("chunking.min_seconds=31", "chunking.target_seconds", "chunking.min_seconds"),
        ("model.device=gpu", "model.device", "cuda:N"),
        ("model.dtype=int8", "model.dtype", "bfloat16, float16, float32"),
        ("model.weights=none", "model.weights", "checkpoint, random"),
        ("model.repo=", "model.repo", "must not be empty"),
        ("model.random_seed=-1", "model.random_seed", "lowest allowed value is 0"),
    ],
)
def test_an_impossible_override_is_an_error_that_names_the_key(override, param, message):
    with pytest.raises(ConfigError) as caught:
        tiny(override)
    assert caught.value.param == param
    assert message in caught.value.message
    assert "\n" not in caught.value.message


def test_composing_leaves_the_working_directory_alone_and_needs_nothing_in_it(tmp_path):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("server: {port: 1}\n")
    assert tiny().server.port == 8000
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


def test_voices_come_from_the_working_directory_or_else_from_echo(tmp_path):
    rest = ("prompt_audio", "extra_prompt_audio")
    assert tiny().voices.roots == (str(shipped_path("audio_prompts")), *rest)
    (tmp_path / "audio_prompts").mkdir()
    assert tiny().voices.roots == ("audio_prompts", *rest)


def test_a_folder_that_neither_exists_nor_ships_keeps_its_name(tmp_path):
    register_resolvers()
    assert OmegaConf.create({"root": "${echo.folder:nowhere}"}).root == "nowhere"
    (tmp_path / "nowhere").mkdir()
    assert OmegaConf.create({"root": "${echo.folder:nowhere}"}).root == "nowhere"


def test_shipped_folders_are_found_and_others_are_not():
    assert (shipped_path("conf") / "config.yaml").is_file()
    with pytest.raises(ConfigError, match="nowhere"):
        shipped_path("nowhere")


def test_the_configuration_is_frozen_and_equal_when_composed_again():
    cfg = tiny()
    assert cfg == tiny()
    assert hash(cfg) == hash(tiny())
    with pytest.raises(AttributeError):
        cfg.server.port = 1  # type: ignore[misc]


def test_threads_may_compose_at_once():
    ports: dict[int, int] = {}

    def work(port: int) -> None:
        ports[port] = tiny(f"server.port={port}").server.port

    threads = [threading.Thread(target=work, args=(port,)) for port in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ports == {port: port for port in range(1, 5)}


def test_the_printed_configuration_holds_every_value_in_force():
    overrides = [
        "model=tiny",
        "preset=low",
        "sampler.init_scale=[0.5,0.9,0.9,1]",
        "vad.enabled=yes",
    ]
    printed = OmegaConf.to_container(OmegaConf.create(to_yaml(overrides)))
    assert printed["preset"]["num_steps"] == [8, 10, 15, 15]
    assert printed["sampler"]["init_scale"] == [0.5, 0.9, 0.9, 1.0]
    assert printed["vad"]["enabled"] is True
    assert printed["server"]["port"] == 8000
    assert math.isclose(printed["chunking"]["words_per_second"], 2.7)
    assert "${" not in to_yaml(overrides)


def test_composing_under_hydra_main_keeps_the_outer_one(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import hydra
from hydra.core.global_hydra import GlobalHydra
from echo.config import build, compose, register_resolvers

register_resolvers()

@hydra.main(config_path={str(shipped_path("conf"))!r}, config_name="config", version_base="1.3")
def main(cfg):
    outer = GlobalHydra.instance().hydra
    assert outer is not None
    own = build(cfg)
    again = compose(["model=tiny", "preset=equal"])
    assert GlobalHydra.instance().hydra is outer
    assert own == again, (own, again)
    assert compose(["model=tiny"]).preset.name == "default"
    print("agree on", own.preset.name)

main()
"""
    )
    command = [sys.executable, str(program), "model=tiny", "preset=equal"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "agree on equal\n"


def test_importing_the_package_does_not_import_hydra_or_torch():
    code = "import sys, echo.config; print({'hydra', 'omegaconf', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
