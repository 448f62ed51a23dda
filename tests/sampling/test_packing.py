"""Steps in company give what they give alone."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import parity
from echo.models.dit import EchoDiT
from echo.modules.attention import Packing
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.packing import StepRequest, pack, velocities
from echo.sampling.schedule import StepTables
from golden import golden_dit


@dataclass
class Case:
    """A generation of one block, at a place of its own."""

    text: int
    voice: int  # latents; 0: none
    start: int
    size: int
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)


CASES = [
    Case(text=5, voice=12, start=0, size=4, steps=3),
    Case(text=60, voice=0, start=0, size=9, steps=5),
    Case(text=17, voice=40, start=6, size=5, steps=4, settings={"speaker_kv_scale": 1.4}),
    Case(text=17, voice=12, start=8, size=9, steps=2),
    Case(
        text=31,
        voice=24,
        start=3,
        size=16,
        steps=6,
        settings={"rescale_k": 1.2, "rescale_sigma": 3.0, "cfg_min_t": 0.2},
    ),
    Case(
        text=8,
        voice=24,
        start=0,
        size=7,
        steps=5,
        settings={"speaker_kv_scale": 1.5, "speaker_kv_min_t": 0.6, "speaker_kv_max_layers": 1},
    ),
]


def begin(case: Case, model: EchoDiT, seed: int) -> Generator[StepRequest, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, 250, (1, case.text), generator=generator)
    voice = torch.randn((1, case.voice, 80), generator=generator)
    conditions = Conditions(
        model.encode_text(ids), model.encode_speaker(voice) if case.voice else None
    )
    if case.start:
        _, prefix = model.extend_prefix(None, torch.randn((1, case.start, 80), generator=generator))
        conditions = replace(conditions, prefix=prefix, start=case.start)
    return sample_block(
        model,
        StepTables(model),
        conditions,
        draw_noise(generator, case.size, 80, None),
        BlockShape(case.size, case.steps, 0.999, None),
        replace(parity.DEFAULTS, **case.settings),
    )


def together(cases: list[Case]) -> list[Tensor]:
    """All of ``cases`` in lock step, each as long as it lasts."""
    runs = [begin(case, golden_dit(), seed) for seed, case in enumerate(cases)]
    asked: dict[int, StepRequest] = {i: run.send(None) for i, run in enumerate(runs)}  # type: ignore[arg-type]
    done: dict[int, Tensor] = {}
    while asked:
        answers = velocities(list(asked.values()))
        for i, answer in zip(list(asked), answers, strict=True):
            try:
                asked[i] = runs[i].send(answer)
            except StopIteration as end:
                done[i] = end.value
                del asked[i]
    return [done[i] for i in range(len(cases))]


def test_a_block_in_company_is_the_block_alone() -> None:
    alone = [parity.exhaust(begin(case, golden_dit(), i)) for i, case in enumerate(CASES)]
    for ours, expected in zip(together(CASES), alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_company_of_the_same_shape_shares_an_attention_call() -> None:
    same = [replace(CASES[0]), replace(CASES[0])]
    requests = [begin(case, golden_dit(), i).send(None) for i, case in enumerate(same)]  # type: ignore[arg-type]
    step, order = pack(requests)
    assert step.packing.groups() == [(2, 4, 7), (2, 4, 9), (2, 4, 12)]
    assert sorted(order) == [(i, j) for i in range(2) for j in range(3)]
    alone = [velocities([request])[0] for request in requests]
    for ours, expected in zip(velocities(requests), alone, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def test_rows_of_one_shape_that_are_no_neighbours_are_groups_of_their_own() -> None:
    assert Packing((2, 3, 2), (5, 5, 5)).groups() == [(1, 2, 5), (1, 3, 5), (1, 2, 5)]


def test_nothing_of_a_shared_voice_is_copied_into_the_contexts() -> None:
    request = begin(CASES[0], golden_dit(), 0).send(None)  # type: ignore[arg-type]
    full, no_text, no_speaker = request.contexts
    text, speaker = full.layers[0][0]
    assert no_text.layers[0][0][0].data_ptr() == speaker.data_ptr()
    assert no_speaker.layers[0][0][0].data_ptr() == text.data_ptr()
    assert (full.keys, no_text.keys, no_speaker.keys) == (8, 3, 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_company_changes_half_precision_by_no_more_than_its_rounding(dtype: torch.dtype) -> None:
    model = EchoDiT(golden_dit().config)
    model.load_state_dict(golden_dit().state_dict())
    model = model.to(dtype).requires_grad_(False)
    requests = [begin(case, model, i).send(None) for i, case in enumerate(CASES)]  # type: ignore[arg-type]
    exact = [begin(case, golden_dit(), i).send(None) for i, case in enumerate(CASES)]  # type: ignore[arg-type]
    truth = [velocities([request])[0] for request in exact]
    solo = [velocities([request])[0] for request in requests]
    for ours, alone, true in zip(velocities(requests), solo, truth, strict=True):
        assert (ours - true).abs().max() <= 1.5 * (alone - true).abs().max() + 1e-3


def test_tables_keep_the_last_schedules_only() -> None:
    tables = StepTables(golden_dit(), max_steps=10)
    first = tables.get(6, 0.999)
    assert tables.get(6, 0.999) is first
    tables.get(4, 0.999)
    assert tables.get(6, 0.999) is first
    tables.get(8, 0.999)
    assert tables.get(6, 0.999) is not first


def test_angles_are_cut_from_one_table() -> None:
    model = golden_dit()
    tables = StepTables(model)
    some, more = tables.rope(0, 8), tables.rope(700, 20)
    expected = model.rope(torch.arange(700, 720))
    torch.testing.assert_close(more.cos, expected.cos)
    torch.testing.assert_close(more.sin, expected.sin)
    assert tables.rope(4, 4).cos.data_ptr() == tables.rope(0, 8).cos[4:].data_ptr()
    assert some.cos.shape == (8, expected.cos.shape[1])
