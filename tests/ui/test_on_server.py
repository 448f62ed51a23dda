"""The page at /ui of the API's server: who gets it, what of Gradio is let through, how it ends."""

import contextlib
import os
import re
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from echo.engine import SpeechRequest
from echo.errors import ConfigError
from echo.ui.launch import page_beside_api
from tests.ui.conftest import serving
from tests.ui.test_page import ENDLESS, LONG_TEXT, TEXT, filled, visitor, wait_until

KEY, PASSWORD = "a-key-of-the-api", "open-sesame"
KEYS, LOCKED = f"server.api_keys={KEY}", f"ui.password={PASSWORD}"
ROOT = Path(__file__).parents[2]
ELSEWHERE = {"origin": "http://evil.example"}


@pytest.mark.parametrize(
    ("settings", "keyed", "there"),
    [
        ((), False, True),
        ((LOCKED,), True, True),
        (("ui.on_server=true",), False, True),
        (("ui.on_server=false", LOCKED), False, False),
        ((), True, False),
    ],
)
def test_the_page_is_there_unless_it_is_turned_off_or_would_pass_by_the_keys(
    toy_config, caplog, settings, keyed, there
):
    with caplog.at_level("INFO"):
        assert (page_beside_api(toy_config(*settings), keyed=keyed) is not None) is there
    told = "no page at /ui: there are API keys" in caplog.text
    assert told == (not there and settings == ())


def test_a_page_that_is_asked_for_and_would_pass_by_the_keys_is_an_error(toy_config):
    with pytest.raises(ConfigError, match=r"give it a password with ui\.password") as caught:
        page_beside_api(toy_config("ui.on_server=true"), keyed=True)
    assert caught.value.param == "ui.on_server"


def test_without_gradio_the_server_goes_on_and_says_how_to_get_the_page(
    toy_config, caplog, monkeypatch
):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with caplog.at_level("INFO"):
        assert page_beside_api(toy_config(), keyed=False) is None
    assert "no page at /ui: the page needs Gradio: pip install 'echo-tts[ui]'" in caplog.text
    with pytest.raises(ConfigError, match=r"pip install 'echo-tts\[ui\]'"):
        page_beside_api(toy_config("ui.on_server=true"), keyed=False)


def test_serve_py_needs_no_gradio(tmp_path):
    program = (
        "import runpy, sys; sys.modules['gradio'] = None; "
        f"sys.argv = ['serve.py', 'model=tiny', 'server.port=0']; "
        f"runpy.run_path({str(ROOT / 'serve.py')!r}, run_name='__main__')"
    )
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_")}
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            lines = []
            while not any("listening on" in line for line in lines):
                lines.append(process.stderr.readline())
                assert lines[-1], "".join(lines)  # empty: it has ended
        finally:
            process.kill()
    assert any("no page at /ui: the page needs Gradio" in line for line in lines)
    assert "the page is at" not in lines[-1]


def test_one_engine_speaks_for_both_and_the_log_says_where(served, caplog):
    with caplog.at_level("INFO"):
        engine, client, _ = served()
    assert "(the page is at /ui; documentation at /docs" in caplog.text
    assert "GET /ui" in client.get("/").json()["endpoints"]
    moved = client.get("/ui")
    assert (moved.status_code, moved.headers["location"]) == (307, f"{client.base_url}/ui/")
    with visitor(f"{client.base_url}/ui/") as visit:
        status, addresses = visit.speak(engine, TEXT, seed=5)
        assert status.startswith("Done: ")
        assert len(visit.audio(addresses[0])) == len(engine.synthesize(SpeechRequest(TEXT, seed=5)))
    assert client.post("/v1/audio/speech", json={"input": TEXT}).status_code == 200


def test_with_keys_the_page_opens_with_its_password_and_the_api_with_a_key(served):
    _, client, _ = served(KEYS, LOCKED)
    for path in ("/ui/config", "/ui/gradio_api/queue/data?session_hash=x", "/ui/gradio_api/info"):
        assert client.get(path).status_code == 401, path
    for path in ("/ui/gradio_api/queue/join", "/ui/gradio_api/upload", "/ui/gradio_api/run/stop"):
        assert client.post(path, json={"data": []}).status_code == 401, path
    for password, status in (("guess", 400), (KEY, 400), (PASSWORD, 200)):
        reply = client.post("/ui/login", data={"username": "me", "password": password})
        assert reply.status_code == status
    assert client.get("/ui/config").status_code == 200
    assert client.get("/v1/models").status_code == 401  # for the visitor, too
    headers = {"authorization": f"Bearer {KEY}"}
    assert client.get("/v1/models", headers=headers).status_code == 200


