"""The counts are those of PyTorch's own counter on toy networks."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import counts
from echo.models.codec import CodecConfig
from echo.models.dit import DiTConfig, EchoDiT


def counted(call) -> float:
    # PyTorch counts attention on the CPU only where it is two plain products.
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        call()
    return counter.get_total_flops()


def test_text_encoder_and_its_weights(toy_components) -> None:
    model = toy_components.model
    work = counts.text_encoder(model.config, 23)
    ids = torch.zeros(1, 23, dtype=torch.long)
    assert work.flop == counted(lambda: model.encode_text(ids))


def test_dit_pass_with_its_modulations(toy_components) -> None:
    model = toy_components.model
    text = model.encode_text(torch.zeros(1, 9, dtype=torch.long))
    speaker = model.encode_speaker(torch.zeros(1, 20, 80))
    rows = [(k.expand(3, -1, -1, -1), v.expand(3, -1, -1, -1)) for k, v in text]
    voices = [(k.expand(3, -1, -1, -1), v.expand(3, -1, -1, -1)) for k, v in speaker]
    flop = counted(
        lambda: model(
            torch.zeros(3, 12, 80),
            torch.full((3,), 0.5),
            text=rows,
            text_mask=torch.ones(3, 9, dtype=torch.bool),
            speaker=voices,
            speaker_mask=torch.ones(3, 20, dtype=torch.bool),
        )
    )
    own = counts.dit_pass(model.config, 12, [14, 14, 14], 14) + counts.modulations(model.config, 3)
    assert own.flop == flop


def test_causal_encoders_count_only_what_is_visible(toy_components) -> None:
    model = toy_components.model
    c = model.config
    dense = counted(lambda: model.encode_speaker(torch.zeros(1, 40, 80)))
    hidden = 4.0 * c.speaker_model_size * c.speaker_num_layers * (10 * 10 - 10 * 11 / 2)
    assert counts.latent_encoder(c, 40).flop + hidden == pytest.approx(dense)


def test_codec_both_ways(toy_components) -> None:
    codec = toy_components.codec
    z_q, audio = torch.zeros(1, 80, 40), torch.zeros(1, 1, 40 * 2048)
    decoded = counted(lambda: codec.decode(z_q))
    encoded = counted(lambda: codec.encode(audio))
    # PyTorch also counts keys outside the window and the frames carried from before.
    assert 0.95 * decoded < counts.codec_decode(codec.config, 40).flop <= decoded
    assert 0.95 * encoded < counts.codec_encode(codec.config, 40).flop <= encoded


def test_weights_are_those_of_the_real_sizes() -> None:
    """All weights but the prefix encoder's second set: each is read once in one generation."""
    c = DiTConfig()
    with torch.device("meta"):
        model = EchoDiT(c)
    real = sum(p.numel() for p in model.parameters())
    own = (
        counts.text_encoder(c, 0)
        + counts.latent_encoder(c, 0)
        + counts.latent_encoder(c, 0)
        + counts.modulations(c, 1)
        + counts.dit_pass(c, 0, [0], 0)
    ).weights
    assert own == pytest.approx(real, rel=1e-3)
    assert CodecConfig().hop == 2048


def test_the_account_names_every_stage(capsys) -> None:
    assert counts.main([]) == 0
    shown = capsys.readouterr().out
    for way, stages in (("ours", 3), ("usual", 5)):
        assert sum(line.startswith(way) for line in shown.splitlines()) == stages
    assert counts.main(["model.dtype=bf17"]) == 2
