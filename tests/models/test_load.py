from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.parametrize import is_parametrized

from echo.errors import CheckpointError, ConfigError
from echo.models.load import PCA_FILE, load_codec, load_dit, load_pca
from echo.models.sizes import codec_config, dit_config

CPU = torch.device("cpu")
F32 = torch.float32


def copied(folder: Path, parity: Path, name: str) -> str:
    """One network alone, under the public file name, with a flat config.json."""
    folder.mkdir()
    shutil.copy(parity / f"{name}_config.json", folder / "config.json")
    shutil.copy(parity / f"{name}_weights.safetensors", folder / "pytorch_model.safetensors")
    return str(folder)


def test_a_folder_with_the_public_names_and_a_flat_config_loads(
    tmp_path: Path, parity: Path
) -> None:
    dit = load_dit(copied(tmp_path / "dit", parity, "dit"), device=CPU, dtype=F32)
    codec = load_codec(copied(tmp_path / "codec", parity, "codec"), device=CPU, dtype=F32)
    assert (dit.config.num_layers, codec.config.q_layers) == (3, 2)
    for network in (dit, codec):
        assert not network.training
        assert not any(p.requires_grad or p.is_meta for p in network.parameters())


def test_one_folder_can_hold_all(toy_folder: Path) -> None:
    dit = load_dit(str(toy_folder), device=CPU, dtype=torch.bfloat16)
    codec = load_codec(str(toy_folder), device=CPU, dtype=F32)
    pca = load_pca(str(toy_folder), device=CPU, dit=dit.config, codec=codec.config)
    assert dit.dtype == torch.bfloat16
    assert codec.dtype == F32
    assert pca.components.dtype == F32
    assert pca.scale == 0.5


def test_the_weight_norm_of_the_codec_is_folded(toy_folder: Path) -> None:
    stored = load_file(toy_folder / "codec.safetensors")
    codec = load_codec(str(toy_folder), device=CPU, dtype=F32)
    assert not any(is_parametrized(module) for module in codec.modules())
    assert not list(codec.buffers())
    base = "decoder.model.0.conv"
    g, v = (stored[f"{base}.parametrizations.weight.original{i}"] for i in (0, 1))
    expected = g * v / v.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(codec.get_parameter(f"{base}.weight").data, expected)


def test_a_half_precision_codec_is_the_folded_one_rounded_once(toy_folder: Path) -> None:
    full = load_codec(str(toy_folder), device=CPU, dtype=F32)
    half = load_codec(str(toy_folder), device=CPU, dtype=torch.bfloat16)
    rounded = {name: value.bfloat16() for name, value in full.state_dict().items()}
    assert half.state_dict().keys() == rounded.keys()
    assert all(torch.equal(value, rounded[name]) for name, value in half.state_dict().items())


@torch.no_grad()
def test_the_loaded_codec_decodes_the_golden_latents(toy_folder: Path, parity: Path) -> None:
    golden = load_file(parity / "codec_io.safetensors")
    codec = load_codec(str(toy_folder), device=CPU, dtype=F32)
    audio = codec.decode(golden["z_random"])
    torch.testing.assert_close(audio, golden["audio_from_z_random"], rtol=1e-4, atol=1e-4)


def test_the_buffers_of_the_public_codec_file_are_accepted(toy_folder: Path) -> None:
    path = toy_folder / "codec.safetensors"
    buffers = {"quantizer.pre_module.freqs_cis": torch.zeros(4, 2)}
    save_file(load_file(path) | buffers, path)
    load_codec(str(toy_folder), device=CPU, dtype=F32)
    dit = toy_folder / "dit.safetensors"
    save_file(load_file(dit) | buffers, dit)
    with pytest.raises(CheckpointError, match="freqs_cis"):
        load_dit(str(toy_folder), device=CPU, dtype=F32)


def test_weights_of_other_sizes_than_the_config_are_an_error(toy_folder: Path) -> None:
    (toy_folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"missing.*of another shape.*config\.json"):
        load_dit(str(toy_folder), device=CPU, dtype=F32)


