from __future__ import annotations

import sys

import hydra
import pytest
import torch

from benchmarks.cards import (
    Card,
    check_card,
    choose_card,
    register_card_resolver,
    with_setup,
)
from benchmarks.tune import main
from echo.config import compose, register_resolvers
from echo.config.paths import shipped_path
from echo.errors import ConfigError

PROFILES = sorted(file.stem for file in (shipped_path("conf") / "gpu").glob("*.yaml"))
CARD = Card("24gb", (), None, None, None)


@pytest.mark.parametrize(
    ("memory", "profile"),
    [
        (None, "cpu"),
        (5.8, "6gb"),
        (7.6, "8gb"),
        (11.9, "12gb"),
        (3.9, "6gb"),
        (9.7, "8gb"),
        (15.7, "12gb"),
        (39.4, "24gb"),
        (23.6, "24gb"),
        (47.5, "48gb"),
        (79.1, "80gb"),
        (139.8, "80gb"),
    ],
)
def test_a_machine_gets_the_profile_of_its_memory(memory: float | None, profile: str) -> None:
    assert choose_card(lambda: memory) == profile
    assert profile in PROFILES


@pytest.mark.parametrize("profile", [name for name in PROFILES if name != "auto"])
def test_every_setup_of_every_profile_is_a_setting_of_the_service(profile: str) -> None:

    register_resolvers()
    register_card_resolver()
    with hydra.initialize_config_dir(str(shipped_path("conf")), version_base="1.3"):
        card = hydra.compose("benchmark_tune", overrides=[f"gpu={profile!r}"]).benchmark.gpu
    config = compose(["model=base"])
    assert card.name == profile
    assert len({with_setup(config, setup) for setup in card.setups}) == len(card.setups) > 0


def test_a_setup_changes_what_it_names_and_nothing_else() -> None:
    keys = ["server.api_keys=secret", "ui.password=hidden", "voices.shared=memory://voices"]
    config = compose(["model=base", *keys])
    setup = with_setup(config, "model.dtype=float16 compile.codec=true")
    assert (setup.model.dtype, setup.compile.codec) == ("float16", True)
    assert with_setup(setup, "model.dtype=bfloat16 compile.codec=null") == config


@pytest.mark.parametrize("setup", ["model.dtyp=float16", "model.dtype=float12", "model.dtype"])
def test_a_setup_that_is_none_is_named(setup: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.dtyp"):
        with_setup(compose(["model=tiny"]), setup)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_card_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch, capsys) -> None:
    with pytest.raises(ConfigError, match="gpu=cpu"):
        check_card(compose(["model.device=cuda"]), CARD)
    monkeypatch.chdir(tmp_path)
    quiet = ["hydra/hydra_logging=none", "hydra/job_logging=none"]
    monkeypatch.setattr(sys, "argv", ["tune", "gpu=3090", *quiet])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "gpu=3090 needs a CUDA device" in capsys.readouterr().err
