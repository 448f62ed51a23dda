"""The engine's block sampler against the plain path, beyond the golden runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

import parity
from echo import inference
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.packing import velocities
from echo.sampling.schedule import StepTables
from golden import golden_dit

TEXT = "[S1] A text for the sampler, of some length."


def speaker(length: int = 12) -> torch.Tensor:
    return torch.randn((1, length, 80), generator=torch.Generator().manual_seed(5))


def plain(
    blocks: list[int], steps: list[int], *, voice: bool = True, **settings: Any
) -> torch.Tensor:
    model = golden_dit()
    ids, mask = inference.get_text_input_ids_and_mask([TEXT], 768, pad_to_max=True)  # type: ignore[misc]
    latent = speaker() if voice else torch.zeros(1, 4, 80)
    speaker_mask = torch.full(latent.shape[:2], voice)
    return inference.sample_blockwise_euler_cfg_independent_guidances(
        model, latent, speaker_mask, ids, mask, 3, blocks, steps, **settings
    )


def fast(
    blocks: list[int], steps: list[int], *, voice: bool = True, **settings: Any
) -> torch.Tensor:
    model = golden_dit()
    ids, _ = inference.get_text_input_ids_and_mask([TEXT], 768, pad_to_max=False)  # type: ignore[misc]
    truncation = settings.pop("truncation_factor", None)
    sampler = replace(parity.DEFAULTS, **settings)
    conditions = Conditions(
        model.encode_text(ids), model.encode_speaker(speaker()) if voice else None
    )
    generator, tables = torch.Generator().manual_seed(3), StepTables(model)
    done, state = [], None
    for size, count in zip(blocks, steps, strict=True):
        shape = BlockShape(size, count, 0.999, truncation)
        noise = draw_noise(generator, size, 80, truncation)
        if done:
            state, prefix = model.extend_prefix(state, done[-1])
            conditions = replace(conditions, prefix=prefix, start=state.latents)
        done.append(parity.exhaust(sample_block(model, tables, conditions, noise, shape, sampler)))
    return torch.cat(done, dim=1)


@pytest.mark.parametrize(
    ("blocks", "steps", "settings"),
    [
        ([16], [6], {}),
        ([5, 9, 3], [4, 5, 6], {}),
        ([8, 8], [4, 4], {"voice": False}),
        ([8, 8], [4, 4], {"cfg_min_t": 0.0, "cfg_scale_text": 1.5}),
        ([8, 8], [4, 4], {"truncation_factor": 0.7, "rescale_k": 1.2, "rescale_sigma": 3.0}),
        ([8, 8], [5, 5], {"speaker_kv_scale": 1.4, "speaker_kv_min_t": 0.5}),
        ([8], [5], {"speaker_kv_scale": 1.4, "speaker_kv_max_layers": 1}),
        ([8], [5], {"speaker_kv_scale": 1.4, "voice": False}),
    ],
)
def test_it_says_what_the_plain_path_says(
    blocks: list[int], steps: list[int], settings: dict[str, Any]
) -> None:
    torch.testing.assert_close(
        fast(blocks, steps, **settings), plain(blocks, steps, **settings), rtol=1e-3, atol=1e-3
    )


def test_forcing_the_speaker_changes_the_result() -> None:
    assert not torch.allclose(fast([8], [4]), fast([8], [4], speaker_kv_scale=1.5), atol=1e-2)


def test_one_step_of_work_is_done_per_turn() -> None:
    model = golden_dit()
    ids, _ = inference.get_text_input_ids_and_mask([TEXT], 768, pad_to_max=False)  # type: ignore[misc]
    noise = draw_noise(torch.Generator().manual_seed(0), 8, 80, None)
    steps = sample_block(
        model,
        StepTables(model),
        Conditions(model.encode_text(ids), None),
        noise,
        BlockShape(8, 7, 0.999, None),
        parity.DEFAULTS,
    )
    asked = [steps.send(None)]
    for _ in range(6):
        asked.append(steps.send(velocities(asked[-1:])[0]))
    with pytest.raises(StopIteration):
        steps.send(velocities(asked[-1:])[0])
    assert [len(request.contexts) for request in asked] == [2, 2, 2, 2, 1, 1, 1]
