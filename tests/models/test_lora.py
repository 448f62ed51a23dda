from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from echo.config.schema import LoraConfig
from echo.errors import CheckpointError
from echo.models.load import load_dit
from echo.models.lora import merge_lora_

LAYER = "blocks.0.attention.wq"


def model(dtype: torch.dtype = torch.float32) -> nn.ModuleDict:
    generator = torch.Generator().manual_seed(0)
    made = nn.ModuleDict(
        {"wq": nn.Linear(6, 4), "norm": nn.LayerNorm(4), "conv": nn.Conv1d(4, 4, 1)}
    )
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return made.to(dtype)


def pair(name: str, out: int = 4, width: int = 6, rank: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"{name}.lora_w1.weight": torch.randn(rank, width, generator=generator),
        f"{name}.lora_w2.weight": torch.randn(out, rank, generator=generator),
    }


def save(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    path = tmp_path / "lora.safetensors"
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_merged_weight_is_the_formula(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = pair("wq")
    before, changed = model(dtype), model(dtype)
    assert merge_lora_(changed, save(tmp_path, tensors), alpha=32.0, scale=0.5) == 1
    w1, w2 = tensors.values()
    delta = (32.0 / 2) * 0.5 * (w2 @ w1)
    expected = (before.get_parameter("wq.weight").float() + delta).to(dtype)
    torch.testing.assert_close(changed.get_parameter("wq.weight"), expected)
    assert changed.get_parameter("wq.weight").dtype == dtype
    for name in ("wq.bias", "norm.weight", "conv.weight"):
        assert torch.equal(changed.get_parameter(name), before.get_parameter(name))


def test_a_scale_of_zero_changes_nothing(tmp_path: Path) -> None:
    changed = model()
    merge_lora_(changed, save(tmp_path, pair("wq")), alpha=32.0, scale=0.0)
    assert torch.equal(changed.get_parameter("wq.weight"), model().get_parameter("wq.weight"))


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({}, "no tensors"),
        (pair("gone"), r"1 not layers of the model \(gone\)"),
        (pair("wq", width=5), r"wq: \[4, 2\] x \[2, 5\] onto \[4, 6\]"),
        (pair("wq", out=3), "1 of another shape"),
        (pair("norm", 4, 4), "1 of another shape"),
        (pair("conv", 4, 4), "1 of another shape"),
        (dict(list(pair("wq").items())[:1]), r"1 without their other half \(wq\)"),
        (dict(list(pair("wq").items())[1:]), r"1 without their other half \(wq\)"),
        (pair("wq") | {"wq.weight": torch.zeros(4, 6)}, r"keys of another form \(wq\.weight\)"),
        ({k: v.to(torch.int8) for k, v in pair("wq").items()}, "2 not floating point"),
    ],
)
def test_a_lora_that_does_not_fit_is_an_error_and_changes_nothing(
    tmp_path: Path, tensors: dict[str, Tensor], problem: str
) -> None:
    changed = model()
    with pytest.raises(CheckpointError, match=problem):
        merge_lora_(changed, save(tmp_path, tensors), alpha=32.0, scale=1.0)
    before = model()
    assert all(torch.equal(p, before.get_parameter(n)) for n, p in changed.named_parameters())


def test_ranks_of_the_two_halves_must_agree(tmp_path: Path) -> None:
    down = pair("wq", rank=2)["wq.lora_w1.weight"]
    up = pair("wq", rank=3)["wq.lora_w2.weight"]
    path = save(tmp_path, {"wq.lora_w1.weight": down, "wq.lora_w2.weight": up})
    with pytest.raises(CheckpointError, match="of another shape"):
        merge_lora_(model(), path, alpha=32.0, scale=1.0)


def lora_config(repo: Path | None, filename: str | None = None) -> LoraConfig:
    return LoraConfig(
        repo=None if repo is None else str(repo),
        filename=filename,
        scale=2.0,
        alpha=32.0,
        first_block=False,
    )


def test_a_dit_is_loaded_with_its_lora(toy_folder: Path, tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    folder = tmp_path / "lora"
    folder.mkdir()
    tensors = pair(LAYER, 64, 64)
    save(folder, tensors)
    plain = load_dit(str(toy_folder), device=cpu, dtype=torch.float32, lora=lora_config(None))
    w1, w2 = tensors.values()
    expected = plain.get_parameter(f"{LAYER}.weight") + 32.0 / 2 * 2.0 * (w2 @ w1)
    for filename in (None, "lora.safetensors"):
        lora = lora_config(folder, filename)
        merged = load_dit(str(toy_folder), device=cpu, dtype=torch.float32, lora=lora)
        torch.testing.assert_close(merged.get_parameter(f"{LAYER}.weight"), expected)
    lora = lora_config(folder, "gone.safetensors")
    with pytest.raises(CheckpointError, match=r"no file gone\.safetensors") as error:
        load_dit(str(toy_folder), device=cpu, dtype=torch.float32, lora=lora)
    assert error.value.param == "model.lora.repo"
