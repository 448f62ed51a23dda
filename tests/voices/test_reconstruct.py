import numpy as np
import pytest
import torch

from echo.inference import ae_reconstruct
from echo.spec import HOP
from echo.voices.reconstruct import MAX_LATENTS, reconstruct


def noise(samples):
    return np.random.default_rng(1).uniform(-0.5, 0.5, samples).astype(np.float32)


@pytest.mark.parametrize("samples", [5 * HOP, 5 * HOP + 3, 40 * HOP])
def test_the_copy_is_what_the_textbook_version_makes(toy_components, samples):
    audio = noise(samples)
    c = toy_components
    copy = reconstruct(c.codec, c.pca, audio)
    expected = ae_reconstruct(c.codec, c.pca, torch.from_numpy(audio)[None, None])
    assert copy.shape == audio.shape
    np.testing.assert_allclose(copy, expected[0, 0, :samples].numpy(), atol=1e-4)


def test_only_the_first_half_minute_is_copied(toy_components):
    c = toy_components
    copy = reconstruct(c.codec, c.pca, noise((MAX_LATENTS + 2) * HOP))
    assert len(copy) == MAX_LATENTS * HOP
