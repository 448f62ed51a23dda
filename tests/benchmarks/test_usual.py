from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks.timing import Stopwatch
from benchmarks.usual import UsualRequest, sample_usual, separate_projections, speak_usual
from echo.engine.components import Components
from echo.inference import (
    ae_decode,
    get_text_input_ids_and_mask,
    sample_blockwise_euler_cfg_independent_guidances,
)

BLOCKS, STEPS = [8, 11, 13], [3, 4, 5]


@pytest.fixture
def request_of_a_voice() -> UsualRequest:
    latent = torch.randn(1, 20, 80, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(1, 20, dtype=torch.bool)
    return UsualRequest("Say this in the usual way.", latent, mask, 5, BLOCKS, STEPS)


def last(blocks):
    *_, latents = blocks
    return latents


def test_the_usual_way_says_what_the_plain_path_says(
    toy_components: Components, request_of_a_voice: UsualRequest
) -> None:
    r = request_of_a_voice
    usual = last(sample_usual(toy_components.model, r, Stopwatch()))
    ids, mask = get_text_input_ids_and_mask([r.text], None)
    plain = sample_blockwise_euler_cfg_independent_guidances(
        toy_components.model, r.speaker_latent, r.speaker_mask, ids, mask, r.seed, BLOCKS, STEPS
    )
    torch.testing.assert_close(usual, plain, rtol=1e-4, atol=1e-4)
    louder = last(sample_usual(toy_components.model, replace(r, cfg_scale_text=4.0), Stopwatch()))
    assert not torch.allclose(louder, plain, rtol=1e-4, atol=1e-4)


def test_decoding_again_with_all_that_came_before_gives_the_same_audio(
    toy_components: Components, request_of_a_voice: UsualRequest
) -> None:
    c, watch = toy_components, Stopwatch()
    audio = torch.cat(list(speak_usual(c.model, c.codec, c.pca, request_of_a_voice, watch)))
    latents = last(sample_usual(c.model, request_of_a_voice, Stopwatch()))
    torch.testing.assert_close(audio, ae_decode(c.codec, c.pca, latents)[0, 0])
    assert set(watch.seconds) == {"text", "speaker", "prefix", "sampling", "codec"}
    assert min(watch.seconds.values()) > 0


def test_projections_are_parted_for_a_while_and_packed_again(toy_components: Components) -> None:
    model = toy_components.model
    attention = model.blocks[0].attention
    packed = attention.fused
    assert packed is not None
    with separate_projections(model):
        assert attention.fused is None
    assert attention.fused is packed
