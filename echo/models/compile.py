"""torch.compile of the DiT's pass and the codec's decoder, with artefacts kept between starts."""

from __future__ import annotations

import logging
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from echo.config.schema import CompileConfig
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT
from echo.modules.streaming import SequenceState

log = logging.getLogger(__name__)

PIECE_LATENTS = 16  # length the codec is compiled for: divides the blocks of the presets


class CompiledOrPlain:
    """A compiled function that goes on uncompiled, and says so once, if compiling fails."""

    def __init__(self, function: Callable[..., Any], name: str, *, dynamic: bool) -> None:
        self._plain = function
        self._name = name
        self._compiled: Callable[..., Any] | None = torch.compile(function, dynamic=dynamic)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._compiled is not None:
            try:
                return self._compiled(*args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                first = str(error).strip().splitlines()[0]
                log.warning("%s runs uncompiled, compiling failed: %s", self._name, first)
                self._compiled = None
        return self._plain(*args, **kwargs)


class CompiledInPieces:
    """The codec's decoder, compiled for one length: whatever is left over runs uncompiled.

    Blocks and cut tails come in many lengths, and each would be compiled anew, for minutes.
    """

    def __init__(self, decoder: Callable[..., Tensor], piece: int) -> None:
        self._plain = decoder
        self._compiled = CompiledOrPlain(decoder, "the codec", dynamic=False)
        self._piece = piece

    def __call__(self, x: Tensor, state: SequenceState | None = None) -> Tensor:
        if state is None:
            return self._plain(x, state)
        whole = x.shape[-1] // self._piece * self._piece
        parts = [
            self._compiled(part.contiguous(), state)
            for part in x[..., :whole].split(self._piece, dim=-1)
            if part.shape[-1]
        ]
        if whole < x.shape[-1]:
            parts.append(self._plain(x[..., whole:], state))
        return torch.cat(parts, dim=-1)


def compile_components(models: Sequence[EchoDiT], codec: S1DAC, config: CompileConfig) -> bool:
    """Compile in place what ``config`` asks for; None means: the codec, where it is on CUDA.

    Returns whether anything was.
    """
    compiled = False
    if config.model:
        # With a LoRA for the first block there are two models; the second one holds it.
        chosen = models[1:] if config.lora_only and len(models) > 1 else models
        for model in chosen:
            model.velocity_packed = CompiledOrPlain(  # type: ignore[method-assign]
                model.velocity_packed, "the model", dynamic=True
            )
        compiled = True
    if config.codec or (config.codec is None and codec.device.type == "cuda"):
        # The decoder's convolutions are nearly all of its time and have tensors for state.
        piece = PIECE_LATENTS * math.prod(codec.config.downsample)
        codec.decoder.forward = CompiledInPieces(codec.decoder.forward, piece)  # type: ignore[method-assign]
        compiled = True
    if compiled:
        load_artifacts(config)
    return compiled


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
    if artifacts is None:
        return
    path = artifacts_path(config)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(artifacts[0])
    partial.replace(path)
    log.info("compiled artefacts saved to %s", path)
