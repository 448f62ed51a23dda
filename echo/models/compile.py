"""torch.compile of the DiT's passes and the codec's decoder, with artefacts kept between starts."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echo.config.schema import CompileConfig
from echo.models.codec import S1DAC
from echo.models.compiled_passes import CompiledPasses, failed_to_compile, first_line
from echo.models.dit import EchoDiT
from echo.models.encoder_graphs import EncoderGraphs
from echo.models.graphs import GraphedPasses
from echo.models.passes import PlainPasses
from echo.models.step_graphs import StepGraphs
from echo.modules.attention import takes_any_rows
from echo.modules.streaming import SequenceState

log = logging.getLogger(__name__)

PIECE_LATENTS = 16  # length the codec is compiled for: divides the blocks of the presets

Backend = str | Callable[..., Any]  # of torch.compile


class CompiledInPieces:
    """The codec's decoder, compiled for one length: whatever is left over runs uncompiled.

    Blocks and cut tails come in many lengths, and each would be compiled anew, for minutes.
    """

    def __init__(
        self, decoder: Callable[..., Tensor], piece: int, backend: Backend = "inductor"
    ) -> None:
        self._plain = decoder
        self._proven = False
        self._compiled: Callable[..., Tensor] | None = torch.compile(
            decoder, dynamic=False, backend=backend
        )
        self._piece = piece

    def __call__(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        if state is None:
            return self._plain(x, state)
        whole = x.shape[-1] // self._piece * self._piece
        parts = [
            self._whole(part.contiguous(), state)
            for part in x[..., :whole].split(self._piece, dim=-1)
            if part.shape[-1]
        ]
        if whole < x.shape[-1]:
            parts.append(self._plain(x[..., whole:], state))
        return torch.cat(parts, dim=-1)

    def _whole(self, part: Tensor, state: SequenceState) -> Tensor:
        if self._compiled is not None:
            # What fails half way through may have advanced some of the state.
            trial = state if self._proven else state.clone()
            try:
                audio = self._compiled(part, trial)
            except Exception as error:
                if not failed_to_compile(error, self._proven):
                    raise
                log.warning("the codec runs uncompiled, compiling failed: %s", first_line(error))
                self._compiled = None
            else:
                self._proven, state.states = True, trial.states
                return audio
        return self._plain(part, state)


def compile_components(models: Sequence[EchoDiT], codec: S1DAC, config: CompileConfig) -> bool:
    """Set up in place what ``config`` asks for; None means: the codec, where it is on CUDA.

    Returns whether anything was. :func:`warm_up_passes` and :func:`warm_up_codec` then do the work.
    """
    # With a LoRA for the first block there are two models; the second one holds it.
    chosen = models[1:] if config.lora_only and len(models) > 1 else models
    on_cuda = chosen[0].device.type == "cuda"
    graphs = on_cuda and (config.model if config.cuda_graphs is None else config.cuda_graphs)
    if config.cuda_graphs and not on_cuda:
        log.warning("compile.cuda_graphs has no effect on %s", chosen[0].device)
    for model in chosen:
        if config.model:
            model.passes = CompiledPasses()
        if graphs:
            whole = takes_any_rows(model.device, model.dtype)
            model.passes = (StepGraphs if whole else GraphedPasses)(model.passes)
    compile_codec = config.codec or (config.codec is None and codec.device.type == "cuda")
    if compile_codec:
        # The decoder's convolutions are nearly all of its time and have tensors for state.
        piece = PIECE_LATENTS * math.prod(codec.config.downsample)
        codec.decoder.forward = CompiledInPieces(codec.decoder.forward, piece)  # type: ignore[method-assign]
    if config.model or compile_codec:
        load_artifacts(config)
    return bool(config.model or graphs or compile_codec)


@torch.inference_mode()
def warm_up_passes(models: Sequence[EchoDiT], blocks: Sequence[int]) -> None:
    """Compile and record what :func:`compile_components` set up; takes seconds to minutes.

    ``blocks``: latents of the blocks of a usual stream.
    """
    for model in models:
        if isinstance(model.passes, PlainPasses):
            continue
        log.info("preparing the model's passes; this takes seconds to minutes")
        begun = time.perf_counter()
        model.passes.warm_up(model)
        if isinstance(model.passes, StepGraphs | GraphedPasses) and model.passes.recorded:
            model.recorded = EncoderGraphs.or_none(model, blocks)
        log.info("the model's passes are ready, after %.1f s", time.perf_counter() - begun)


@torch.inference_mode()
def warm_up_codec(codec: S1DAC) -> None:
    """Compile the decoder if that was set up; takes seconds to minutes."""
    if not isinstance(codec.decoder.forward, CompiledInPieces):
        return
    begun = time.perf_counter()
    state = codec.init_state()
    zeros = torch.zeros(1, codec.config.latent_dim, PIECE_LATENTS, device=codec.device)
    for _ in range(2):  # from a stream's first state, and from what that became
        codec.decode(zeros, state)
    log.info("the codec is ready, after %.1f s", time.perf_counter() - begun)


def watch_recompiles() -> Callable[..., None]:
    """Log a warning whenever something is compiled from now on, as a listener waits for it.

    Returns what was registered with the compiler.
    """

    def warn(*args: object) -> None:
        log.warning("something is being compiled although the warm-up is over; please report it")

    return torch._dynamo.callback.callback_handler.register_start_callback(warn)


def stop_watching(registered: Callable[..., None]) -> None:
    """Undo :func:`watch_recompiles`, unless a reset of the compiler has done so."""
    with suppress(ValueError):
        torch._dynamo.callback.callback_handler.remove_start_callback(registered)


def artifacts_path(config: CompileConfig) -> Path:
    """Where compiled artefacts are kept, by version of the cache and of torch."""
    folder = Path(config.cache_dir or tempfile.gettempdir())
    return folder / f"echo-compile-{config.cache_version}-torch-{torch.__version__}.bin"


def load_artifacts(config: CompileConfig) -> None:
    """Bring back what an earlier start has compiled, if anything.

    Artefacts are code: in a folder that others can write to, only this user's own are taken.
    """
    path = artifacts_path(config)
    if path.is_file():
        if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
            log.warning("%s belongs to another user; compiling anew", path)
            return
        torch.compiler.load_cache_artifacts(path.read_bytes())
        log.info("compiled artefacts loaded from %s", path)


def save_artifacts(config: CompileConfig) -> None:
    """Keep what was compiled so far for the next start; nothing compiled: nothing written."""
    artifacts = torch.compiler.save_cache_artifacts()
    if artifacts is not None:
        write_artifacts(artifacts_path(config), artifacts[0])


def write_artifacts(path: Path, content: bytes) -> None:
    """Without them the next start compiles again: no reason not to serve."""
    try:
        _write_whole(path, content)
    except OSError as error:
        log.warning("compiled artefacts could not be kept: %s", error)
    else:
        log.info("compiled artefacts saved to %s", path)


def _write_whole(path: Path, content: bytes) -> None:
    """All of it or nothing, however many processes write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem}-", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
