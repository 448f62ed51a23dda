"""Packed projections: the same results, names and memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from echo.models.dit import EchoDiT
from echo.models.lora import merge_lora_
from echo.models.random_weights import randomize_
from echo.modules.fusing import FusedProjections, fuse_
from echo.modules.mlp import SwiGLU


def swiglu() -> SwiGLU:
    torch.manual_seed(0)
    return SwiGLU(8, 12)


def storages(module: nn.Module) -> int:
    """Bytes that the parameters and buffers of ``module`` take, each storage once."""
    tensors = [*module.parameters(), *module.buffers()]
    by_place = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(by_place.values())


def test_packing_changes_no_result_and_no_name_and_takes_no_memory() -> None:
    mlp = swiglu()
    x = torch.randn(3, 5, 8)
    before, names, size = mlp(x), list(mlp.state_dict()), storages(mlp)
    fuse_(mlp)
    torch.testing.assert_close(mlp(x), before)
    assert list(mlp.state_dict()) == names
    assert storages(mlp) == size


def test_a_weight_changed_in_place_counts() -> None:
    mlp = swiglu()
    fuse_(mlp)
    x = torch.randn(2, 8)
    before = mlp(x)
    with torch.no_grad():
        mlp.w1.weight.mul_(2.0)
    assert not torch.allclose(mlp(x), before)
    mlp.load_state_dict(swiglu().state_dict())
    torch.testing.assert_close(mlp(x), before)


def test_another_number_format_packs_again() -> None:
    mlp = swiglu()
    fuse_(mlp)
    mlp.to(torch.float64)
    assert mlp.fused is not None
    assert mlp.fused.dtype == torch.float64
    assert mlp.fused.data_ptr() == mlp.w1.weight.data_ptr()
    assert storages(mlp) == sum(p.numel() * 8 for p in mlp.parameters())


def test_side_by_side_is_the_same_packed_or_not() -> None:
    mlp = swiglu()
    x = torch.randn(2, 8)
    loose = mlp.project_joined(x)
    fuse_(mlp)
    torch.testing.assert_close(mlp.project_joined(x), loose)
    torch.testing.assert_close(torch.cat(mlp.project(x), dim=-1), loose)


def test_a_whole_model_speaks_the_same_packed(toy_components) -> None:  # type: ignore[no-untyped-def]
    packed = toy_components.model  # packed when the components were made
    loose = EchoDiT(packed.config)
    loose.load_state_dict(packed.state_dict())
    parts = [m for m in packed.modules() if isinstance(m, FusedProjections)]
    assert parts
    assert all(m.fused is not None for m in parts)
    x, t = torch.randn(1, 6, 80), torch.tensor([0.4])
    given = {
        "text_mask": torch.ones(1, 7, dtype=torch.bool),
        "speaker_mask": torch.ones(1, 8, dtype=torch.bool),
    }
    ids, voice = torch.arange(1, 8)[None], torch.randn(1, 8, 80)
    with torch.inference_mode():
        ours, expected = (
            m(x, t, text=m.encode_text(ids), speaker=m.encode_speaker(voice), **given)
            for m in (packed, loose)
        )
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_a_lora_merged_after_packing_counts_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import save_file

    mlp = swiglu()
    fuse_(mlp)
    x = torch.randn(2, 8)
    before = mlp(x)
    path = tmp_path / "lora.safetensors"
    save_file({"w3.lora_w1.weight": torch.ones(1, 8), "w3.lora_w2.weight": torch.ones(12, 1)}, path)
    merge_lora_(mlp, path, alpha=1.0, scale=1.0)
    assert not torch.allclose(mlp(x), before)


def test_random_weights_need_packing_anew() -> None:
    mlp = swiglu()
    fuse_(mlp)
    randomize_(mlp, 3, device="cpu", dtype=torch.float32)
    fuse_(mlp)
    assert mlp.fused is not None
    torch.testing.assert_close(mlp.fused, torch.cat((mlp.w1.weight, mlp.w3.weight)))


def test_a_module_without_layers_to_pack_says_so() -> None:
    with pytest.raises(NotImplementedError):
        FusedProjections().fuse_()


def test_what_is_packed_stays_and_what_was_replaced_is_packed_again() -> None:
    mlp = swiglu()
    fuse_(mlp)
    packed = mlp.fused
    fuse_(mlp)
    assert mlp.fused is packed
    mlp.w3.weight = nn.Parameter(torch.zeros(12, 8), requires_grad=False)
    fuse_(mlp)
    assert mlp.fused is not packed
    assert not mlp.fused[12:].any()
