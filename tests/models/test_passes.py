"""Compiled, recorded or as written: a pass gives the same velocities, whatever its company."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from companies import COMPANIES, Recording, assert_same, requests_of, spoken_by
from echo.models.codec import StreamingSequential
from echo.models.compile import CompiledInPieces, stop_watching, watch_recompiles, write_artifacts
from echo.models.compiled_passes import CompiledPasses, blank_step
from echo.models.dit import EchoDiT
from echo.models.graphs import GraphedPasses
from echo.models.load import load_dit
from echo.models.passes import Pieces, PlainPasses, between, enter, leave
from echo.models.recorder import CudaRecorder
from echo.models.step_buffers import MOST_TIMES
from echo.modules.attention import Packing, attend_packed, attend_with_contexts
from echo.modules.linear import FEW_ROWS, MIN_ROWS
from echo.modules.streaming import SequenceState
from echo.sampling.packing import pack, velocities
from fakes import compilations
from golden import golden_codec

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@torch.inference_mode()
def warmed(passes: CompiledPasses, model: EchoDiT) -> CompiledPasses:
    passes.warm_up(model)
    return passes


def test_after_the_warm_up_no_company_makes_anything_compile(model: EchoDiT) -> None:
    torch._dynamo.reset()
    expected = spoken_by(model, PlainPasses())
    with compilations() as at_first:
        passes = warmed(CompiledPasses(backend="eager"), model)
    assert len(at_first) == 3  # one for each piece, whatever the number of layers
    with compilations() as later:
        assert_same(spoken_by(model, passes), expected)
    assert later == []


@pytest.mark.parametrize("quantize", [None, "int8"])
@torch.inference_mode()
def test_nor_does_any_number_of_latents(toy_folder: Path, quantize: str | None) -> None:
    """On each side of where a product with few rows is taken another way."""
    torch._dynamo.reset()
    settings: dict[str, Any] = {"dtype": torch.bfloat16, "quantize": quantize, "fuse": True}
    model = load_dit(str(toy_folder), device="cpu", weights="random", **settings)
    passes = warmed(CompiledPasses(backend="eager"), model)
    assert passes.compiled
    with compilations() as later:
        for latents in (2, MIN_ROWS - 1, MIN_ROWS, FEW_ROWS - 1, FEW_ROWS, FEW_ROWS + 40):
            step = blank_step(model, latents=latents, times=1)
            plain, compiled = (p.begin(model, step).enter()[0] for p in (PlainPasses(), passes))
            torch.testing.assert_close(compiled, plain)
    assert later == []


def test_a_compilation_after_the_warm_up_is_told(caplog: pytest.LogCaptureFixture) -> None:
    watching = watch_recompiles()
    try:
        with caplog.at_level(logging.WARNING, logger="echo"):
            torch.compile(lambda x: x + 1, backend="eager")(torch.ones(3))
    finally:
        stop_watching(watching)
    assert "although the warm-up is over" in caplog.text
    caplog.clear()
    torch.compile(lambda x: x + 2, backend="eager")(torch.ones(3))
    stop_watching(watching)  # as after a reset by somebody else
    assert "although the warm-up is over" not in caplog.text


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_compiled_passes_say_what_plain_ones_say(model: EchoDiT) -> None:
    torch._dynamo.reset()
    expected = spoken_by(model, PlainPasses())
    passes = warmed(CompiledPasses(), model)
    assert passes.compiled
    assert_same(spoken_by(model, passes), expected)


def test_if_compiling_fails_it_is_told_once_and_the_model_goes_on(
    model: EchoDiT, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> Callable[..., object]:
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    expected = spoken_by(model, PlainPasses())
    with caplog.at_level(logging.WARNING, logger="echo"):
        passes = warmed(CompiledPasses(backend=broken), model)
        assert_same(spoken_by(model, passes), expected)
    assert caplog.text.count("runs uncompiled") == 1
    assert not passes.compiled


def failing_at(call: int) -> Callable[..., Any]:
    """A backend whose code raises at its ``call``-th run, from 1 on, as a kernel's launch may."""
    runs: list[int] = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        def run(*args: Any) -> Any:
            runs.append(1)
            if len(runs) == call:
                raise subprocess.CalledProcessError(1, ["gcc"])
            return graph(*args)

        return run

    return backend


def test_what_fails_only_at_its_first_run_failed_to_compile_too(
    model: EchoDiT, caplog: pytest.LogCaptureFixture
) -> None:
    torch._dynamo.reset()
    expected = spoken_by(model, PlainPasses())
    with caplog.at_level(logging.WARNING, logger="echo"):
        passes = warmed(CompiledPasses(backend=failing_at(1)), model)
        assert_same(spoken_by(model, passes), expected)
    assert caplog.text.count("runs uncompiled") == 1
    assert "CalledProcessError" in caplog.text
    assert not passes.compiled


