"""Cloning over HTTP when the server is killed, or when two want one name."""

from __future__ import annotations

import base64
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from echo.audio.encode import encode_file

from .conftest import Running

ROOT = Path(__file__).parents[2]
# The details are written before the voice.
MOMENT = os.environ.get("KILL_AT", "default__*.clone.json")


def clip(seconds: float, seed: int = 0) -> bytes:
    noise = 0.3 * np.random.default_rng(seed).standard_normal(round(seconds * 44_100))
    return encode_file(noise.astype(np.float32), 44_100, "wav")


def openai_upload(client: httpx.Client, name: str, audio: bytes) -> httpx.Response:
    files = {"audio_sample": ("me.wav", audio, "audio/wav")}
    return client.post("/v1/audio/voices", data={"name": name}, files=files)


def inworld_upload(client: httpx.Client, name: str, audio: bytes) -> httpx.Response:
    sample = {"audioData": base64.b64encode(audio).decode()}
    body = {"displayName": name, "voiceSamples": [sample], "description": "low"}
    return client.post("/voices/v1/voices:clone", json=body)


def overrides(folder: Path, toy: Path) -> list[str]:
    roots = f"voices.roots=['{folder}','{toy / 'audio_prompts'}']"
    return [roots, f"voices.clone_root='{folder}'", "inworld.clone_enabled=true"]


def test_of_two_who_want_one_name_at_once_one_gets_it(run, toy, tmp_path):
    uploads = (openai_upload, inworld_upload)  # in whichever protocol
    with run(*overrides(tmp_path / "clones", toy)) as running:
        audio = [clip(0.4, seed) for seed in range(2)]
        replies: dict[int, httpx.Response] = {}
        begin = threading.Barrier(2)

        def make(number: int) -> None:
            with httpx.Client(base_url=running.server.url, timeout=60) as client:
                begin.wait()
                replies[number] = uploads[number](client, "Anna", audio[number])

        threads = [threading.Thread(target=make, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        winner, loser = sorted(replies, key=lambda number: replies[number].status_code)
        assert [replies[each].status_code for each in (winner, loser)] == [200, 409]
        assert "already" in message_of(replies[loser])
        assert replies[loser].headers["x-should-retry"] == "false"
        kept = tmp_path / "clones" / "default__Anna.wav"
        assert kept.read_bytes() == audio[winner]
        assert running.speak(input="Hi.", voice="default__Anna").status_code == 200


def message_of(reply: httpx.Response) -> str:
    told: dict[str, Any] = reply.json()
    return told["error"]["message"] if "error" in told else told["message"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 here")
def test_a_server_killed_while_it_clones_leaves_whole_voices_only(
    run, toy, toy_overrides, tmp_path
):
    folder = tmp_path / "clones"
    audio = clip(60.0)
    with started([*toy_overrides, *overrides(folder, toy)], tmp_path) as (program, url):
        threads = [threading.Thread(target=keep_cloning, args=(url, n, audio)) for n in range(3)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60
        while not (folder.is_dir() and any(folder.glob(MOMENT))):
            assert program.poll() is None
            assert time.monotonic() < end, "no clone was begun"
        program.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(30)
    for path in folder.glob("*.wav"):
        assert path.read_bytes() == audio, "a partial voice"
    with run(*overrides(folder, toy)) as running:
        is_tidy(folder, running, audio)


def is_tidy(folder: Path, running: Running, audio: bytes) -> None:
    """After a start: each voice whole, with its details, able to speak; nothing else is left."""
    made = {path.stem for path in folder.glob("*.wav")}
    names = {path.name for path in folder.iterdir()} - {".clones.lock"}
    assert names == {f"{v}.wav" for v in made} | {f"{v}.clone.json" for v in made}
    listed = running.client.get("/voices/v1/voices").json()["voices"]
    assert {v["voiceId"] for v in listed if v["source"] == "IVC"} == made
    assert all(v["description"] == "low" for v in listed if v["voiceId"] in made)
    for voice in made:
        assert running.speak(input="Hi.", voice=voice).status_code == 200
    again = inworld_upload(running.client, "0-0", audio)
    assert again.status_code == (409 if "default__0-0" in made else 200)


class started:  # noqa: N801 - a context manager
    """A server in a process of its own, and its address."""

    def __init__(self, settings: list[str], cwd: Path) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ECHO_")}
        self.program = subprocess.Popen(
            [sys.executable, str(ROOT / "serve.py"), *settings],
            cwd=cwd,
            env={**kept, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self.program.stderr is not None
        for line in self.program.stderr:
            if address := re.search(r"listening on (http://127\.0\.0\.1:\d+)", line):
                return self.program, address[1]
        raise AssertionError("the server did not start")

    def __exit__(self, *problem: object) -> None:
        self.program.kill()
        self.program.communicate()


def keep_cloning(url: str, number: int, audio: bytes) -> None:
    """Until the server is gone."""
    with httpx.Client(base_url=url, timeout=60) as client:
        for count in range(100):
            try:
                reply = inworld_upload(client, f"{number}-{count}", audio)
            except httpx.TransportError:
                return
            assert reply.status_code == 200, reply.text
