import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI

from echo.engine import SpeechRequest
from echo.errors import ConfigError
from echo.ui.form import fill_fields
from echo.ui.launch import launch, mount, open_page
from echo.ui.page import build_ui
from echo.ui.settings import CONTROLS

TEXT = "Good morning. The kettle is on."
# Minutes of work: what ends within seconds was stopped.
LONG_TEXT = "A sentence is here. " * 200
ENDLESS = (
    "preset.block_sizes=[8,300,300]",
    "preset.num_steps=[3,200,200]",
    "chunking.min_seconds=1",
    "chunking.target_seconds=2",
)
REPOSITORY = Path(__file__).parents[2]
NUM_STEPS = 6 + [control.key for control in CONTROLS].index("num_steps")  # among the inputs


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def filled(engine, **given):
    """What the browser sends of the form."""
    values = fill_fields(engine, given)
    voice = given.get("voice")
    return [None, values[0], voice, *values[2:]]


QUEUED = ("speak", "compare")


class Visitor:
    """A browser's side of Gradio's protocol: presses buttons, listens to what happens."""

    def __init__(self, url, http, stack):
        self._url, self._http, self._stack = url, http, stack
        self.session = uuid.uuid4().hex
        found = http.get(f"{url}config").raise_for_status().json()["dependencies"]
        self._buttons = {each["api_name"]: each["id"] for each in found}

    def press(self, button, data):
        body = {"data": data, "fn_index": self._buttons[button], "session_hash": self.session}
        kind = "queue/join" if button in QUEUED else f"run/{button}"
        response = self._http.post(f"{self._url}gradio_api/{kind}", json=body)
        return response.raise_for_status().json()

    def listen(self):
        """What the server tells; to close it is to leave."""
        response = self._stack.enter_context(
            self._http.stream(
                "GET",
                f"{self._url}gradio_api/queue/data",
                params={"session_hash": self.session},
            )
        )
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))

    def speak(self, engine, text, **given):
        """Press Speak and wait; the status and the page's addresses of the clip's WAV."""
        self.press("speak", filled(engine, text=text, **given))
        last = [event for event in self.listen() if event["msg"] == "process_completed"][-1]
        shown = last["output"]["data"][0]
        status = re.search(r'id="status">([^<]*)<', shown)[1]
        return status, re.findall(r"echo-clips/[\w-]+\.wav", shown)

    def audio(self, address):
        data = self._http.get(f"{self._url}{address}").raise_for_status().content
        return np.frombuffer(data[44:], "<i2").astype(np.float32) / 32767


@contextlib.contextmanager
def visitor(url):
    """Someone on the page; they leave at the end."""
    with httpx.Client(timeout=20) as http, contextlib.ExitStack() as stack:
        yield Visitor(url, http, stack)


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_page_has_the_voices_and_presets_at_hand(make_engine, add_voice):
    add_voice("anna")
    config = build_ui(make_engine()).get_config_file()
    properties = {
        component["props"].get("elem_id"): component["props"] for component in config["components"]
    }
    assert properties["voice"]["choices"] == [("anna", "anna")]
    assert ("low_mid", "low_mid") in properties["preset"]["choices"]
    assert properties["preset"]["value"] == "default"
    assert "new" not in properties  # the form for a new voice: cloning is off
    assert config["analytics_enabled"] is False
    assert "fonts.googleapis" not in json.dumps(config, default=str)


def test_the_clip_on_the_page_is_what_the_engine_says(serve):
    engine, url = serve()
    with visitor(url) as visit:
        status, addresses = visit.speak(engine, TEXT, seed=5)
        assert status.startswith("Done: ")
        expected = engine.synthesize(SpeechRequest(TEXT, seed=5))
        np.testing.assert_allclose(visit.audio(addresses[0]), np.clip(expected, -1, 1), atol=1e-4)


def test_two_people_at_once_hear_what_each_would_alone(serve):
    engine, url = serve()
    with visitor(url) as first, visitor(url) as second:
        visits = {1: first, 2: second}
        for seed, visit in visits.items():
            visit.press("speak", filled(engine, text=TEXT, seed=seed))
        for seed, visit in visits.items():
            last = [event for event in visit.listen() if event["msg"] == "process_completed"][-1]
            stage, history = last["output"]["data"]
            assert history.count('class="card"') == 1
            address = re.search(r"echo-clips/[\w-]+\.wav", stage)[0]
            expected = engine.synthesize(SpeechRequest(TEXT, seed=seed))
            np.testing.assert_allclose(visit.audio(address), np.clip(expected, -1, 1), atol=1e-4)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"text": ""}, "The text is empty."),
        ({"text": "Hi.", "voice": "nobody"}, "No voice &#x27;nobody&#x27;"),
        ({"text": "Hi.", "num_steps": "x"}, "num_steps is &#x27;x&#x27;; write a number"),
        ({"text": "Hi.", "cfg_min_t": 7.0}, "cfg_min_t is 7.0; the highest allowed value is 1"),
    ],
)
def test_a_mistake_is_a_sentence(serve, given, sentence, capfd):
    engine, url = serve()
    steps = given.pop("num_steps", None)
    data = filled(engine, **given)
    if steps is not None:
        data = [steps if each is None and i == NUM_STEPS else each for i, each in enumerate(data)]
    with visitor(url) as visit:
        visit.press("speak", data)
        last = [event for event in visit.listen() if event["msg"] == "process_completed"][-1]
    assert sentence in last["output"]["data"][0]
    assert 'data-state="error"' in last["output"]["data"][0]
    assert "Traceback" not in capfd.readouterr().err


