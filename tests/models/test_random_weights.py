from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from echo.errors import CheckpointError
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT
from echo.models.load import load_codec, load_dit, load_pca
from echo.models.random_weights import random_pca, randomize_
from echo.models.sizes import codec_config, dit_config

CPU = torch.device("cpu")


def make(build: Callable[[], nn.Module], seed: int, dtype: torch.dtype) -> dict[str, Tensor]:
    with torch.device("meta"):
        module = build()
    randomize_(module, seed, device=CPU, dtype=dtype)
    return dict(module.named_parameters())


def dit() -> nn.Module:
    return EchoDiT(dit_config("shipped:tiny"))


def codec() -> nn.Module:
    return S1DAC(codec_config("shipped:tiny"))


@pytest.mark.parametrize("build", [dit, codec])
def test_the_same_seed_gives_the_same_weights_and_another_others(
    build: Callable[[], nn.Module],
) -> None:
    first, again, other = (make(build, seed, torch.float32) for seed in (7, 7, 8))
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].unique().numel() > 1]
    assert len(drawn) > 100  # the others are norms, gains and biases
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


@pytest.mark.parametrize("build", [dit, codec])
def test_another_number_format_only_rounds(build: Callable[[], nn.Module]) -> None:
    full, half = make(build, 0, torch.float32), make(build, 0, torch.bfloat16)
    assert all(torch.equal(full[name].bfloat16(), half[name]) for name in full)


def test_two_parameters_of_one_shape_differ() -> None:
    weights = make(dit, 0, torch.float32)
    assert not torch.equal(
        weights["blocks.0.attention.wk.weight"], weights["blocks.0.attention.wv.weight"]
    )


def test_a_layer_without_a_rule_is_an_error_not_zeros() -> None:
    with pytest.raises(TypeError, match="PReLU"):
        randomize_(nn.Sequential(nn.PReLU()), 0, device=CPU, dtype=torch.float32)


@pytest.mark.parametrize("loudness", [0.1, 1.0, 10.0])
@torch.no_grad()
def test_a_random_codec_makes_audible_noise_without_clipping(loudness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    codec = load_codec("shipped:tiny", device=CPU, dtype=torch.float32, weights="random")
    pca = load_pca("shipped:tiny", device=CPU, weights="random", codec=codec.config)
    latent = loudness * torch.randn(1, 12, 80, generator=generator)
    audio = codec.decode(pca.from_latent(latent).transpose(1, 2))
    assert 0.02 < float(audio.std()) < 0.5
    assert float(audio.abs().max()) < 0.999


@torch.no_grad()
def test_random_latents_of_audio_are_of_unit_size() -> None:
    generator = torch.Generator().manual_seed(0)
    codec = load_codec("shipped:tiny", device=CPU, dtype=torch.float32, weights="random")
    pca = load_pca("shipped:tiny", device=CPU, weights="random")
    z_q, codes = codec.encode(0.1 * torch.randn(1, 1, 12 * 2048, generator=generator))
    assert 0.2 < float(pca.to_latent(z_q.transpose(1, 2)).std()) < 5.0
    assert codes.unique().numel() > 10


@torch.no_grad()
def test_a_random_dit_gives_a_velocity_that_depends_on_text_and_voice() -> None:
    generator = torch.Generator().manual_seed(0)
    model = load_dit("shipped:tiny", device=CPU, dtype=torch.float32, weights="random")
    text = model.encode_text(torch.randint(0, 256, (1, 9), generator=generator))
    speaker = model.encode_speaker(torch.randn(1, 8, 80, generator=generator))
    x = torch.randn(1, 10, 80, generator=generator)

    def velocity(sees_text: bool, sees_speaker: bool) -> Tensor:
        return model(
            x,
            torch.tensor([0.5]),
            text=text,
            text_mask=torch.full((1, 9), sees_text),
            speaker=speaker,
            speaker_mask=torch.full((1, 8), sees_speaker),
        )

    whole = velocity(True, True)
    assert 0.2 < float(whole.std()) < 5.0
    assert not torch.allclose(whole, velocity(False, True), atol=1e-3)
    assert not torch.allclose(whole, velocity(True, False), atol=1e-3)


def test_a_random_pca_goes_there_and_back() -> None:
    pca = random_pca(5, 12, 3, device=CPU)
    latent = torch.randn(1, 7, 5)
    torch.testing.assert_close(pca.to_latent(pca.from_latent(latent)), latent)
    assert torch.equal(pca.components, random_pca(5, 12, 3, device=CPU).components)
    assert not torch.equal(pca.components, random_pca(5, 12, 4, device=CPU).components)


def test_a_pca_of_more_components_than_dimensions_is_an_error() -> None:
    with pytest.raises(CheckpointError, match="13 components"):
        random_pca(13, 12, 0, device=CPU)
