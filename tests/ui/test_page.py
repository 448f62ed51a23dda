import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from echo.engine import SpeechRequest
from echo.errors import ConfigError
from echo.spec import HOP
from echo.ui.launch import launch, open_page
from echo.ui.page import build_ui

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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def serve(make_engine, monkeypatch, tmp_path):
    """Serve a page; gives its engine and URL. Gradio's files stay in the test's folder."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    pages = []

    def start(*overrides):
        engine = make_engine(f"ui.port={free_port()}", *overrides)
        pages.append(build_ui(engine))
        return engine, open_page(pages[-1], engine.config)

    yield start
    for page in pages:
        page.close(verbose=False)


@pytest.fixture
def connect(tmp_path):
    with contextlib.ExitStack() as stack:

        def open_client(url):
            client = Client(url, verbose=False, download_files=tmp_path / uuid.uuid4().hex)
            stack.callback(client.close)
            return client

        yield open_client


class Visitor:
    """A browser's side of Gradio's protocol: presses buttons, listens to what happens."""

    def __init__(self, url, http, stack):
        self._url, self._http, self._stack = url, http, stack
        self._session = uuid.uuid4().hex
        found = http.get(f"{url}config").raise_for_status().json()["dependencies"]
        self._buttons = {each["api_name"]: each["id"] for each in found}

    def press(self, button, data):
        body = {"data": data, "fn_index": self._buttons[button], "session_hash": self._session}
        kind = "queue/join" if button == "speak" else f"run/{button}"
        response = self._http.post(f"{self._url}gradio_api/{kind}", json=body)
        return response.raise_for_status().json()

    def listen(self):
        """What the server tells; to close it is to leave."""
        response = self._stack.enter_context(
            self._http.stream(
                "GET",
                f"{self._url}gradio_api/queue/data",
                params={"session_hash": self._session},
            )
        )
        for line in response.iter_lines():
            if line.startswith("data:"):
                yield json.loads(line.removeprefix("data:"))


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


def test_the_page_builds_with_the_voices_and_presets_at_hand(make_engine, voice_root):
    soundfile.write(voice_root / "anna.wav", np.zeros(44_100, np.float32), 44_100)
    config = build_ui(make_engine()).get_config_file()
    properties = {
        component["props"].get("label"): component["props"] for component in config["components"]
    }
    assert properties["Voice"]["choices"] == [("anna", "anna")]
    assert ("low_mid", "low_mid") in properties["Preset"]["choices"]
    assert properties["Preset"]["value"] == "default"
    assert properties["Live"]["streaming"]
    assert config["analytics_enabled"] is False
    assert "fonts.googleapis" not in json.dumps(config, default=str)


def test_speaking_gives_live_audio_the_clip_and_the_figures(serve, connect):
    engine, url = serve()
    outputs = list(connect(url).submit(TEXT, seed=5, api_name="/speak"))
    assert sum(isinstance(output[1], str) for output in outputs) >= 3  # of the live player
    status, _, clip, seed, figures, normalized, chunks = outputs[-1]
    assert status.startswith("Done: ")
    assert (seed, normalized, chunks) == ("5", f"[S1] {TEXT}", f"[S1] {TEXT}")
    assert "TTFB" in figures
    assert "RTF" in figures
    assert Path(clip).name == "echo-5.wav"
    audio, rate = soundfile.read(clip, dtype="float32")
    assert rate == 44_100
    expected = engine.synthesize(SpeechRequest(TEXT, seed=5))
    np.testing.assert_allclose(audio, np.clip(expected, -1, 1), atol=1e-4)


def test_the_live_audio_is_what_a_browser_can_play(serve):
    engine, url = serve()
    with contextlib.closing(Client(url, verbose=False, download_files=False)) as client:
        outputs = list(client.submit(TEXT, api_name="/speak"))
        address = next(output[1]["url"] for output in outputs if output[1].get("url"))
        playlist = httpx.get(address).raise_for_status().text
        names = [line for line in playlist.splitlines() if line.endswith(".aac")]
        data = b"".join(
            httpx.get(address.replace("playlist.m3u8", name)).raise_for_status().content
            for name in names
        )
    assert "#EXT-X-ENDLIST" in playlist
    with av.open(io.BytesIO(data)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert 0 <= samples - sum(engine.config.preset.block_sizes) * HOP < 3 * 1024


def test_a_voice_that_came_later_can_be_picked_after_a_refresh(serve, voice_root, connect):
    _, url = serve()
    silence = np.zeros(44_100, np.float32)
    soundfile.write(voice_root / "late.wav", silence, 44_100)
    with visitor(url) as visit:
        assert visit.press("list_voices", [])["data"][0]["choices"] == [["late", "late"]]
    assert connect(url).predict(TEXT, voice="late", api_name="/speak")[0].startswith("Done: ")


def test_nothing_is_left_of_a_visitor_when_the_page_closes(make_engine, connect, tmp_path):
    engine = make_engine(f"ui.port={free_port()}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
        page = build_ui(engine)
        client = connect(open_page(page, engine.config))
        soundfile.write(tmp_path / "mine.wav", np.full(44_100, 0.1, np.float32), 44_100)
        client.predict(TEXT, clip=handle_file(tmp_path / "mine.wav"), api_name="/speak")
        names = {path.name for path in (tmp_path / "gradio").rglob("*.wav")}
        assert len(names) == 2
        page.close(verbose=False)
    assert not list((tmp_path / "gradio").rglob("*.wav"))


def test_an_uploaded_clip_is_the_voice(serve, connect, tmp_path):
    engine, url = serve()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 44_100)
    soundfile.write(tmp_path / "mine.wav", noise, 44_100)
    client = connect(url)
    clip = handle_file(tmp_path / "mine.wav")
    assert client.predict(TEXT, clip=clip, seed=1, api_name="/speak")[0].startswith("Done: ")
    assert engine.stats()["voice_cache"]["misses"] == 1
    client.predict(TEXT, clip=clip, seed=2, api_name="/speak")
    assert engine.stats()["voice_cache"]["hits"] == 1


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"text": ""}, "the text is empty"),
        ({"text": "Hi.", "voice": "nobody"}, "no voice 'nobody'"),
    ],
)
def test_an_error_is_a_sentence(serve, connect, given, sentence, capfd):
    _, url = serve()
    job = connect(url).submit(**given, api_name="/speak")
    with pytest.raises(AppError, match=sentence):
        job.result()
    assert job.outputs()[-1][0].startswith(f"Error: {sentence}")
    assert "Traceback" not in capfd.readouterr().err


def test_two_people_at_once_hear_what_each_would_alone(serve, connect):
    engine, url = serve()
    jobs = [connect(url).submit(TEXT, seed=seed, api_name="/speak") for seed in (1, 2)]
    for seed, job in zip((1, 2), jobs, strict=True):
        *_, last = job
        audio, _ = soundfile.read(last[2], dtype="float32")
        expected = engine.synthesize(SpeechRequest(TEXT, seed=seed))
        np.testing.assert_allclose(audio, np.clip(expected, -1, 1), atol=1e-4)


def test_a_visitor_who_leaves_stops_their_generation(serve):
    engine, url = serve(*ENDLESS)
    with visitor(url) as visit:
        visit.press("speak", [None, LONG_TEXT, None, None, "default", 1])
        events = visit.listen()
        assert next(events)["msg"] == "estimation"
        wait_until(lambda: engine.stats()["active"] == 1)
    wait_until(lambda: engine.stats()["active"] == 0)


def test_stop_stops_ones_own_generation_only(serve):
    engine, url = serve(*ENDLESS)
    with visitor(url) as first, visitor(url) as second:
        for visit in (first, second):
            visit.press("speak", [None, LONG_TEXT, None, None, "default", 1])
        wait_until(lambda: engine.stats()["active"] == 2)
        first.press("stop", [None])
        wait_until(lambda: engine.stats()["active"] == 1)
        messages = [event for event in first.listen() if event["msg"] == "process_completed"]
        assert messages[0]["success"]
        assert "Stopped after" in str(messages[0]["output"])
        assert engine.stats()["active"] == 1


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


def test_the_program_serves_a_page_that_speaks_and_calls_nobody(connect, tmp_path):
    small = ("model=tiny", "preset.block_sizes=[8,8]", "preset.num_steps=[2,2]")
    with program(*small, cwd=tmp_path) as (process, port):
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
        *_, last = connect(url).submit("Hello.", seed=3, api_name="/speak")
        assert last[0].startswith("Done: ")
        assert soundfile.info(last[2]).samplerate == 44_100
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
            open_page(build_ui(engine), engine.config)
    assert caught.value.param == "ui.port"


def test_without_gradio_the_error_says_how_to_get_it(toy_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[ui\]'"):
        launch(toy_config())