def test_a_page_without_a_password_would_stay_behind_the_keys(served):
    _, client, _ = served(KEYS)
    for path in ("/ui", "/ui/", "/ui/config", "/ui/assets/x.js", "/ui/echo-clips/x.wav"):
        assert client.get(path).status_code == 401, path
    assert client.post("/ui/login", data={"username": "me", "password": "x"}).status_code == 401


def test_strange_pages_neither_call_nor_read_this_one(served):
    _, client, _ = served()
    rebound = client.get("/ui/config", headers={"host": "evil.example"})
    assert rebound.json()["error"]["code"] == "host_not_allowed"
    for path in ("/ui/gradio_api/queue/join", "/ui/gradio_api/upload", "/ui/login"):
        assert client.post(path, headers=ELSEWHERE, json={}).status_code == 403, path
    # Under a name that is not the machine's own, Gradio by itself would let every origin read.
    _, named, _ = served("server.allowed_hosts=['*']", LOCKED)
    for headers in (ELSEWHERE, {**ELSEWHERE, "access-control-request-method": "GET"}):
        for method in ("GET", "OPTIONS"):
            reply = named.request(method, "/ui/config", headers={**headers, "host": "page.lan"})
            assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/token",
        "/gradio_api/vibe-code",
        "/gradio_api/proxy=https://evil.hf.space/x",
        "/gradio_api/run-history/records",
        "/monitoring",
        "/logout",
        "/../v1/models",
        "/gradio_api/queue/join/../../token",
    ],
)
def test_what_the_page_does_not_need_of_gradio_is_not_there(served, path):
    _, client, _ = served()
    connection = HTTPConnection(client.base_url.host, client.base_url.port)  # leaves ../ as it is
    with contextlib.closing(connection):
        connection.request("GET", f"/ui{path}")
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (404, b"There is no such thing on this page.")


def test_uploads_obey_the_limits_of_the_server_and_of_voices(served):
    _, client, _ = served("server.max_body_bytes=200000", "voices.max_inline_bytes=50000")

    def upload(size, *, announced):
        files = {"files": ("clip.wav", b"x" * size, "audio/wav")}
        request = client.build_request("POST", "/ui/gradio_api/upload", files=files)
        if not announced:
            body = request.read()
            headers = {"content-type": request.headers["content-type"]}
            parts = (body[i : i + 50_000] for i in range(0, len(body), 50_000))
            request = client.build_request("POST", request.url, content=parts, headers=headers)
        return client.send(request)

    assert upload(40_000, announced=True).status_code == 200
    assert upload(60_000, announced=True).status_code == 413
    for announced in (True, False):
        reply = upload(300_000, announced=announced)
        assert reply.status_code == 413, reply.text
        assert "over 200000 bytes" in reply.text or "maximum allowed size" in reply.text


def test_what_visitors_upload_is_gone_when_the_server_is(make_engine, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    with serving(make_engine("server.port=0")) as server, httpx.Client() as client:
        files = {"files": ("me.wav", b"x" * 1000, "audio/wav")}
        (kept,) = client.post(f"{server.url}/ui/gradio_api/upload", files=files).json()
        assert Path(kept).read_bytes() == b"x" * 1000
    assert not Path(kept).exists()


def test_calls_of_the_page_are_one_series_and_take_no_place_of_the_api(served):
    _, client, _ = served("server.max_concurrent=1")
    for path in ("/ui/", "/ui/config", "/ui/assets/made-up.js", "/ui/gradio_api/file=/etc/passwd"):
        client.get(path)
    assert client.post("/ui/gradio_api/cancel", json={}).status_code == 422  # Gradio's own answer
    told = client.get("/metrics").text
    routes = set(re.findall(r'echo_http_requests_total\{method="GET",route="([^"]*)"', told))
    assert routes == {"/ui"}


def test_an_open_page_does_not_hold_up_the_end(served, caplog):
    with caplog.at_level("INFO"), contextlib.ExitStack() as stack:
        engine, client, server = served(*ENDLESS)
        visit = stack.enter_context(visitor(f"{client.base_url}/ui/"))
        alive = f"/ui/gradio_api/heartbeat/{visit.session}"
        beats = stack.enter_context(client.stream("GET", alive)).iter_lines()
        assert next(beats) == "data: ALIVE"
        visit.press("speak", filled(engine, text=LONG_TEXT, seed=1))
        events = visit.listen()
        assert next(events)["msg"] == "estimation"
        wait_until(lambda: engine.stats()["active"] == 1)
        server.should_exit = True
        assert "ALIVE" not in "".join(beats)  # ended, not broken off
        assert list(events)  # what still runs ends with the engine, which is the program's to close
    assert "timeout graceful shutdown exceeded" not in caplog.text
    assert "Traceback" not in caplog.text
