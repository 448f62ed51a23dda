from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from echo.cluster.server import deployed, main, serve_cluster
from echo.config import compose
from echo.errors import ConfigError, EchoError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
LOCAL = ["cluster=ray", "model=tiny", "cluster.address=null", "server.port=0"]
ELSEWHERE = ["cluster=ray", "model=tiny", "cluster.address=auto", "server.port=0"]


class PlayedRay:
    """Ray and Serve as far as the server asks for them; ``calls`` are in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.while_it: dict[str, Callable[[], object]] = {}  # what happens in a call

    def call(self, name: str) -> Callable[..., None]:
        def called(*args: object, **kwargs: object) -> None:
            self.calls.append(name)
            self.while_it.get(name, lambda: None)()

        return called

    def init(self, **kwargs: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))  # as Ray does
        self.call("init")()


@pytest.fixture
def ray(monkeypatch) -> Iterator[PlayedRay]:
    played = PlayedRay()
    names = ("start", "run", "delete", "shutdown")
    serve = SimpleNamespace(**{name: played.call(f"serve.{name}") for name in names})
    there = SimpleNamespace(
        init=played.init,
        cluster_resources=lambda: {"CPU": 8.0},
        shutdown=played.call("shutdown"),
        serve=serve,
    )
    app = SimpleNamespace(APPLICATION="echo", application=lambda config: None, gpus=lambda c: 0.0)
    for name, module in (("ray", there), ("ray.serve", serve), ("echo.cluster.app", app)):
        monkeypatch.setitem(sys.modules, name, module)
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield played
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def when_up(caplog) -> Iterator[Callable[[signal.Signals], None]]:
    """Sends a signal as soon as the server says where it listens."""
    caplog.set_level(logging.INFO)
    handler = logging.Handler()

    def send(number: signal.Signals) -> None:
        def emit(record: logging.LogRecord) -> None:
            if record.getMessage().startswith("listening on"):
                signal.raise_signal(number)

        handler.emit = emit
        logging.getLogger("echo.cluster.server").addHandler(handler)

    yield send
    logging.getLogger("echo.cluster.server").removeHandler(handler)


def interrupted(number: signal.Signals) -> Callable[[], None]:
    return lambda: signal.raise_signal(number)


@pytest.mark.parametrize("number", SIGNALS)
def test_who_interrupts_the_start_is_told_and_everything_is_taken_down(ray, number, caplog):
    caplog.set_level(logging.INFO)
    ray.while_it["serve.run"] = interrupted(number)  # which may wait for ever
    assert serve_cluster(compose(LOCAL), LOCAL) == 130
    assert ray.calls == ["init", "serve.start", "serve.run", "serve.shutdown", "shutdown"]
    assert "interrupted before the replicas were ready" in caplog.text
    assert "listening" not in caplog.text


def test_one_machine_may_keep_its_clones_for_itself(ray, when_up):
    cloning = [*LOCAL, "inworld.clone_enabled=true", "voices.shared=null"]
    when_up(signal.SIGINT)
    assert serve_cluster(compose(cloning), cloning) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_both_signals_end_a_server_that_is_up_in_order(ray, when_up, number, caplog):
    when_up(number)
    assert serve_cluster(compose(LOCAL), LOCAL) == 0
    assert ray.calls[-2:] == ["serve.shutdown", "shutdown"]
    assert caplog.messages[-1] == "stopped"


def test_of_a_cluster_of_others_only_what_was_deployed_is_taken_down(ray, when_up):
    ray.while_it["serve.start"] = interrupted(signal.SIGINT)
    assert serve_cluster(compose(ELSEWHERE), ELSEWHERE) == 130
    assert ray.calls == ["init", "serve.start", "shutdown"]
    ray.calls.clear()
    del ray.while_it["serve.start"]
    when_up(signal.SIGTERM)
    assert serve_cluster(compose(ELSEWHERE), ELSEWHERE) == 0
    assert ray.calls[-2:] == ["serve.delete", "shutdown"]


def test_a_cluster_whose_streams_take_their_time_is_left_to_end_them(ray, when_up):
    def too_long() -> None:
        raise TimeoutError

    ray.while_it["serve.delete"] = too_long
    when_up(signal.SIGTERM)
    assert serve_cluster(compose(ELSEWHERE), ELSEWHERE) == 0
    assert ray.calls[-1] == "shutdown"


def test_a_cluster_that_is_not_there_is_told_in_a_line(ray):
    def nobody() -> None:
        raise ConnectionError("Could not find any running Ray instance")

    ray.while_it["init"] = nobody
    with pytest.raises(EchoError, match="did not start: Could not find any"):
        serve_cluster(compose(ELSEWHERE), ELSEWHERE)


def test_without_ray_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # as if it were not installed
    config = compose(["cluster=ray", "model=tiny", "cluster.address=null"])
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[cluster\]'"), deployed(config):
        pass


def test_a_wrong_setting_is_told_in_a_line(capsys):
    assert main(["cluster=ray", "cluster.replicas=0"]) == 2
    assert "cluster.replicas" in capsys.readouterr().err


def test_a_page_that_is_asked_for_is_refused_and_not_left_out(capsys):
    assert main(["cluster=ray", "model=tiny", "ui.on_server=true"]) == 2
    assert "echo-tts ui" in capsys.readouterr().err


def test_both_ways_of_serving_start_here():
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
