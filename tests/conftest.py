"""Toy networks for every test that needs some: golden weights, or a tiny random engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from echo.config import EchoConfig, compose
from echo.engine import Engine
from echo.engine.components import Components
from echo.models.codec import S1DAC, CodecConfig, EncoderTransformerConfig
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.random_weights import random_pca, randomize_
from echo.modules.conv import fold_weight_norm

PARITY = Path(__file__).parent / "data" / "parity"
TOY_DIT = DiTConfig(
    model_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=48,
    text_model_size=16,
    text_num_layers=1,
    text_num_heads=2,
    text_intermediate_size=32,
    speaker_model_size=16,
    speaker_num_layers=1,
    speaker_num_heads=2,
    speaker_intermediate_size=32,
    timestep_embed_size=16,
    adaln_rank=4,
)
TOY_CODEC = CodecConfig(
    encoder_dim=2,
    latent_dim=80,
    decoder_dim=32,
    encoder_transformer=EncoderTransformerConfig(layers=1, heads=2, dim=32, ffn=32),
    q_layers=1,
    q_heads=2,
    q_head_dim=8,
    q_ffn=16,
    n_codebooks=2,
    codebook_size=16,
    semantic_codebook_size=16,
    q_window=8,
    encoder_window=16,
)
SMALL_BLOCKS = ("preset.block_sizes=[8,12,20]", "preset.num_steps=[3,3,3]")
settings.register_profile("steady", deadline=None)  # one slow example is a busy machine
settings.load_profile("steady")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)  # toy sizes: more threads only wait for each other


@pytest.fixture(scope="session")
def toy_components() -> Components:
    """Random toy networks; shared, so nobody may change them."""
    with torch.device("meta"):
        model, codec = EchoDiT(TOY_DIT), S1DAC(TOY_CODEC)
    randomize_(model, 1, device="cpu", dtype=torch.float32)
    randomize_(codec, 2, device="cpu", dtype=torch.float32)
    fold_weight_norm(codec)
    pca = random_pca(TOY_DIT.latent_size, TOY_CODEC.latent_dim, 3, device="cpu")
    return Components.from_parts(
        model.requires_grad_(False).eval(), codec.requires_grad_(False).eval(), pca
    )


@pytest.fixture
def voice_root(tmp_path: Path) -> Path:
    """An empty folder of voices; write clips into it."""
    folder = tmp_path / "voices"
    folder.mkdir()
    return folder


@pytest.fixture
def toy_config(voice_root: Path) -> Callable[..., EchoConfig]:
    """Compose a configuration for toy engines; overrides are added."""

    def make(*overrides: str) -> EchoConfig:
        voices = [f"voices.roots=['{voice_root}']", f"voices.clone_root='{voice_root}'"]
        return compose(["model=base", "engine.max_load=null", *voices, *SMALL_BLOCKS, *overrides])

    return make


@pytest.fixture
def make_engine(
    toy_components: Components, toy_config: Callable[..., EchoConfig]
) -> Iterator[Callable[..., Engine]]:
    """Engines over the toy networks, closed after the test."""
    engines: list[Engine] = []

    def make(*overrides: str, components: Components | None = None) -> Engine:
        engines.append(Engine(toy_config(*overrides), components or toy_components))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
