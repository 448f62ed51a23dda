"""The Python API of the original release: its Quick Start on a checkpoint in a local folder."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from echo import inference
from echo.audio.encode import encode_file
from echo.errors import CheckpointError, InvalidRequestError
from echo.inference import (
    ae_reconstruct,
    get_speaker_latent_and_mask,
    load_audio,
    load_fish_ae_from_hf,
    load_model_from_hf,
    load_pca_state_from_hf,
    sample_blockwise_euler_cfg_independent_guidances,
    sample_euler_cfg_independent_guidances,
    sample_pipeline,
)
from golden import PARITY


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden toy networks as two local repositories."""
    root = tmp_path_factory.mktemp("checkpoint")
    for repo, kind in (("echo-tts-toy", "dit"), ("dac-toy", "codec")):
        (root / repo).mkdir()
        shutil.copy(
            PARITY / f"{kind}_weights.safetensors", root / repo / "pytorch_model.safetensors"
        )
        shutil.copy(PARITY / f"{kind}_config.json", root / repo / "config.json")
    generator = torch.Generator().manual_seed(0)
    pca = {
        "pca_components": torch.randn((80, 64), generator=generator) / 8,
        "pca_mean": torch.randn(64, generator=generator) / 8,
        "latent_scale": torch.tensor(0.7),
    }
    save_file(pca, root / "echo-tts-toy" / "pca_state.safetensors")
    return root


@pytest.fixture(scope="module")
def speaker_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    t = np.arange(40 * 2048, dtype=np.float32) / 44_100
    path = tmp_path_factory.mktemp("voice") / "speaker.wav"
    path.write_bytes(encode_file(0.4 * np.sin(2 * np.pi * 220 * t), 44_100, "wav"))
    return path


def test_the_quick_start_runs_and_gives_the_plain_reference_samples(
    checkpoint: Path, speaker_file: Path
) -> None:
    model = load_model_from_hf(
        str(checkpoint / "echo-tts-toy"),
        device="cpu",
        dtype=torch.float32,
        delete_blockwise_modules=True,
    )
    fish_ae = load_fish_ae_from_hf(str(checkpoint / "dac-toy"), device="cpu")
    pca_state = load_pca_state_from_hf(str(checkpoint / "echo-tts-toy"), device="cpu")
    speaker_audio = load_audio(speaker_file)
    assert speaker_audio.shape == (1, 40 * 2048)
    sample_fn = partial(
        sample_euler_cfg_independent_guidances,
        num_steps=4,
        cfg_scale_text=3.0,
        cfg_scale_speaker=8.0,
        cfg_min_t=0.5,
        cfg_max_t=1.0,
        truncation_factor=None,
        rescale_k=None,
        rescale_sigma=None,
        speaker_kv_scale=None,
        speaker_kv_max_layers=None,
        speaker_kv_min_t=None,
        sequence_length=16,
    )
    audio, text = sample_pipeline(
        model=model,
        fish_ae=fish_ae,
        pca_state=pca_state,
        sample_fn=sample_fn,
        text_prompt="Hello; this is a test.",
        speaker_audio=speaker_audio,
        rng_seed=0,
    )
    assert text == "[S1] Hello, this is a test."
    assert audio.shape == (1, 1, 16 * 2048)

    again, _ = sample_pipeline(
        model=model,
        fish_ae=fish_ae,
        pca_state=pca_state,
        sample_fn=sample_fn,
        text_prompt="Hello; this is a test.",
        speaker_audio=speaker_audio,
        rng_seed=0,
        pad_to_max_speaker_latent_length=60,
        pad_to_max_text_length=300,
    )
    # Padding is masked: it changes nothing but the rounding.
    torch.testing.assert_close(audio, again, rtol=1e-3, atol=1e-3)


def test_without_a_reference_voice_the_speaker_is_masked(checkpoint: Path) -> None:
    model = load_model_from_hf(str(checkpoint / "echo-tts-toy"), device="cpu", dtype=torch.float32)
    fish_ae = load_fish_ae_from_hf(str(checkpoint / "dac-toy"), device="cpu")
    pca_state = load_pca_state_from_hf(str(checkpoint / "echo-tts-toy"), device="cpu")
    blockwise = partial(
        sample_blockwise_euler_cfg_independent_guidances, block_sizes=[8, 8], num_steps=3
    )
    audio, _ = sample_pipeline(model, fish_ae, pca_state, blockwise, "Hello.", None, 1)
    assert torch.isfinite(audio).all()


def test_the_codec_reconstructs_at_the_same_length(checkpoint: Path) -> None:
    fish_ae = load_fish_ae_from_hf(str(checkpoint / "dac-toy"), device="cpu")
    pca_state = load_pca_state_from_hf(str(checkpoint / "echo-tts-toy"), device="cpu")
    audio = 0.1 * torch.randn(1, 1, 5000)
    assert ae_reconstruct(fish_ae, pca_state, audio).shape == (1, 1, 3 * 2048)
    with pytest.raises(InvalidRequestError, match="expected"):
        ae_reconstruct(fish_ae, pca_state, audio[0])


def test_a_voice_is_cut_to_whole_patches(checkpoint: Path) -> None:
    fish_ae = load_fish_ae_from_hf(str(checkpoint / "dac-toy"), device="cpu")
    pca_state = load_pca_state_from_hf(str(checkpoint / "echo-tts-toy"), device="cpu")
    latent, mask = get_speaker_latent_and_mask(fish_ae, pca_state, torch.rand(1, 11 * 2048 + 5))
    assert latent.shape == (1, 8, 80)
    assert mask.all()


def test_a_checkpoint_of_another_model_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    shutil.copytree(checkpoint / "echo-tts-toy", tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "pytorch_model.safetensors")
    weights.pop("text_norm.weight")
    save_file(weights, tmp_path / "pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=r"text_norm\.weight"):
        inference.load_model_from_hf(str(tmp_path), device="cpu")
