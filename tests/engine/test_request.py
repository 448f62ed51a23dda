from __future__ import annotations

import pytest

from echo.config import compose
from echo.engine.request import SpeechRequest, resolve_settings
from echo.errors import InvalidRequestError

TUNED = "+preset.sampler={cfg_min_t: 0.7, truncation_factor: 0.8}"


def settings(*given: str, **overrides):
    return resolve_settings(
        compose(["model=tiny", *given]), SpeechRequest("Hello.", overrides=overrides)
    )


def test_a_preset_that_says_how_to_sample_is_heeded_in_every_block() -> None:
    found = settings(TUNED)
    assert found.sampler.cfg_min_t == 0.7
    assert {block.truncation_factor for block in found.blocks} == {0.8}
    assert found.sampler.cfg_scale_text == settings().sampler.cfg_scale_text


def test_a_request_wins_over_the_preset() -> None:
    assert settings(TUNED, cfg_min_t=0.1).sampler.cfg_min_t == 0.1
    assert settings(TUNED, truncation_factor=None).blocks[0].truncation_factor is None


def test_a_request_for_another_preset_leaves_what_belongs_to_the_first() -> None:
    assert settings(TUNED, preset="low").sampler == settings(preset="low").sampler
    assert settings(TUNED, preset="low").sampler.cfg_min_t != 0.7


def test_a_preset_that_does_not_go_with_a_request_is_the_requests_error() -> None:
    with pytest.raises(InvalidRequestError):
        settings(TUNED, cfg_min_t=7)
