"""Reference voices as latents, with and without the padding of the original."""

from __future__ import annotations

import torch

from echo.engine.components import Components
from echo.spec import HOP
from echo.voices.encode import encode_pieces, real_latents


def test_without_padding_the_latents_of_the_audio_are_the_same(toy_components: Components) -> None:
    torch.manual_seed(0)
    audio = 0.3 * torch.randn(1, 13 * HOP + 700)  # a whole piece, and one and a bit over
    found = {}
    for padded in (True, False):
        pieces = encode_pieces(
            toy_components.codec,
            toy_components.pca,
            audio,
            max_latents=40,
            piece_latents=12,
            padded=padded,
        )
        found[padded] = torch.cat(list(pieces), dim=1)
    assert found[True].shape[1] == 24
    assert found[False].shape[1] == 14
    real = real_latents(toy_components.codec, audio.shape[1], 40)
    assert real == 13
    torch.testing.assert_close(found[True][:, :real], found[False][:, :real])
