"""The account of a GPU's memory: its bookkeeping, and what the card profiles must hold."""

from __future__ import annotations

import pytest
import torch

from benchmarks.footprint import GIB, META, OVERHEAD, Ledger, footprint, report
from echo.config import compose
from echo.doctor import CARDS, ROOM


def test_the_ledger_counts_what_lives_once_and_forgets_what_died() -> None:
    with Ledger(META) as ledger:
        a = torch.empty(1000, device=META)
        views = (a[10:], a.view(10, 100), a.detach())
        assert ledger.held == 4000
        b = a + 1
        assert (ledger.held, ledger.peak) == (8000, 8000)
        del a, views
        assert (ledger.held, ledger.peak) == (4000, 8000)
        stages: dict[str, int] = {}
        with ledger.watch(stages, "sum"):
            b.double().sum()
        torch.empty(10_000)  # on another device
    assert stages == {"sum": 4000 + 8000 + 8}


def test_weights_are_counted_to_the_byte() -> None:
    """Of the shipped model, in float32: parameters, and the PCA."""
    from echo.engine.components import load_components
    from echo.models.quantize import stored_bytes

    config = compose(["model=tiny"])
    real = load_components(config)
    pca = 4 * (real.pca.components.numel() + real.pca.mean.numel())
    found = footprint(config)
    assert found.weights == stored_bytes(real.model) + stored_bytes(real.codec) + pca
    assert all(peak > found.weights for peak in found.stages.values())


def test_eight_bits_a_half_codec_and_shorter_references_each_save() -> None:
    plain = footprint(compose(["model=tiny", "model.dtype=bfloat16"]))
    card = footprint(compose(["model=tiny", "model.dtype=bfloat16", "card=6gb"]))
    assert card.weights < 0.6 * plain.weights
    assert card.stages["voice"] - card.weights < 0.5 * (plain.stages["voice"] - plain.weights)
    assert card.listener < plain.listener


@pytest.mark.parametrize(("card", "size"), [("8gb", 8), ("6gb", 6)])
def test_a_full_house_of_the_real_model_fits_the_card(card: str, size: int) -> None:
    config = compose(["model=base", f"card={card}"])
    found = footprint(config)
    free = size * GIB - OVERHEAD
    assert found.house < free - 0.5 * GIB  # for a desktop on the same card
    assert found.alone < 4.5 * GIB
    assert found.stages["load"] < 1.05 * found.weights  # never there in 16 bits
    assert f"{config.engine.max_active} listeners" in report(config, found)
    # What the doctor says that it needs.
    assert found.house + OVERHEAD < CARDS[card] < found.house + OVERHEAD + 0.3 * GIB


def test_without_a_profile_the_real_model_does_not_fit_eight_gigabytes() -> None:
    """Else the test above could not fail."""
    config = compose(["model=base", "card=any"])
    found = footprint(config)
    assert found.alone + OVERHEAD > 8 * GIB
    assert ROOM - 0.1 * GIB < found.alone - found.weights < ROOM  # what the doctor says


def test_what_graphs_work_in_stays_taken() -> None:
    def taken(*settings: str) -> int:
        return footprint(compose(["model=tiny", "model.dtype=bfloat16", *settings])).graphs

    short = ("compile.graph_latents=32", "compile.codec_graph_latents=32")
    least = taken(*short)
    assert taken("compile=off") == 0
    assert taken(short[0], "compile.codec_graph_latents=128") > 1.2 * least > 0
    assert taken("compile.graph_latents=1920", short[1]) > 1.2 * least
