from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from benchmarks.listening import (
    Crowd,
    EngineTarget,
    Line,
    Lines,
    ServerTarget,
    listen,
    passer_by,
    playback,
    regular,
)
from benchmarks.record import Record
from benchmarks.speech import reference, write_voice
from benchmarks.throughput import ThroughputSettings, measure_target, report
from echo.api.app import create_app
from echo.errors import BusyError, GenerationError

SETTINGS = ThroughputSettings(
    seed=1,
    url=None,
    api_key=None,
    listeners=(1, 3),
    flat_out=(2,),
    arrivals_per_minute=(600.0,),
    arrivals_seconds=0.5,
    text_seconds=(1.0, 2.0),
    reference_seconds=(1.0,),
    requests=2,
    newcomers=2,
    newcomer_pause_s=0.2,
)


class Scripted:
    """Sends parts of ``seconds`` after ``waits``; refuses every ``refuses``-th listener."""

    def __init__(self, waits: list[float], seconds: float, refuses: int = 0) -> None:
        self.waits, self.seconds, self.refuses, self.asked = waits, seconds, refuses, 0

    def speak(self, line: Line) -> Iterator[float]:
        self.asked += 1
        if self.refuses and self.asked % self.refuses == 0:
            raise BusyError("full")
        for wait in self.waits:
            time.sleep(wait)
            yield self.seconds


def test_playback_stands_still_exactly_while_nothing_is_there() -> None:
    assert playback([(1.0, 2.0), (2.5, 1.0)]) == (4.0, 0.0)
    assert playback([(1.0, 2.0), (3.5, 1.0), (6.0, 1.0)]) == (7.0, pytest.approx(2.0))


def test_a_listener_measures_first_sound_and_gaps() -> None:
    heard = listen(Scripted([0.05, 0.2], 0.1), Line("Hello.", None, 0))
    assert 0.05 <= heard.ttfb_s < heard.ended - heard.arrived - 0.19
    assert heard.gap_s == pytest.approx(heard.ended - heard.arrived - heard.ttfb_s - 0.1, abs=0.01)
    assert heard.audio_s == pytest.approx(0.2)
    first = listen(Scripted([0.05, 20.0], 0.1), Line("Hello.", None, 0), only_first=True)
    assert first.ended - first.arrived < 15.0


def test_real_time_listeners_wait_until_they_have_played_what_they_got() -> None:
    for real_time, shortest, longest in ((True, 2.0, 20.0), (False, 0.0, 1.9)):
        crowd, begun = Crowd(), time.perf_counter()
        lines = Lines([2.0], [None], 1)
        crowd.add(regular(Scripted([0.0], 1.0), lines, 2, real_time=real_time))
        crowd.join()
        assert shortest <= time.perf_counter() - begun < longest


def test_lines_are_never_the_same_and_lengths_take_turns() -> None:
    lines = Lines([1.0, 8.0], ["a", "b"], 1)
    some = [lines.next() for _ in range(40)]
    assert len({line.text for line in some}) == 40
    assert len(some[0].text) < len(some[1].text)
    assert [line.voice for line in some[:4]] == ["a", "a", "b", "b"]


def test_refusals_are_counted_and_failures_end_the_run() -> None:
    rows = measure_target(Scripted([0.0], 0.01, refuses=3), [None], SETTINGS, {"preset": "x"})
    record = Record.of("throughput", rows, seed=1, config={})
    assert sum(record.values("refused")) > 0

    class Broken:
        def speak(self, line: Line) -> Iterator[float]:
            yield 0.1
            raise GenerationError("out of memory")

    crowd = Crowd()
    crowd.add(regular(Broken(), Lines([1.0], [None], 1), 5, real_time=True))
    with pytest.raises(GenerationError, match="out of memory"):
        crowd.join()


def test_a_server_that_is_not_there_ends_the_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    crowd = Crowd()
    crowd.add(passer_by(ServerTarget(f"http://127.0.0.1:{port}"), Line("Hello.", None, 0)))
    with pytest.raises(GenerationError, match="broke off"):
        crowd.join()


def test_whatever_goes_wrong_with_a_listener_is_told() -> None:
    class Odd:
        def speak(self, line: Line) -> Iterator[float]:
            raise ZeroDivisionError

    crowd = Crowd()
    crowd.add(passer_by(Odd(), Line("Hello.", None, 0)))
    with pytest.raises(ZeroDivisionError):
        crowd.join()


def check(record: Record, tmp_path) -> None:
    assert len(record.values("ttfb_s", load="real_time", listeners=3)) == 6
    assert len(record.values("ttfb_s", load="flat_out", listeners=2)) == 4
    assert record.values("ttfb_s", load="poisson")
    assert len(record.values("newcomer_ttfb_s", load="alone")) == 2
    assert record.values("newcomer_ttfb_s", load="real_time", listeners=3)
    assert all(value > 0 for value in record.values("audio_per_s"))
    assert "newcomer alone" in report([record], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_an_engine_is_measured_under_every_load(make_engine, voice_root, tmp_path) -> None:
    name = write_voice(voice_root, "one", reference(1.0, 1))
    engine = make_engine("sampler.early_stop_on_zero=false")
    rows = measure_target(EngineTarget(engine), [name], SETTINGS, {"preset": "toy"})
    check(Record.of("throughput", rows, seed=1, config={}), tmp_path)


def test_a_running_server_is_measured_in_the_same_way(make_engine, voice_root, tmp_path) -> None:
    write_voice(voice_root, "one", reference(1.0, 1))
    engine = make_engine("server.api_keys=secret")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(engine, engine.config)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            target = ServerTarget(url, "secret")
            assert target.voices() == ["one"]
            rows = measure_target(target, ["one"], SETTINGS, {"preset": "toy"})
            with pytest.raises(GenerationError, match="401"):
                listen(ServerTarget(url), Line("Hello.", "one", 1))
        finally:
            server.should_exit = True
            thread.join()
    check(Record.of("throughput", rows, seed=1, config={}), tmp_path)
