"""The prefix, encoded as it grows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from echo.models.dit import PrefixState
from echo.models.layer_kv import LayerKV
from golden import golden_dit


def latents(length: int) -> Tensor:
    return torch.randn((1, length, 80), generator=torch.Generator().manual_seed(2))


def assert_same(ours: LayerKV, expected: LayerKV) -> None:
    for mine, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine[0], other[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(mine[1], other[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "blocks", [[4, 8, 12], [5, 9, 3], [1, 1, 1, 1, 1, 1], [3, 1, 4, 2], [7], [2, 17, 6, 8]]
)
def test_growing_block_by_block_is_encoding_it_whole(blocks: list[int]) -> None:
    model, total = golden_dit(), 0
    every = latents(sum(blocks))
    state: PrefixState | None = None
    for size in blocks:
        state, context = model.extend_prefix(state, every[:, total : total + size])
        total += size
        assert state.latents == total
        assert state.rest.shape[1] == total % model.patch
        whole = F.pad(every[:, :total], (0, 0, 0, -total % model.patch))
        assert_same(context, model.encode_prefix(whole))


def test_a_block_tried_again_leaves_the_state_as_it_was() -> None:
    model = golden_dit()
    state, _ = model.extend_prefix(None, latents(6))
    _, first = model.extend_prefix(state, latents(5) * 3)
    _, second = model.extend_prefix(state, latents(5))
    _, again = model.extend_prefix(state, latents(5) * 3)
    assert_same(first, again)
    assert not torch.allclose(first[0][0], second[0][0])


def test_what_was_encoded_is_not_encoded_again() -> None:
    model, seen = golden_dit(), []
    handle = model.latent_encoder.in_proj.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape[1])
    )
    state, _ = model.extend_prefix(None, latents(10))
    model.extend_prefix(state, latents(8))
    handle.remove()
    assert seen == [3, 3]  # patches: 4 4 2; then the 2 with 2 more, 4, and 2 left
