"""The DiT's passes and the codec's decoder compiled and recorded, artefacts kept between starts."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echo.config.schema import CompileConfig
from echo.models.codec import DECODE_PIECE_LATENTS, S1DAC
from echo.models.codec_graphs import SIZES as CODEC_SIZES
from echo.models.codec_graphs import RecordedDecoder
from echo.models.compiled_passes import CompiledPasses, failed_to_compile, first_line
from echo.models.dit import EchoDiT
from echo.models.encoder_graphs import EncoderGraphs
from echo.models.graphs import SIZES as PIECE_SIZES
from echo.models.graphs import GraphedPasses
from echo.models.passes import Passes, PlainPasses
from echo.models.step_graphs import SIZES as STEP_SIZES
from echo.models.step_graphs import Attend, StepGraphs
from echo.modules.attention import attend_any_rows, takes_any_rows
from echo.modules.streaming import SequenceState

log = logging.getLogger(__name__)

PIECE_LATENTS = 16  # that the codec is compiled for, unrecorded: divides the blocks of the presets

Backend = str | Callable[..., Any]  # of torch.compile


class CompiledInPieces:
    """The codec's decoder, compiled for some lengths: whatever is left over runs uncompiled.

    Blocks and cut tails come in many lengths, and each would be compiled anew, for minutes.
    """

    def __init__(
        self, decoder: Callable[..., Tensor], pieces: Sequence[int], backend: Backend = "inductor"
    ) -> None:
        self.pieces = sorted(pieces, reverse=True)  # frames of the decoder's input
        self._plain = decoder
        self._proven: set[int] = set()  # pieces
        self._compiled: Callable[..., Tensor] | None = torch.compile(
            decoder, dynamic=False, backend=backend
        )

    def __call__(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        if state is None:
            return self._plain(x, state)
        parts: list[Tensor] = []
        for piece in self.pieces:
            while x.shape[-1] >= piece:
                parts.append(self._whole(x[..., :piece].contiguous(), state))
                x = x[..., piece:]
        if x.shape[-1]:
            parts.append(self._plain(x, state))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)

    def _whole(self, part: Tensor, state: SequenceState) -> Tensor:
        if self._compiled is not None:
            # What fails half way through may have advanced some of the state.
            proven = part.shape[-1] in self._proven
            trial = state if proven else state.clone()
            try:
                audio = self._compiled(part, trial)
            except Exception as error:
                if not failed_to_compile(error, proven):
                    raise
                log.warning("the codec runs uncompiled, compiling failed: %s", first_line(error))
                self._compiled = None
            else:
                self._proven.add(part.shape[-1])
                state.states = trial.states
                return audio
        return self._plain(part, state)


def compile_components(models: Sequence[EchoDiT], codec: S1DAC, config: CompileConfig) -> bool:
    """Set up in place what ``config`` asks for. None means: on CUDA the codec is compiled, and
    passes, texts, prefixes and the codec are recorded.

    Returns whether anything was. :func:`warm_up_passes` and :func:`warm_up_codec` then do the work.
    """
    # With a LoRA for the first block there are two models; the second one holds it.
    compiled = models[1:] if config.lora_only and len(models) > 1 else models
    model_on_cuda, codec_on_cuda = (each.device.type == "cuda" for each in (models[0], codec))
    compile_codec = codec_on_cuda if config.codec is None else config.codec
    asked = config.cuda_graphs
    record_model, record_codec = (
        on_cuda and asked is not False for on_cuda in (model_on_cuda, codec_on_cuda)
    )
    if asked and not (record_model or record_codec):
        log.warning("compile.cuda_graphs has no effect on %s", models[0].device)
    for model in models:
        if config.model and model in compiled:
            model.passes = CompiledPasses()
        if record_model:
            model.passes = recorded_passes(model, config)
    if compile_codec:
        # The decoder's convolutions are nearly all of its time and have tensors for state.
        # Recorded, short pieces are bound by the transformer before the decoder.
        longer = {DECODE_PIECE_LATENTS, config.codec_graph_latents}
        _compile_decoder(codec, longer if record_codec else {PIECE_LATENTS})
    if record_codec:
        codec.streams = recorded_decoder(codec, config)
    if config.model or compile_codec:
        load_artifacts(config)
    return bool(config.model or record_model or compile_codec or record_codec)


def recorded_passes(model: EchoDiT, config: CompileConfig) -> StepGraphs | GraphedPasses:
    """What is to be recorded of its passes; their warm-up does that."""
    if takes_any_rows(model.device, model.dtype):
        return step_graphs(model.passes, config)
    return piecewise_graphs(model.passes, config)


def step_graphs(
    others: Passes, config: CompileConfig, attend: Attend = attend_any_rows
) -> StepGraphs:
    """Of whole passes."""
    sizes = [size for size in STEP_SIZES if size <= config.graph_latents]
    return StepGraphs(others, sizes, attend=attend)


def piecewise_graphs(others: Passes, config: CompileConfig) -> GraphedPasses:
    """Where attention cannot be recorded."""
    return GraphedPasses(others, [size for size in PIECE_SIZES if size <= config.graph_latents])


def recorded_decoder(codec: S1DAC, config: CompileConfig) -> RecordedDecoder:
    """What is to be recorded; its warm-up does that."""
    return RecordedDecoder(codec, (*CODEC_SIZES, config.codec_graph_latents))


def _compile_decoder(codec: S1DAC, latents: Collection[int]) -> None:
    frames = math.prod(codec.config.downsample)  # of the decoder's input, for each latent
    compiled = CompiledInPieces(codec.decoder.forward, [frames * each for each in latents])
    codec.decoder.forward = compiled  # type: ignore[method-assign]


@torch.inference_mode()
def warm_up_passes(models: Sequence[EchoDiT], config: CompileConfig, blocks: Sequence[int]) -> None:
    """Compile and record what :func:`compile_components` set up; takes seconds to minutes.

    ``blocks``: latents of the blocks of a usual stream. Prefixes are the first model's.
    """
    for model in models:
        if isinstance(model.passes, PlainPasses):
            continue
        log.info("preparing the model's passes; this takes seconds to minutes")
        begun = time.perf_counter()
        model.passes.warm_up(model)
        if isinstance(model.passes, StepGraphs | GraphedPasses) and model.passes.recorded:
            own = blocks if model is models[0] else ()
            model.recorded = EncoderGraphs.or_none(model, own, config.graph_latents)
        log.info("the model's passes are ready, after %.1f s", time.perf_counter() - begun)


@torch.inference_mode()
def warm_up_codec(codec: S1DAC) -> None:
    """Compile and record the decoder if that was set up; takes seconds to minutes."""
    compiled, streams = codec.decoder.forward, codec.streams
    if streams is None and not isinstance(compiled, CompiledInPieces):
        return
    log.info("preparing the codec; this takes seconds to minutes")
    begun = time.perf_counter()
    if isinstance(compiled, CompiledInPieces):
        for frames in compiled.pieces:
            latents = frames // math.prod(codec.config.downsample)
            zeros = torch.zeros(1, codec.config.latent_dim, latents, device=codec.device)
            state = codec.init_parts()
            for _ in range(2):  # from a stream's first state, and from what that became
                codec.decode(zeros, state)
    if streams is not None:
        streams.warm_up()
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