@torch.inference_mode()
def test_what_fails_later_on_is_no_matter_of_compiling(model: EchoDiT) -> None:
    torch._dynamo.reset()
    passes = CompiledPasses(backend=failing_at(2))
    step = blank_step(model, latents=40, times=3)
    passes.begin(model, step).enter()
    with pytest.raises(subprocess.CalledProcessError):
        passes.begin(model, step).enter()
    assert passes.compiled


@pytest.mark.parametrize("call", [1, 2])
@torch.inference_mode()
def test_a_codec_that_fails_at_its_first_run_goes_on_from_where_it_was(call: int) -> None:
    """At 2 the decoder is cut in two, and the first half has gone on already."""

    codec = golden_codec()
    first, *others = codec.decoder.model
    rest = StreamingSequential(*others)

    def cut(x: Tensor, state: SequenceState) -> Tensor:
        y = first(x, state.states[0])
        if call == 2:
            torch._dynamo.graph_break()
        return rest(y, SequenceState(state.states[1:]))

    torch._dynamo.reset()
    like = torch.zeros(1)
    state, plain = (codec.decoder.init_state(1, like) for _ in range(2))
    x = torch.randn(1, codec.config.latent_dim, 12, generator=torch.Generator().manual_seed(0))
    compiled = CompiledInPieces(cut, [4], backend=failing_at(call))
    ours = torch.cat([compiled(part, state) for part in x.split(4, dim=-1)], dim=-1)
    torch.testing.assert_close(ours, codec.decoder(x, plain))


def test_artefacts_that_cannot_be_kept_stop_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING, logger="echo"):
        write_artifacts(tmp_path / "file" / "artefacts.bin", b"code")
    assert "could not be kept" in caplog.text


def test_artefacts_are_whole_whoever_else_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "new" / "artefacts.bin"
    contents = [bytes([i]) * 1_000_000 for i in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: write_artifacts(path, content), contents))
    assert path.read_bytes() in contents
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@torch.inference_mode()
def test_recorded_passes_say_what_plain_ones_say(model: EchoDiT) -> None:
    expected = spoken_by(model, PlainPasses())
    passes, recording = GraphedPasses(PlainPasses(), sizes=(64, 8, 24)), Recording()
    passes.warm_up(model, recording)
    layers = len(model.blocks)
    assert recording.recorded == 3 * (layers + 1)
    assert_same(spoken_by(model, passes), expected)
    fitting = [c for c in COMPANIES if sum(n * (3 if g else 1) for n, _, _, _, g in c) <= 64]
    assert len(fitting) < len(COMPANIES)  # one had to go another way
    assert recording.replayed == len(fitting) * (layers + 1)


@torch.inference_mode()
def test_what_an_earlier_pass_left_behind_does_not_reach_a_later_one(model: EchoDiT) -> None:
    passes = GraphedPasses(PlainPasses(), sizes=(64,))
    passes.warm_up(model, Recording())
    model.passes = PlainPasses()
    request = requests_of(model, [COMPANIES[0][0]])
    expected = velocities(request)
    model.passes = passes
    wild = requests_of(model, [(20, 5, 12, 0, True)])
    velocities([replace(wild[0], x=wild[0].x * 1e6)])
    assert_same(velocities(request), expected)


@torch.inference_mode()
def test_more_times_than_there_is_room_for_go_another_way(model: EchoDiT) -> None:
    passes, recording = GraphedPasses(PlainPasses(), sizes=(512,)), Recording()
    passes.warm_up(model, recording)
    model.passes = passes
    many = requests_of(model, [(1, 4, 0, 0, False)] * (MOST_TIMES + 1))
    assert len(velocities(many)) == MOST_TIMES + 1
    assert recording.replayed == 0