def test_what_a_text_holds_is_never_markup(serve):
    engine, url = serve()
    with visitor(url) as visit:
        visit.press("speak", filled(engine, text="<img src=x onerror=alert(1)> and <b>bold</b>."))
        last = [event for event in visit.listen() if event["msg"] == "process_completed"][-1]
    assert "<img" not in "".join(last["output"]["data"])
    assert "&lt;img" in last["output"]["data"][1]


def test_a_visitor_who_leaves_stops_their_generation(serve):
    engine, url = serve(*ENDLESS)
    with visitor(url) as visit:
        visit.press("speak", filled(engine, text=LONG_TEXT, seed=1))
        events = visit.listen()
        assert next(events)["msg"] == "estimation"
        wait_until(lambda: engine.stats()["active"] == 1)
    wait_until(lambda: engine.stats()["active"] == 0)


def test_stop_stops_ones_own_generation_only(serve):
    engine, url = serve(*ENDLESS)
    with visitor(url) as first, visitor(url) as second:
        for visit in (first, second):
            visit.press("speak", filled(engine, text=LONG_TEXT, seed=1))
        wait_until(lambda: engine.stats()["active"] == 2)
        first.press("stop", [None])
        wait_until(lambda: engine.stats()["active"] == 1)
        messages = [event for event in first.listen() if event["msg"] == "process_completed"]
        assert messages[0]["success"]
        assert "Stopped after" in str(messages[0]["output"])
        assert engine.stats()["active"] == 1


def test_with_a_password_nobody_else_gets_in(serve):
    _, url = serve("ui.password=open-sesame")
    with httpx.Client() as http:
        assert http.get(f"{url}config").status_code == httpx.codes.UNAUTHORIZED
        for password, status in (("guess", 400), ("open-sesame", 200)):
            reply = http.post(f"{url}login", data={"username": "me", "password": password})
            assert reply.status_code == status
        assert http.get(f"{url}config").status_code == httpx.codes.OK


def test_under_a_strange_name_the_page_does_not_answer(serve):
    _, url = serve()
    for host, status in (("evil.example", 403), ("localhost:7860", 200), ("page.localhost", 200)):
        assert httpx.get(f"{url}config", headers={"host": host}).status_code == status, host
    _, named = serve("server.allowed_hosts=['page.lan','127.0.0.1']")
    for host, status in (("evil.example", 403), ("page.lan", 200)):
        assert httpx.get(f"{named}config", headers={"host": host}).status_code == status, host


@contextlib.contextmanager
def running(app):
    """A server with ``app``; gives its URL."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def test_beside_the_api_the_page_speaks_with_the_same_engine(make_engine, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    engine, app = make_engine(), FastAPI()
    app.get("/health")(lambda: "here")
    mount(app, engine)
    with running(app) as url:
        assert httpx.get(f"{url}health").json() == "here"
        with visitor(f"{url}ui/") as visit:
            status, addresses = visit.speak(engine, TEXT, seed=5)
            assert status.startswith("Done: ")
            assert len(visit.audio(addresses[0])) == len(
                engine.synthesize(SpeechRequest(TEXT, seed=5))
            )


# Runs a program that dies as soon as it looks up or connects to another machine.
ALONE = """
import os, runpy, sys

def watch(event, args):
    host = None
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = args[1][0]
    elif event == "socket.getaddrinfo":
        host = args[0]
    if host not in (None, "127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost"):
        sys.stderr.write(f"CALLS OUT: {event} {args}")
        sys.stderr.flush()
        os._exit(99)

sys.addaudithook(watch)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@contextlib.contextmanager
def program(*arguments, cwd):
    """``gradio_app.py`` as a process that must keep to this machine; gives it and its port."""
    port = free_port()
    command = [sys.executable, "-c", ALONE, str(REPOSITORY / "gradio_app.py"), f"ui.port={port}"]
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(cwd), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process, port
        finally:
            process.kill()


def test_the_program_serves_a_page_that_calls_nobody(tmp_path):
    with program("model=tiny", cwd=tmp_path) as (process, port):
        lines = []
        while not any("in a browser" in line for line in lines):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)  # empty: it has ended
        url = f"http://127.0.0.1:{port}/"
        assert f"open {url} in a browser" in lines[-1]
        page = httpx.get(url)
        assert page.status_code == 200
        assert not re.findall(r"(?:src|href)=[\"']?https?://(?!127\.0\.0\.1)[^\"' >]*", page.text)
        assert "fonts.googleapis" not in page.text + httpx.get(f"{url}theme.css").text
        assert process.poll() is None


def test_the_watch_over_the_program_does_fire(tmp_path):
    (tmp_path / "caller.py").write_text(
        "import socket; socket.getaddrinfo('echo.invalid', 80)", encoding="utf-8"
    )
    command = [sys.executable, "-c", ALONE, str(tmp_path / "caller.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr[:10]) == (99, "CALLS OUT:")


def test_a_taken_port_is_a_sentence_that_names_the_key(make_engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        engine = make_engine(f"ui.port={taken.getsockname()[1]}")
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1, port \d+") as caught:
            open_page(engine)
    assert caught.value.param == "ui.port"


def test_without_gradio_the_error_says_how_to_get_it(toy_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[ui\]'"):
        launch(toy_config())
