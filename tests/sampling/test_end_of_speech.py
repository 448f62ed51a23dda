from __future__ import annotations

from dataclasses import replace

import torch

import parity
from echo.sampling.end_of_speech import ends_in_zeros, find_end_point


def speech(length: int) -> torch.Tensor:
    return torch.randn((length, 80), generator=torch.Generator().manual_seed(0))


def test_speech_that_goes_on_has_no_end_before_its_last_latent() -> None:
    assert find_end_point(speech(30)) == 30


def test_the_end_is_where_the_zeros_begin() -> None:
    assert find_end_point(torch.cat((speech(25), torch.zeros(40, 80)))) == 25


def test_nothing_ends_at_once() -> None:
    assert find_end_point(torch.zeros(0, 80)) == 0


def test_a_tail_of_zeros_stops_the_blocks() -> None:
    block = torch.cat((speech(20), torch.zeros(16, 80)))
    assert ends_in_zeros(block, parity.DEFAULTS)
    assert not ends_in_zeros(block[:-1], parity.DEFAULTS)


def test_a_tenth_of_the_values_may_be_louder_but_none_above_the_limit() -> None:
    tail = torch.zeros(16, 80)
    tail.view(-1)[:128] = 0.9  # exactly a tenth
    assert ends_in_zeros(tail, parity.DEFAULTS)
    tail.view(-1)[128] = 0.9
    assert not ends_in_zeros(tail, parity.DEFAULTS)
    tail.view(-1)[128] = 0.0
    tail.view(-1)[0] = 1.1
    assert not ends_in_zeros(tail, parity.DEFAULTS)


def test_the_thresholds_are_settings() -> None:
    tail = torch.full((16, 80), 0.1)
    assert not ends_in_zeros(tail, parity.DEFAULTS)
    assert ends_in_zeros(tail, replace(parity.DEFAULTS, zero_eps=0.2))


def test_only_the_last_frames_are_looked_at() -> None:
    block = torch.cat((speech(20), torch.zeros(8, 80)))
    assert ends_in_zeros(block, replace(parity.DEFAULTS, zero_tail_frames=8))
