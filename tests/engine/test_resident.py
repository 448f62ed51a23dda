"""Weights that leave memory when idle, and what comes of requests meanwhile."""

from __future__ import annotations

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from echo.api.app import create_app
from echo.audio.encode import encode_file
from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components
from echo.engine.resident import Resident
from echo.errors import CheckpointError, UnavailableError
from echo.models.codec import S1DAC
from echo.models.compile import PIECE_LATENTS, CompiledInPieces
from fakes import compilations

IDLE = "engine.idle_unload_seconds=0.2"
REQUEST = SpeechRequest("Hello there.", seed=3)


class Loader:
    """Copies of the toy networks; ``fault`` is raised instead while it is set."""

    def __init__(self, source: Components) -> None:
        self.source = source
        self.loads = 0
        self.seconds = 0.0
        self.fault: Exception | None = None

    def __call__(self) -> Components:
        self.loads += 1
        time.sleep(self.seconds)
        if self.fault is not None:
            raise self.fault
        own = self.source
        return Components.from_parts(deepcopy(own.model), self.codec(), own.pca)

    def codec(self) -> S1DAC:
        return self.source.codec


class CompilingLoader(Loader):
    """Sets up its codec to be compiled, by a compiler that does nothing."""

    def codec(self) -> S1DAC:
        codec = deepcopy(self.source.codec)
        piece = PIECE_LATENTS * math.prod(codec.config.downsample)
        codec.decoder.forward = CompiledInPieces(codec.decoder.forward, [piece], backend="eager")  # type: ignore[method-assign]
        return codec


@pytest.fixture
def loader(toy_components: Components) -> Loader:
    return Loader(toy_components)


@pytest.fixture
def sleepy(
    loader: Loader, toy_config: Callable[..., EchoConfig]
) -> Iterator[Callable[..., Engine]]:
    """Engines that unload soon and load by ``loader``."""
    engines: list[Engine] = []

    def make(*overrides: str) -> Engine:
        engines.append(Engine(toy_config(IDLE, *overrides), loader(), load=loader))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


def state(engine: Engine) -> str:
    return str(engine.stats()["weights"]["state"])


def add_voice(folder: Path, hertz: float = 220.0) -> None:
    """A tone called ann."""
    t = np.arange(3 * 44_100, dtype=np.float32) / 44_100
    tone = 0.4 * np.sin(2 * np.pi * hertz * t)
    (folder / "ann.wav").write_bytes(encode_file(tone.astype(np.float32), 44_100, "wav"))


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def test_idle_networks_are_freed_and_the_next_request_says_the_same(
    sleepy: Callable[..., Engine], loader: Loader
) -> None:
    engine = sleepy()
    with engine.using() as components:
        before, loads = engine.synthesize(REQUEST), loader.loads
        model = weakref.ref(components.model)
    del components
    wait_for(lambda: state(engine) == "unloaded")
    gc.collect()
    assert model() is None, "something still holds the networks"
    with engine.stream(REQUEST) as stream:
        after = stream.read()
    np.testing.assert_array_equal(after, before)
    assert loader.loads == loads + 1
    assert engine.stats()["weights"]["loads"] == loads


def test_the_request_that_waits_for_the_load_counts_it(
    sleepy: Callable[..., Engine], loader: Loader
) -> None:
    engine = sleepy()
    wait_for(lambda: state(engine) == "unloaded")
    loader.seconds = 0.3
    with engine.stream(REQUEST) as stream:
        stream.read()
    stats = stream.stats
    assert stats.load_s >= 0.3
    assert stats.queue_s is not None
    assert stats.ttfb_s is not None
    assert stats.ttfb_s > stats.queue_s >= stats.load_s
    with engine.using(), engine.stream(REQUEST) as stream:
        stream.read()
    assert stream.stats.load_s == 0.0