def test_a_folder_without_weights_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file pytorch_model\.safetensors"):
        load_dit(str(tmp_path), device=CPU, dtype=F32)
    with pytest.raises(CheckpointError, match="no file") as error:
        load_codec(str(tmp_path), device=CPU, dtype=F32)
    assert error.value.param == "model.codec_repo"
    with pytest.raises(CheckpointError, match="pca_state") as error:
        load_pca(str(tmp_path), device=CPU)
    assert error.value.param == "model.pca_repo"


def test_a_pca_must_fit_both_networks(toy_folder: Path) -> None:
    tiny, toy = "shipped:tiny", str(toy_folder)
    assert load_pca(toy, device=CPU, dit=dit_config(tiny)).components.shape == (80, 64)
    with pytest.raises(CheckpointError, match=r"vectors of 64, .* have 128"):
        load_pca(toy, device=CPU, codec=codec_config(tiny))
    path = toy_folder / PCA_FILE
    save_file(load_file(path) | {"pca_components": torch.zeros(32, 64)}, path)
    with pytest.raises(CheckpointError, match=r"32 components, .* latents of 80"):
        load_pca(toy, device=CPU, dit=dit_config(tiny))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pca_mean": None}, r"1 missing \(pca_mean\)"),
        ({"pca_components": None}, r"1 missing \(pca_components\)"),
        ({"more": torch.zeros(1)}, r"1 not of this model \(more\)"),
        ({"pca_mean": torch.zeros(63)}, r"pca_mean \[63\]"),
        ({"pca_components": torch.zeros(64)}, r"pca_components \[64\]"),
        ({"latent_scale": torch.zeros(2)}, r"latent_scale \[2\]"),
        ({"latent_scale": torch.tensor(0.0)}, "latent_scale is 0"),
        ({"latent_scale": torch.tensor(float("nan"))}, "latent_scale is nan"),
        ({"pca_mean": torch.zeros(64).long()}, "not floating point"),
    ],
)
def test_a_pca_file_that_is_not_whole_is_an_error(
    toy_folder: Path, changes: dict[str, Tensor | None], problem: str
) -> None:
    path = toy_folder / PCA_FILE
    values = load_file(path) | changes
    save_file({name: value for name, value in values.items() if value is not None}, path)
    with pytest.raises(CheckpointError, match=problem):
        load_pca(str(toy_folder), device=CPU)


def test_random_weights_take_the_sizes_of_the_folder(toy_folder: Path) -> None:
    for name in ("dit.safetensors", "codec.safetensors", PCA_FILE):
        (toy_folder / name).write_text("not to be read")
    repo = str(toy_folder)
    dit = load_dit(repo, device=CPU, dtype=F32, weights="random", random_seed=1)
    codec = load_codec(repo, device=CPU, dtype=torch.bfloat16, weights="random", random_seed=1)
    assert dit.config == dit_config(repo)
    assert codec.config == codec_config(repo)
    assert codec.dtype == torch.bfloat16
    assert not any(is_parametrized(module) for module in codec.modules())
    again = load_dit(repo, device=CPU, dtype=F32, weights="random", random_seed=1)
    other = load_dit(repo, device=CPU, dtype=F32, weights="random", random_seed=2)
    assert torch.equal(again.in_proj.weight, dit.in_proj.weight)
    assert not torch.equal(other.in_proj.weight, dit.in_proj.weight)


def test_a_random_pca_has_the_sizes_of_the_networks() -> None:
    tiny = load_pca("shipped:tiny", device=CPU, weights="random")
    assert tiny.components.shape == (80, 128)
    real = load_pca("someone/never-asked", device=CPU, weights="random")
    assert real.components.shape == (80, 1024)


@pytest.mark.parametrize("load", [load_dit, load_codec])
def test_another_word_for_weights_is_an_error(load: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="checkpoint or random"):
        load("shipped:tiny", device=CPU, dtype=F32, weights="pretrained")
