"""From trained networks to the files that the service loads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from echo.errors import CheckpointError
from echo.models.codec import S1DAC
from echo.models.dit import EchoDiT
from echo.models.load import CODEC_FILE, DIT_FILE, PCA_FILE, load_codec, load_dit, load_pca
from echo.models.pca import PCAState
from echo.models.sizes import CONFIG_FILE
from echo.modules.conv import fold_weight_norm


def export_model(
    folder: Path, sizes: Mapping[str, Any], dit: EchoDiT, codec: S1DAC, pca: PCAState
) -> int:
    """Write config.json and the three files of weights, in float16; returns their bytes together.

    Everything is read back by the strict loader and compared.
    Raises :class:`CheckpointError` where a value does not survive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"dit": sizes["dit"], "codec": sizes["codec"]}, indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    save_file(_halves(dit), folder / DIT_FILE)
    save_file(_halves(codec), folder / CODEC_FILE)
    write_pca(folder / PCA_FILE, pca, torch.float16)
    _compare(folder, dit, codec, pca)
    names = (CONFIG_FILE, DIT_FILE, CODEC_FILE, PCA_FILE)
    return sum((folder / name).stat().st_size for name in names)


def write_pca(path: Path, pca: PCAState, dtype: torch.dtype) -> None:
    """The PCA as its safetensors file; the scale stays float32."""
    tensors = {
        "pca_components": pca.components.to(dtype),
        "pca_mean": pca.mean.to(dtype),
        "latent_scale": torch.tensor(pca.scale, dtype=torch.float32),
    }
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def _halves(module: nn.Module) -> dict[str, Tensor]:
    return {name: _half(name, p.detach()) for name, p in module.named_parameters()}


def _half(name: str, value: Tensor) -> Tensor:
    half = value.to("cpu", torch.float16).contiguous()
    if not torch.isfinite(half).all():
        raise CheckpointError(f"{name} has values that float16 cannot hold")
    return half


def _compare(folder: Path, dit: EchoDiT, codec: S1DAC, pca: PCAState) -> None:
    settings = {"device": "cpu", "dtype": torch.float32}
    read_dit = load_dit(str(folder), **settings)  # type: ignore[arg-type]
    _check(DIT_FILE, dict(read_dit.named_parameters()), dict(dit.named_parameters()))
    read_codec = load_codec(str(folder), **settings)  # type: ignore[arg-type]
    folded = S1DAC(codec.config)
    folded.load_state_dict({k: v.cpu() for k, v in codec.state_dict().items()})
    fold_weight_norm(folded.requires_grad_(True))
    _check(CODEC_FILE, dict(read_codec.named_parameters()), dict(folded.named_parameters()))
    read_pca = load_pca(str(folder), device="cpu", dit=dit.config, codec=codec.config)
    _check(
        PCA_FILE,
        {"components": read_pca.components, "mean": read_pca.mean},
        {"components": pca.components.cpu(), "mean": pca.mean.cpu()},
    )


def _check(file: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, value in wanted.items():
        kept = value.detach().cpu()
        off = float((found[name] - kept).abs().max())
        if off > 2e-3 * max(1.0, float(kept.abs().max())):
            raise CheckpointError(f"{file}: {name} came back {off:.2g} off")
