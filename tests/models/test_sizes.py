from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from echo.errors import CheckpointError
from echo.models.codec import CodecConfig, EncoderTransformerConfig
from echo.models.dit import DiTConfig
from echo.models.sizes import codec_config, dit_config, parse_codec_config, parse_dit_config


def toy(parity: Path, name: str) -> dict[str, Any]:
    return json.loads((parity / f"{name}_config.json").read_text())


def test_without_a_config_the_sizes_are_the_real_ones(tmp_path: Path) -> None:
    assert dit_config(str(tmp_path)) == DiTConfig()
    assert codec_config(str(tmp_path)) == CodecConfig()


def test_a_flat_config_holds_one_network(tmp_path: Path, parity: Path) -> None:
    shutil.copy(parity / "codec_config.json", tmp_path / "config.json")
    config = codec_config(str(tmp_path))
    assert config.encoder_rates == (2, 4, 8, 8)
    assert config.encoder_transformer == EncoderTransformerConfig(4, 2, 128, 384)
    with pytest.raises(CheckpointError, match="unknown key encoder_dim"):
        dit_config(str(tmp_path))


def test_sections_hold_both_networks(toy_folder: Path) -> None:
    assert dit_config(str(toy_folder)).model_size == 64
    assert codec_config(str(toy_folder)).latent_dim == 64


def test_a_section_that_is_missing_or_unknown_is_named(tmp_path: Path, parity: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"dit": toy(parity, "dit")}))
    with pytest.raises(CheckpointError, match="no section 'codec'"):
        codec_config(str(tmp_path))
    path.write_text(json.dumps({"dit": toy(parity, "dit"), "vocoder": {}}))
    with pytest.raises(CheckpointError, match="unknown section 'vocoder'"):
        dit_config(str(tmp_path))
    path.write_text(json.dumps({"dit": 3}))
    with pytest.raises(CheckpointError, match="dit must hold keys"):
        dit_config(str(tmp_path))


def test_the_sizes_of_a_hub_repo_are_not_asked_for_when_only_local_ones_count() -> None:
    assert dit_config("someone/gone", local_only=True) == DiTConfig()


def test_the_shipped_model_is_small_and_fits_its_own_rate() -> None:
    dit, codec = dit_config("shipped:tiny"), codec_config("shipped:tiny")
    assert dit.model_size <= 256
    assert dit.latent_size <= 80
    assert codec.hop == 2048
    assert codec.latent_dim >= dit.latent_size


@pytest.mark.parametrize("content", ["", "not json", "[1]", "\x00", '{"dit": '])
def test_a_config_that_is_not_a_json_object_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        dit_config(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_layers", "3"),
        ("num_layers", 3.0),
        ("num_layers", True),
        ("num_layers", 0),
        ("num_layers", None),
        ("norm_eps", 0),
        ("norm_eps", float("nan")),
        ("norm_eps", "1e-5"),
        ("num_heads", 3),
        ("num_heads", 1),
        ("text_num_heads", 5),
        ("speaker_num_heads", 32),
        ("timestep_embed_size", 31),
        ("latent_size", -80),
        ("nonsense", 1),
    ],
)
def test_an_impossible_size_of_the_dit_names_its_key(parity: Path, key: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"here: .*{key}") as error:
        parse_dit_config(toy(parity, "dit") | {key: value}, "here")
    assert error.value.param == key


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder_rates", [2, 4, 8]),
        ("encoder_rates", []),
        ("encoder_rates", [2, 4, 8, 8.0]),
        ("encoder_rates", 512),
        ("decoder_rates", [8, 8, 4, 4]),
        ("downsample", [2, 0]),
        ("decoder_dim", 40),
        ("q_head_dim", 31),
        ("q_layers", -1),
        ("n_codebooks", 0),
        ("encoder_transformer", None),
        ("encoder_transformer.dim", 64),
        ("encoder_transformer.heads", 3),
        ("encoder_transformer.heads", 128),
        ("encoder_transformer.nonsense", 1),
    ],
)
def test_an_impossible_size_of_the_codec_names_its_key(
    parity: Path, key: str, value: object
) -> None:
    raw = toy(parity, "codec")
    group, _, leaf = key.rpartition(".")
    (raw[group] if group else raw)[leaf] = value
    with pytest.raises(CheckpointError, match=key.partition(".")[0]):
        parse_codec_config(raw, "here")


@pytest.mark.parametrize("name", ["dit", "codec"])
def test_every_key_is_needed(parity: Path, name: str) -> None:
    parse = {"dit": parse_dit_config, "codec": parse_codec_config}[name]
    raw = toy(parity, name)
    for key in raw:
        with pytest.raises(CheckpointError, match=f"{key} is missing"):
            parse({k: v for k, v in raw.items() if k != key}, "here")


def test_an_encoder_without_transformer_has_no_width_to_match(parity: Path) -> None:
    raw = toy(parity, "codec")
    raw["encoder_transformer"] = {"layers": 0, "heads": 1, "dim": 1, "ffn": 1}
    assert parse_codec_config(raw, "here").encoder_transformer.layers == 0
