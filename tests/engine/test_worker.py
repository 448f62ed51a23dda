"""What becomes of those who listen when the worker's own machinery fails, not a request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from echo.api.app import create_app
from echo.engine import Engine, SpeechRequest, SpeechStream
from echo.engine.lane import Lane
from echo.engine.ops import Ops
from echo.engine.policy import Outlook
from echo.engine.stream import Feed
from echo.engine.task import Limits
from echo.engine.worker import Worker
from echo.errors import CancelledError, GenerationError

MakeEngine = Callable[..., Engine]
HI = SpeechRequest("Hi.", seed=1)


class BrokenClock:
    """Stands for a device whose events fail."""

    def begin(self) -> None:
        raise RuntimeError("an illegal memory access was encountered")


def outcome(stream: SpeechStream) -> Any:
    """The error that ends the stream; a stream that nobody ends fails in time."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if stream.poll() is None:
                time.sleep(0.01)
        except (GenerationError, CancelledError, EOFError) as error:
            return error
    return "it hangs"


@pytest.fixture
def broken(make_engine: MakeEngine) -> Engine:
    """Fails at its first step."""
    engine = make_engine("engine.max_active=1")
    engine._worker._clock = BrokenClock()  # type: ignore[assignment]
    return engine


def test_a_failing_clock_ends_all_who_listen_and_wait(
    broken: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    with broken._worker._wake, caplog.at_level(logging.ERROR, logger="echo"):
        streams = [broken.stream(HI) for _ in range(3)]  # one will be active, two queued
    for stream in streams:
        ended = outcome(stream)
        assert isinstance(ended, GenerationError)
        assert "illegal memory access" in ended.message
    assert caplog.text.count("the engine's thread ends") == 1
    assert "Traceback" in caplog.text
    assert broken.stats()["active"] == broken.stats()["queued"] == 0


def test_after_that_nobody_is_taken_in_and_the_server_says_so(broken: Engine) -> None:
    client = TestClient(create_app(broken, broken.config))
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    assert isinstance(outcome(broken.stream(HI)), GenerationError)
    with pytest.raises(GenerationError, match=r"illegal memory access.*start the engine again"):
        broken.stream(HI)
    with pytest.raises(GenerationError, match="illegal memory access"):
        broken.check()
    for path in ("/health", "/ready"):
        answer = client.get(path)
        assert answer.status_code == 500
        assert "illegal memory access" in answer.json()["error"]["message"]
    assert client.post("/v1/audio/speech", json={"input": "Hi."}).status_code == 500
    broken.close()


class Unclosable:
    def close(self) -> None:
        raise RuntimeError("generator already executing")


class Unforeseeable:
    """A job of which the policy cannot be told what it needs."""

    def run(self) -> Ops:
        return Unclosable()  # type: ignore[return-value]

    def outlook(self) -> Outlook:
        raise ZeroDivisionError("a planted fault")


def test_a_failing_policy_ends_all_who_wait() -> None:
    limits = Limits(4, 4, 8192, 1.0, 44_100.0, 44_100)
    cpu = torch.device("cpu")
    worker = Worker(limits, cpu, Lane(cpu))
    streams = [SpeechStream(None, 44_100) for _ in range(2)]  # type: ignore[arg-type]
    with worker._wake:
        for stream in streams:
            worker.submit(Feed(stream), Unforeseeable(), time.monotonic())
    for stream in streams:
        ended = outcome(stream)
        assert isinstance(ended, GenerationError)
        assert "ZeroDivisionError: a planted fault" in ended.message
    worker.close()
    assert worker.fault is not None
    assert "a planted fault" in worker.fault


def test_a_callback_of_a_listener_that_fails_is_its_own_affair(
    make_engine: MakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine()
    calls: list[int] = []

    def tell() -> None:
        calls.append(1)
        if len(calls) > 1:  # the first call is the caller's own
            raise RuntimeError("Event loop is closed")

    stream = engine.stream(HI)
    stream.set_listener(tell)
    assert len(stream.read()) > 0
    assert len(calls) > 1
    assert "the listener of a stream failed" in caplog.text
    assert len(engine.synthesize(HI)) > 0