def test_requests_that_come_together_load_once(
    sleepy: Callable[..., Engine], loader: Loader
) -> None:
    engine = sleepy()
    wait_for(lambda: state(engine) == "unloaded")
    loader.seconds = 0.3
    heard: list[Any] = []
    threads = [
        threading.Thread(target=lambda: heard.append(engine.synthesize(REQUEST))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(heard) == 5
    assert loader.loads == 2


def test_a_request_in_work_keeps_the_networks_however_long_it_takes(
    sleepy: Callable[..., Engine],
) -> None:
    engine = sleepy("engine.buffer_seconds=0.1")
    stream = engine.stream(REQUEST)
    next(stream)
    time.sleep(0.6)  # nobody reads on: it pauses, thrice as long as it takes to be idle
    assert state(engine) == "loaded"
    stream.read()
    wait_for(lambda: state(engine) == "unloaded")


def test_a_load_that_fails_is_told_and_shared_and_tried_again_later(loader: Loader) -> None:
    resident = Resident(
        loader(), loader, idle_s=0.1, busy=lambda: False, dropped=lambda: None, retry_s=0.5
    )
    wait_for(lambda: resident.state == "unloaded")
    loader.fault = CheckpointError("the folder is gone")
    for _ in range(2):
        with pytest.raises(UnavailableError, match="the folder is gone") as caught, resident.use():
            pass
        assert caught.value.retry_after_s == 0.5
    assert loader.loads == 2, "the second one shares the failure of the first"
    assert resident.stats()["load_failures"] == 1
    loader.fault = None
    time.sleep(0.6)
    with resident.use() as components:
        assert components.model is not None
    resident.close()


def test_what_a_failed_load_left_is_gone_before_the_next_one(loader: Loader) -> None:
    """Recorded networks hold themselves, and no lack of memory on a GPU calls the collector."""

    class Half:
        """A network that holds itself."""

        def __init__(self) -> None:
            self.itself = self

    left: list[weakref.ref[Half]] = []
    alive: list[int] = []

    def load() -> Components:
        alive.append(sum(each() is not None for each in left))
        if len(left) == 2:
            return loader()
        left.append(weakref.ref(Half()))
        raise RuntimeError("out of memory")

    drops = threading.Event()
    resident = Resident(
        loader(), load, idle_s=0.1, busy=lambda: False, dropped=drops.set, retry_s=0.0
    )
    assert drops.wait(20)
    gc.disable()
    try:
        for _ in range(2):
            with pytest.raises(UnavailableError, match="out of memory"), resident.use():
                pass
        with resident.use() as components:
            assert components.model is not None
    finally:
        gc.enable()
    resident.close()
    assert alive == [0, 0, 0]


def test_the_watch_goes_on_over_what_cannot_be_dropped(
    loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    drops: list[int] = []

    def fail_once() -> None:
        drops.append(1)
        if len(drops) == 1:
            raise ValueError("list.remove(x): x not in list")

    resident = Resident(loader(), loader, idle_s=0.1, busy=lambda: False, dropped=fail_once)
    for count in (1, 2):
        wait_for(lambda count=count: len(drops) == count)  # type: ignore[misc]
        with resident.use() as components:
            assert components.model is not None
    resident.close()
    assert caplog.text.count("not everything could be dropped") == 1
    assert loader.loads >= 3


def test_a_bad_request_loads_nothing(sleepy: Callable[..., Engine], loader: Loader) -> None:
    engine = sleepy()
    wait_for(lambda: state(engine) == "unloaded")
    with pytest.raises(Exception, match="nobody"):
        engine.stream(SpeechRequest("Hello.", voice="nobody"))
    assert loader.loads == 1


def test_voices_are_encoded_anew_for_the_new_networks(
    sleepy: Callable[..., Engine], voice_root: Path
) -> None:
    add_voice(voice_root)
    engine = sleepy()
    request = SpeechRequest("Hello there.", voice="ann", seed=3)
    before = engine.synthesize(request)
    wait_for(lambda: state(engine) == "unloaded")
    assert engine.stats()["voice_cache"]["entries"] == 0
    np.testing.assert_allclose(engine.synthesize(request), before, atol=1e-5)
    assert engine.stats()["voice_cache"]["misses"] == 2


def test_a_voice_whose_file_changes_counts_at_the_next_request(
    make_engine: Callable[..., Engine], voice_root: Path
) -> None:
    engine, request = make_engine(), SpeechRequest("Hello there.", voice="ann", seed=3)
    add_voice(voice_root)
    first = engine.synthesize(request)
    add_voice(voice_root, hertz=500.0)
    assert not np.array_equal(engine.synthesize(request), first)
    add_voice(voice_root)
    np.testing.assert_array_equal(engine.synthesize(request), first)
    assert engine.stats()["voice_cache"]["misses"] == 2  # each content once


def test_an_engine_over_given_networks_has_nowhere_to_load_from_and_keeps_them(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(IDLE)
    time.sleep(0.5)
    assert state(engine) == "loaded"


def test_counts_go_on_over_a_reload(sleepy: Callable[..., Engine]) -> None:
    engine = sleepy()
    engine.synthesize(REQUEST)
    steps = engine.stats()["worker"]["steps"]
    wait_for(lambda: state(engine) == "unloaded")
    engine.synthesize(REQUEST)
    assert engine.stats()["worker"]["steps"] == 2 * steps


def test_after_a_reload_no_listener_waits_for_the_compiler(
    toy_components: Components, toy_config: Callable[..., EchoConfig], tmp_path: Path
) -> None:
    load = CompilingLoader(toy_components)
    config = toy_config(IDLE, f"compile.cache_dir='{tmp_path}'")
    torch._dynamo.reset()
    with Engine(config, load(), load=load) as engine:
        engine._compiled = True
        with engine.using():
            engine.warm_up()
            before = engine.synthesize(REQUEST)
        wait_for(lambda: state(engine) == "unloaded")
        with engine._resident._changed:  # everything is dropped
            pass
        with compilations() as at_load, engine.using(), compilations() as later:
            assert len(at_load) == 1  # the decoder, whatever it was given before
            np.testing.assert_allclose(engine.synthesize(REQUEST), before, atol=1e-5)
            assert later == []
            assert engine._watching is not None


def test_networks_are_not_unloaded_while_they_are_prepared(
    sleepy: Callable[..., Engine], loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sleepy(f"compile.cache_dir='{tmp_path}'")
    engine._compiled = True
    loads, seen = loader.loads, []

    def slow(models: Any, config: Any, blocks: Any) -> None:
        time.sleep(0.6)  # thrice as long as it takes to be idle
        seen.append(state(engine))

    monkeypatch.setattr("echo.engine.engine.warm_up_passes", slow)
    engine.warm_up()
    assert seen == ["loaded"]
    assert loader.loads == loads


def test_the_server_tells_its_state_and_answers_503_while_it_cannot_load(
    sleepy: Callable[..., Engine], loader: Loader, voice_root: Path
) -> None:
    add_voice(voice_root)
    engine = sleepy()
    client = TestClient(create_app(engine, engine.config))
    with engine.using():
        assert client.get("/health").json()["weights"] == "loaded"
    wait_for(lambda: client.get("/health").json()["weights"] == "unloaded")
    assert "echo_weights_loaded 0.0" in client.get("/metrics").text
    loader.fault = MemoryError("no room")
    answer = client.post("/v1/audio/speech", json={"input": "Hello."})
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "model_unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    answer = client.post("/tts/v1/voice", json={"text": "Hello.", "voiceId": "ann"})
    assert answer.status_code == 503
    assert answer.json()["code"] == 14  # gRPC's unavailable
    assert client.get("/ready").status_code == 200
    assert "echo_weight_load_failures_total 1.0" in client.get("/metrics").text
