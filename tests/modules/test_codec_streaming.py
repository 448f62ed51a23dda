"""The streaming decoder against one-shot decoding, on the golden toy codec."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from echo.models.codec import S1DAC
from echo.modules.conv import CausalConvTranspose1d
from golden import golden_codec, random_z


@pytest.fixture(scope="module")
def codec() -> S1DAC:
    return golden_codec()


def decode_blocks(codec: S1DAC, z: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    state = codec.init_state(z.shape[0])
    return torch.cat([codec.decode(block, state) for block in z.split(list(sizes), -1)], -1)


@pytest.mark.parametrize("sizes", [[40], [1] * 40, [7, 1, 32], [13, 14, 13], [39, 1]])
def test_joined_blocks_equal_one_decode(codec: S1DAC, sizes: list[int]) -> None:
    z = random_z(codec, 40)
    torch.testing.assert_close(
        decode_blocks(codec, z, sizes), codec.decode(z), rtol=1e-4, atol=2e-5
    )


def test_several_streams_decode_in_one_batch(codec: S1DAC) -> None:
    z = torch.cat([random_z(codec, 12, seed) for seed in (1, 2)])
    together = decode_blocks(codec, z, [5, 7])
    alone = torch.cat([decode_blocks(codec, one[None], [5, 7]) for one in z])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=2e-5)


def test_audio_does_not_depend_on_later_vectors(codec: S1DAC) -> None:
    z, other = random_z(codec, 20), random_z(codec, 20, seed=9)
    changed = torch.cat((z[..., :11], other[..., 11:]), -1)
    hop = codec.config.hop
    before, after = codec.decode(z), codec.decode(changed)
    torch.testing.assert_close(before[..., : 11 * hop], after[..., : 11 * hop])
    assert not torch.allclose(before[..., 11 * hop :], after[..., 11 * hop :])


def test_a_cloned_state_lets_a_block_be_tried_again(codec: S1DAC) -> None:
    z = random_z(codec, 16)
    state = codec.init_state()
    first = codec.decode(z[..., :8], state)
    spare = state.clone()
    codec.decode(random_z(codec, 8, seed=3), state)  # an attempt that is thrown away
    joined = torch.cat((first, codec.decode(z[..., 8:], spare)), -1)
    torch.testing.assert_close(joined, codec.decode(z), rtol=1e-4, atol=2e-5)


def test_no_vector_is_decoded_twice(codec: S1DAC) -> None:
    seen: list[int] = []
    handle = codec.quantizer.post_module.layers[0].register_forward_hook(  # type: ignore[attr-defined]
        lambda _module, inputs, _output: seen.append(inputs[0].shape[1])
    )
    decode_blocks(codec, random_z(codec, 30), [4, 10, 16])
    handle.remove()
    assert sum(seen) == 30


def test_the_state_stays_bounded_however_long_the_stream(codec: S1DAC) -> None:
    state = codec.init_state()

    def size() -> int:
        tensors: list[torch.Tensor] = []

        def walk(value: object) -> None:
            if isinstance(value, torch.Tensor):
                tensors.append(value)
            elif isinstance(value, list):
                for item in value:
                    walk(item)
            elif hasattr(value, "__dict__"):
                walk(list(vars(value).values()))

        walk(state)
        return sum(t.untyped_storage().nbytes() for t in tensors)

    sizes = []
    for seed in range(6):
        codec.decode(random_z(codec, 16, seed), state)
        sizes.append(size())
    assert sizes[1:] == sizes[1:2] * 5


def test_a_long_decode_in_pieces_is_the_same(codec: S1DAC) -> None:
    z = random_z(codec, 33)
    torch.testing.assert_close(codec.decode_in_pieces(z, 10), codec.decode(z), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (4, 2), (2, 2), (7, 3)])
def test_a_transposed_convolution_streams_whatever_its_kernel(kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    conv = CausalConvTranspose1d(3, 2, kernel, stride).requires_grad_(False)
    x = torch.randn(1, 3, 11)
    state = conv.init_state(1, x)
    joined = torch.cat([conv(part, state) for part in x.split([1, 2, 8], -1)], -1)
    torch.testing.assert_close(joined, conv(x))
