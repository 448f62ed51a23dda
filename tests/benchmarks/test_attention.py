from __future__ import annotations

import pytest
import torch

from benchmarks.attention import Gaze, look, say
from echo.config import compose
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components

TOKENS = list(range(65, 77))


@pytest.mark.parametrize("with_voice", [True, False])
def test_what_is_looked_into_is_the_pass_that_the_model_makes(
    toy_components: Components, with_voice: bool
) -> None:
    model = toy_components.model
    latent, voice = torch.randn(1, 10, 80), torch.randn(1, 8, 80)
    gaze = look(model, latent, TOKENS, voice if with_voice else None, t=0.6, seed=4)
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(4))
    plain = model(
        0.4 * latent + 0.6 * noise,
        torch.tensor([0.6]),
        text=model.encode_text(torch.tensor([TOKENS])),
        text_mask=torch.ones(1, len(TOKENS), dtype=torch.bool),
        speaker=model.encode_speaker(voice),
        speaker_mask=torch.full((1, 8), with_voice),
    )
    torch.testing.assert_close(gaze.velocity, plain, rtol=1e-4, atol=1e-5)
    layers, heads = model.config.num_layers, model.config.num_heads
    assert gaze.text.shape == (layers, heads, 10, len(TOKENS))
    assert gaze.speaker.shape == (layers, heads, 10, 2 if with_voice else 0)
    assert gaze.itself.shape == (layers, heads, 10, 10)
    everything = torch.stack(list(gaze.shares().values())).sum(dim=0)
    torch.testing.assert_close(everything, torch.ones(layers))


def test_the_reader_is_the_head_that_goes_along_the_line() -> None:
    text = torch.rand(2, 3, 20, 10, generator=torch.Generator().manual_seed(0)) * 0.05
    places = torch.arange(20)
    text[1, 2, places, places // 2] = 0.5  # forwards, with half of its attention
    text[0, 1, places, 9 - places // 2] = 0.9  # backwards
    text[0, 2] = text[1, 2] * 0.01  # forwards, but it hardly looks
    nothing = torch.zeros(2, 3, 20, 0)
    assert Gaze(torch.zeros(1, 20, 80), nothing, text, nothing).reader() == (1, 2)


def test_the_shipped_model_reads_what_it_says_from_left_to_right() -> None:
    text = "Farmers opened bottles."
    with Engine.from_config(compose(["model=tiny", "engine.cpu_threads=1"])) as engine:
        said = say(engine, text, "clara", seed=3, planned=64, steps=8)
        gaze = look(engine.components.model, said.latent, said.tokens, said.speaker, t=0.5, seed=1)
        audio = said.audio(engine)
        one_block = {"block_sizes": [64], "num_steps": 8}
        request = SpeechRequest(text, voice="clara", seed=3, overrides=one_block)
        spoken = engine.synthesize(request)
    assert "".join(said.letters) == f"^[S1] {text}"
    assert len(audio) == len(spoken)  # the plain path ends where the engine ends
    layer, head = gaze.reader()
    eye = gaze.text[layer, head]
    where = eye.argmax(dim=-1).float()
    start = len("^[S1] ")
    assert where[2] <= start + 2
    assert where[-1] >= start + len(text) - 3
    assert (where.diff() >= 0).float().mean() > 0.8
