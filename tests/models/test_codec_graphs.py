"""Recorded, the codec decodes a stream as it does unrecorded, however the stream is cut."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from companies import Recording
from echo.config import compose
from echo.engine.lane import Lane
from echo.models.codec import DECODE_PIECE_LATENTS, S1DAC, DecoderParts
from echo.models.codec_graphs import LONGEST, SIZES, RecordedDecoder
from echo.models.compile import CompiledInPieces, compile_components
from echo.modules.streaming import ALIGNMENT, FlatState, flatten_, tensors_of
from fakes import compilations
from golden import golden_codec, golden_dit, random_z

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CUTS = [
    [200],
    [1] * 37,
    [128, 32, 40],
    [3, 5, 7, 11, 13, 17, 19, 23, 29, 31],
    [127, 1, 129],
    [4, 32, 96, 1],
]


@pytest.fixture
def plain() -> S1DAC:
    return golden_codec()


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
def codec(recording: Recording) -> S1DAC:
    return recorded(deepcopy(golden_codec()), recording)


def recorded(codec: S1DAC, record: Any = None, sizes: Sequence[int] = (*SIZES, LONGEST)) -> S1DAC:
    decoder = RecordedDecoder(codec, sizes)
    codec.streams = decoder
    decoder.warm_up(record)
    return codec


def decode(codec: S1DAC, z: Tensor, sizes: Sequence[int]) -> Tensor:
    state = codec.init_state()
    return torch.cat([codec.decode(part, state) for part in z.split(list(sizes), -1)], -1)


def assert_same(ours: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("cut", CUTS)
def test_however_a_stream_is_cut_it_sounds_the_same(
    codec: S1DAC, plain: S1DAC, recording: Recording, cut: list[int]
) -> None:
    z = random_z(codec, sum(cut))
    assert_same(decode(codec, z, cut), plain.decode(z))
    assert recording.replayed >= len(cut)


def test_any_number_of_latents_is_a_sum_of_few_graphs(codec: S1DAC, recording: Recording) -> None:
    z, state = random_z(codec, 200), codec.init_state()
    assert recording.recorded == len(SIZES) + 1
    for latents in range(1, 201):
        before = recording.replayed
        audio = codec.decode(z[..., :latents], state)
        assert audio.shape == (1, 1, latents * codec.config.hop)
        rest = latents % 128
        assert recording.replayed - before == latents // 128 + rest // 32 + (rest % 32).bit_count()


def test_the_window_moves_on_as_it_does_unrecorded(codec: S1DAC, plain: S1DAC) -> None:
    """Far beyond its size, and at absolute positions."""
    length = 4 * codec.config.q_window + 5
    z = random_z(codec, length)
    assert_same(decode(codec, z, [9] * (length // 9) + [length % 9]), plain.decode(z))


def test_streams_take_turns_without_hearing_each_other(codec: S1DAC, plain: S1DAC) -> None:
    zs = [random_z(codec, 40, seed) for seed in (1, 2)]
    states = [codec.init_state() for _ in zs]
    heard: list[list[Tensor]] = [[], []]
    for start, end in ((0, 3), (3, 20), (20, 21), (21, 40)):
        for z, state, parts in zip(zs, states, heard, strict=True):
            parts.append(codec.decode(z[..., start:end], state))
    for z, parts in zip(zs, heard, strict=True):
        assert_same(torch.cat(parts, -1), plain.decode(z))


def test_a_block_can_be_tried_again_from_where_it_began(codec: S1DAC, plain: S1DAC) -> None:
    z = random_z(codec, 30)
    state = codec.init_state()
    first = codec.decode(z[..., :11], state)
    for seed in (3, 4):
        attempt = state.clone()
        codec.decode(random_z(codec, 19, seed), attempt)
        codec.decode(random_z(codec, 5, seed), codec.init_state())
    assert_same(torch.cat((first, codec.decode(z[..., 11:], state)), -1), plain.decode(z))


def test_what_was_heard_is_not_changed_by_what_comes_after(codec: S1DAC) -> None:
    state = codec.init_state()
    audio = codec.decode(random_z(codec, 8), state)
    heard = audio.clone()
    codec.decode(random_z(codec, 8, seed=5), state)
    assert torch.equal(audio, heard)


def test_a_stream_that_began_before_the_recording_goes_on(plain: S1DAC) -> None:
    codec, z = deepcopy(plain), random_z(plain, 24)
    state = codec.init_state()
    first = codec.decode(z[..., :7], state)
    recorded(codec, Recording())
    assert isinstance(codec.init_state(), FlatState)
    assert_same(torch.cat((first, codec.decode(z[..., 7:], state)), -1), plain.decode(z))


def test_what_is_no_single_stream_is_decoded_as_before(
    codec: S1DAC, plain: S1DAC, recording: Recording
) -> None:
    z = torch.cat([random_z(codec, 12, seed) for seed in (1, 2)])
    state = codec.init_state(2)
    assert isinstance(state, DecoderParts)
    assert_same(codec.decode(z, state), plain.decode(z))
    assert_same(codec.decode(z), plain.decode(z))
    assert_same(codec.decode_in_pieces(z[:1], 5), plain.decode(z[:1]))  # in anybody's thread
    assert recording.replayed == 0


def test_two_streams_do_not_pass_for_one(codec: S1DAC) -> None:
    with pytest.raises(RuntimeError, match="shape"):
        codec.decode(torch.cat([random_z(codec, 4)] * 2), codec.init_state())


def test_the_codec_says_how_much_it_likes_to_do_at_once(codec: S1DAC, plain: S1DAC) -> None:
    assert plain.piece_latents == DECODE_PIECE_LATENTS
    assert codec.piece_latents == LONGEST


def test_if_recording_fails_it_is_told_once_and_the_codec_goes_on(
    plain: S1DAC, caplog: pytest.LogCaptureFixture
) -> None:
    recording = Recording()

    def broken(work: Callable[[], None]) -> Callable[[], None]:
        if recording.recorded == 3:
            raise RuntimeError("operation not permitted when stream is capturing")
        return recording(work)

    with caplog.at_level(logging.WARNING, logger="echo"):
        codec = recorded(deepcopy(plain), broken)
        z = random_z(codec, 20)
        assert_same(decode(codec, z, [3, 17]), plain.decode(z))
    assert caplog.text.count("without CUDA graphs") == 1
    assert codec.piece_latents == DECODE_PIECE_LATENTS
    assert recording.replayed == 0


def test_the_largest_graph_is_recorded_first(plain: S1DAC) -> None:
    """Else each larger one would take memory anew."""
    codec, seen = deepcopy(plain), list[int]()
    codec.quantizer.post_module.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].shape[-1])
    )
    recorded(codec, Recording(), sizes=(1, 8, 2))
    assert seen == [8, 2, 1]


def test_sizes_that_cannot_make_up_every_number_are_refused(plain: S1DAC) -> None:
    with pytest.raises(ValueError, match="not every number"):
        RecordedDecoder(plain, (2, 4))


def test_a_flat_state_is_the_state(plain: S1DAC) -> None:
    z, state = random_z(plain, 30), plain.init_parts()
    plain.decode(z[..., :20], state)
    flat = state.clone()
    buffer = flatten_(flat)
    assert buffer.dtype == torch.uint8
    for ours, expected in zip(tensors_of(flat), tensors_of(state), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
        assert ours.stride() == expected.stride()
        assert ours.untyped_storage().data_ptr() == buffer.data_ptr()
        assert ours.storage_offset() * ours.element_size() % ALIGNMENT == 0
    assert_same(plain.decode(z[..., 20:], flat), plain.decode(z[..., 20:], state))


def test_a_state_keeps_its_shapes(plain: S1DAC) -> None:
    """Else it would not fit what was recorded at a stream's start."""
    state = plain.init_parts()
    before = [(tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors_of(state)]
    for latents in (1, 3, 2 * plain.config.q_window):
        plain.decode(random_z(plain, latents), state)
        after = [(tensor.shape, tensor.dtype, tensor.stride()) for tensor in tensors_of(state)]
        assert after == before


def test_what_was_compiled_for_a_length_is_recorded_without_compiling_again(plain: S1DAC) -> None:
    torch._dynamo.reset()
    codec, pieces = deepcopy(plain), (32, 8)
    frames = math.prod(codec.config.downsample)
    compiled = CompiledInPieces(
        codec.decoder.forward, [frames * each for each in pieces], backend="eager"
    )
    codec.decoder.forward = compiled  # type: ignore[method-assign]
    with torch.inference_mode(), compilations() as at_first:
        for latents in pieces:
            state = codec.init_parts()
            for _ in range(2):
                codec.decode(random_z(codec, latents), state)
    assert len(at_first) == len(pieces)
    with compilations() as later:
        recorded(codec, Recording(), sizes=(32, 8, 2, 1))
        z = random_z(codec, 75)
        assert_same(decode(codec, z, [33, 42]), plain.decode(z))
    assert later == []


def test_without_a_gpu_nothing_is_recorded(plain: S1DAC, caplog: pytest.LogCaptureFixture) -> None:
    codec, model = deepcopy(plain), deepcopy(golden_dit())
    config = compose(["compile=graphs"]).compile
    with caplog.at_level(logging.WARNING, logger="echo"):
        assert not compile_components([model], codec, config)
    assert codec.streams is None
    assert "no effect" in caplog.text


@cuda
@pytest.mark.parametrize("cut", CUTS)
@torch.inference_mode()
def test_on_cuda_a_recorded_stream_sounds_as_an_unrecorded_one(
    plain: S1DAC, cut: list[int]
) -> None:
    there = deepcopy(plain).to("cuda")
    codec, lane = deepcopy(there), Lane.beside(there.device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        lane.run(partial(recorded, codec))
        assert codec.streams is not None
        assert codec.streams.recorded
        z = random_z(plain, sum(cut)).to("cuda")
        taken, expected = lane.take(z), there.decode(z)
        ours = lane.run(lambda: decode(codec, taken, cut))
        torch.cuda.synchronize()
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=2e-4)
