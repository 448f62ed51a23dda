"""Whether an engine can be expected to serve: what a cluster's health check asks."""

from __future__ import annotations

import pytest

from echo.engine import Engine, SpeechRequest
from echo.engine.worker import MAX_FAILED_IN_A_ROW
from echo.errors import BusyError, GenerationError, InvalidRequestError
from fakes import aiming


class Device:
    """Fails while it is lost."""

    def __init__(self) -> None:
        self.lost = False

    def __call__(self, start, noise):
        if self.lost:
            raise RuntimeError("an illegal memory access was encountered")
        return noise


@pytest.fixture
def device() -> Device:
    return Device()


@pytest.fixture
def engine(make_engine, toy_components, device) -> Engine:
    return make_engine("preset.num_steps=[1,1,1]", components=aiming(toy_components, device))


def fail(engine: Engine, times: int) -> None:
    for _ in range(times):
        with pytest.raises(GenerationError, match="memory access"):
            engine.synthesize(SpeechRequest("Hi.", seed=1))


def test_an_engine_that_works_is_well_even_if_requests_are_refused(engine):
    engine.synthesize(SpeechRequest("Hi.", seed=1))
    for _ in range(MAX_FAILED_IN_A_ROW):
        with pytest.raises((InvalidRequestError, BusyError)):
            engine.synthesize(SpeechRequest("Hi.", voice="nobody"))
    engine.check()


def test_an_engine_is_ill_when_nothing_succeeds_any_more(engine, device):
    device.lost = True
    fail(engine, MAX_FAILED_IN_A_ROW - 1)
    engine.check()
    fail(engine, 1)
    with pytest.raises(GenerationError, match="start the engine again"):
        engine.check()


def test_one_success_makes_it_well_again(engine, device):
    device.lost = True
    fail(engine, MAX_FAILED_IN_A_ROW - 1)
    device.lost = False
    engine.synthesize(SpeechRequest("Hi.", seed=1))
    device.lost = True
    fail(engine, MAX_FAILED_IN_A_ROW - 1)
    engine.check()


def test_a_closed_engine_is_ill(engine):
    engine.close()
    with pytest.raises(GenerationError, match="thread has ended"):
        engine.check()
