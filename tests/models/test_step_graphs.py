"""Whole passes as graphs: the same velocities as the plain pass, whatever the company."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from companies import COMPANIES, Recording, assert_same, requests_of, spoken_by
from echo.models.dit import EchoDiT
from echo.models.encoder_graphs import EncoderGraphs
from echo.models.passes import PlainPasses
from echo.models.step_graphs import StepGraphs
from echo.modules.attention import Offsets, attend
from echo.sampling.packing import velocities
from echo.sampling.schedule import StepTables

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def attend_row_by_row(q: Tensor, k: Tensor, v: Tensor, offsets: Offsets) -> Tensor:
    """Stands for the kernel that takes rows of any lengths; what no row has is not a number."""
    out = torch.full_like(q, float("nan"))
    ends = zip(*(each.tolist() for each in (offsets.queries, offsets.keys)), strict=True)
    begin, key = next(ends)
    for end, last_key in ends:
        if end > begin:
            row = attend(q[None, begin:end], k[None, key:last_key], v[None, key:last_key])
            out[begin:end] = row[0]
        begin, key = end, last_key
    return out


def recorded(model: EchoDiT, *, sizes: tuple[int, ...], keys: int) -> tuple[StepGraphs, Recording]:
    context_keys, recording = keys - max(sizes), Recording()
    passes = StepGraphs(PlainPasses(), sizes, context_keys, attend_row_by_row)
    passes.warm_up(model, recording)
    assert recording.recorded == len(sizes)
    return passes, recording


@torch.inference_mode()
def test_a_recorded_pass_says_what_the_plain_one_says(model: EchoDiT) -> None:
    expected = spoken_by(model, PlainPasses())
    passes, recording = recorded(model, sizes=(864, 8, 24), keys=1000)
    assert_same(spoken_by(model, passes), expected)
    assert recording.replayed == len(COMPANIES)


@torch.inference_mode()
@pytest.mark.parametrize("keys", [40, 90, 200])
def test_who_does_not_fit_goes_another_way(model: EchoDiT, keys: int) -> None:
    expected = spoken_by(model, PlainPasses())
    passes, recording = recorded(model, sizes=(48, 24), keys=keys)
    assert_same(spoken_by(model, passes), expected)
    assert 0 < recording.replayed < len(COMPANIES)


@torch.inference_mode()
def test_contexts_are_put_in_place_once_for_a_company(
    model: EchoDiT, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes, _ = recorded(model, sizes=(256,), keys=1000)
    model.passes = PlainPasses()
    company = requests_of(model, COMPANIES[3])
    alone = company[:1]
    guided_no_more = [replace(each, contexts=each.contexts[:1]) for each in company]
    tables = StepTables(model)
    elsewhere = [replace(each, rope=tables.rope(50, each.x.shape[1])) for each in company]
    turns = [company, company, alone, guided_no_more, company[::-1], company, elsewhere]
    expected = [velocities(turn) for turn in turns]
    placed: list[int] = []
    place = type(passes._buffers).place  # type: ignore[union-attr]

    def counted(buffers: object, step: object) -> None:
        placed.append(1)
        place(buffers, step)  # type: ignore[arg-type]

    monkeypatch.setattr(type(passes._buffers), "place", counted)
    model.passes = passes
    for turn, answer in zip(turns, expected, strict=True):
        assert_same(velocities(turn), answer)
    assert len(placed) == 6  # the second turn found all as it was


@torch.inference_mode()
def test_a_context_that_is_gone_is_not_taken_for_a_new_one(model: EchoDiT) -> None:
    passes, _ = recorded(model, sizes=(256,), keys=1000)
    for _ in range(3):
        requests = requests_of(model, COMPANIES[0])
        requests = [replace(each, x=each.x + torch.randn_like(each.x)) for each in requests]
        model.passes = PlainPasses()
        expected = velocities(requests)
        model.passes = passes
        assert_same(velocities(requests), expected)
        del requests


@torch.inference_mode()
def test_what_an_earlier_company_left_behind_does_not_reach_a_later_one(model: EchoDiT) -> None:
    passes, _ = recorded(model, sizes=(256,), keys=1000)
    model.passes = PlainPasses()
    request = requests_of(model, COMPANIES[0])
    expected = velocities(request)
    model.passes = passes
    wild = requests_of(model, COMPANIES[3])
    velocities([replace(each, x=each.x * float("nan")) for each in wild])
    assert_same(velocities(request), expected)


@torch.inference_mode()
def test_if_recording_fails_it_is_told_and_the_model_goes_on(
    model: EchoDiT, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    expected = spoken_by(model, PlainPasses())
    passes = StepGraphs(PlainPasses(), (48,), 100, attend_row_by_row)
    with caplog.at_level(logging.WARNING, logger="echo"):
        passes.warm_up(model, broken)
    assert caplog.text.count("without CUDA graphs") == 1
    assert not passes.recorded
    assert_same(spoken_by(model, passes), expected)


@torch.inference_mode()
@pytest.mark.parametrize("length", [1, 7, 8, 9, 24])
def test_a_recorded_text_is_the_same_text(model: EchoDiT, length: int) -> None:
    ids = torch.randint(1, 250, (1, length), generator=torch.Generator().manual_seed(length))
    expected = model.encode_text(ids)
    recording = Recording()
    model.recorded = EncoderGraphs(model, (8,), (24, 8), recording)
    model.encode_text(torch.randint(1, 250, (1, 24)))
    before = recording.replayed
    ours = model.encode_text(ids)
    assert recording.replayed == before + 1
    assert ours.length == length
    torch.testing.assert_close(ours.joined, expected.joined, rtol=1e-4, atol=1e-5)
    longer = torch.randint(1, 250, (1, 25))
    assert model.encode_text(longer).length == 25  # without a graph
    assert recording.replayed == before + 1


@torch.inference_mode()
def test_recorded_prefixes_are_the_same_and_stay_as_they_were(model: EchoDiT) -> None:
    """Blocks of 8, 12, 5 and others: the third ends within a patch."""
    blocks, recording = (8, 12, 5, 7), Recording()
    latents = torch.randn(1, 32, 80, generator=torch.Generator().manual_seed(1)).split(blocks, 1)

    def grown() -> list[Tensor]:
        state, seen = None, []
        for latent in latents:
            state, context = model.extend_prefix(state, latent)
            seen += [context.joined, state.encoder.joined, state.context.joined]
        return seen

    expected = grown()
    model.recorded = EncoderGraphs(model, blocks, (8,), recording)
    ours = grown()
    assert recording.replayed == 2  # the first two; the next ends within a patch
    model.extend_prefix(None, latents[0] * 3)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@cuda
@torch.inference_mode()
def test_on_cuda_graphs_of_whole_passes_say_what_plain_ones_say(model: EchoDiT) -> None:
    model = model.to("cuda", torch.bfloat16)
    expected = torch.cat([v.flatten() for v in spoken_by(model, PlainPasses())])
    passes = StepGraphs(PlainPasses(), (32, 160), 1000)
    passes.warm_up(model)
    assert passes.recorded
    model.recorded = EncoderGraphs(model, (8, 12, 20), (32, 96))
    ours = torch.cat([v.flatten() for v in spoken_by(model, passes)])
    assert float((ours - expected).norm() / expected.norm()) < 0.03