@torch.inference_mode()
def test_if_recording_fails_it_is_told_and_the_model_goes_on(
    model: EchoDiT, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    expected = spoken_by(model, PlainPasses())
    passes = GraphedPasses(PlainPasses())
    with caplog.at_level(logging.WARNING, logger="echo"):
        passes.warm_up(model, broken)
    assert caplog.text.count("without CUDA graphs") == 1
    assert_same(spoken_by(model, passes), expected)


@torch.inference_mode()
def test_also_if_there_is_no_memory_for_the_buffers(
    model: EchoDiT, caplog: pytest.LogCaptureFixture
) -> None:
    expected = spoken_by(model, PlainPasses())
    passes = GraphedPasses(PlainPasses(), sizes=(8, 2**42))
    with caplog.at_level(logging.WARNING, logger="echo"):
        passes.warm_up(model, Recording())
    assert "without CUDA graphs" in caplog.text
    assert not passes.recorded
    assert_same(spoken_by(model, passes), expected)


@torch.inference_mode()
def test_the_largest_graph_is_recorded_first(model: EchoDiT) -> None:
    """Else each larger one would take memory anew."""
    sizes: list[int] = []

    def noted(model: EchoDiT, x: Tensor, *more: Any) -> Any:
        sizes.append(len(x))
        return enter(model, x, *more)

    passes = GraphedPasses(PlainPasses(Pieces(noted, between, leave)), sizes=(8, 64, 24))
    passes.warm_up(model, Recording())
    assert sizes == [64, 24, 8]


def test_pieces_can_be_replaced_one_by_one(model: EchoDiT) -> None:
    calls = []

    def counted(*args: object) -> object:
        calls.append(args)
        return between(*args)  # type: ignore[arg-type]

    expected = spoken_by(model, PlainPasses())
    assert_same(spoken_by(model, PlainPasses(Pieces(enter, counted, leave))), expected)  # type: ignore[arg-type]
    assert len(calls) == len(COMPANIES) * (len(model.blocks) - 1)


@torch.inference_mode()
def test_offsets_mark_every_row(model: EchoDiT) -> None:
    step, _ = pack(requests_of(model, COMPANIES[3]))
    offsets = step.packing.offsets(torch.device("cpu"))
    assert offsets.queries.dtype == offsets.keys.dtype == torch.int32
    assert offsets.queries.diff().tolist() == list(step.packing.queries)
    assert offsets.keys.diff().tolist() == list(step.packing.keys)
    assert offsets.longest_query == max(step.packing.queries)
    assert offsets.longest_keys == max(step.packing.keys)


@cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_on_cuda_compiled_and_recorded_passes_say_what_plain_ones_say(
    model: EchoDiT, dtype: torch.dtype
) -> None:
    model = model.to("cuda", dtype)
    expected = spoken_by(model, PlainPasses())
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    compiled = warmed(CompiledPasses(), model)
    assert compiled.compiled
    assert_same(spoken_by(model, compiled), expected, tolerance)
    for others in (PlainPasses(), compiled):
        graphed = GraphedPasses(others, sizes=(8, 24, 64))
        graphed.warm_up(model, CudaRecorder(model.device))
        assert graphed.recorded
        assert_same(spoken_by(model, graphed), expected, tolerance)


@cuda
@torch.inference_mode()
def test_on_cuda_the_same_holds_for_weights_in_eight_bits(toy_folder: Path) -> None:
    """But for what is rounded to another of the 256 steps."""
    settings: dict[str, Any] = {"dtype": torch.bfloat16, "quantize": "int8", "fuse": True}
    model = load_dit(str(toy_folder), device=torch.device("cuda", 0), **settings)
    expected = torch.cat([v.flatten() for v in spoken_by(model, PlainPasses())])
    compiled = warmed(CompiledPasses(), model)
    assert compiled.compiled
    graphed = [GraphedPasses(others, sizes=(8, 24, 64)) for others in (PlainPasses(), compiled)]
    for passes in graphed:
        passes.warm_up(model, CudaRecorder(model.device))
        assert passes.recorded
    for passes in (compiled, *graphed):
        ours = torch.cat([v.flatten() for v in spoken_by(model, passes)])
        assert float((ours - expected).norm() / expected.norm()) < 0.05


@cuda
@torch.inference_mode()
def test_on_cuda_one_call_attends_to_rows_of_any_lengths() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    packing = Packing((5, 5, 17, 1), (9, 30, 40, 3))
    shapes = sum(packing.queries), sum(packing.keys), sum(packing.keys)
    q, k, v = (
        torch.randn((n, 4, 64), generator=generator, device="cuda").bfloat16() for n in shapes
    )
    ours = attend_packed(q, k, v, packing, packing.offsets(q.device))
    torch.testing.assert_close(ours, attend_packed(q, k, v, packing), rtol=2e-2, atol=2e-2)


def test_attention_joins_own_keys_and_context() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn((3, 2, 8), generator=generator) for _ in range(3))
    more = tuple(torch.randn((4, 2, 8), generator=generator) for _ in range(2))
    ours = attend_with_contexts(q, k, v, [((more[0],), (more[1],))], Packing((3,), (7,)))
    expected = attend_packed(
        q, torch.cat((k, more[0])), torch.cat((v, more[1])), Packing((3,), (7,))
    )
    torch.testing.assert_close(ours, expected)
