"""Hostile input in numbers, each case from a seed: clear refusals, nothing left behind, and a
server that speaks afterwards. By hand: FUZZ_CASES=5000.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from . import hostile
from .conftest import Running, wait_until

CASES = int(os.environ.get("FUZZ_CASES", "150"))
SEED = int(os.environ.get("FUZZ_SEED", "0"))
SECONDS = 60.0  # a hang, whatever else the machine is doing; the HTTP client gives up after 30
GROWTH_BYTES = 100 << 20  # far above what allocators keep, far below what hundreds of leaks make

SPEECH = {"input": "Hello there.", "voice": "anna", "response_format": "wav", "seed": 1}
SPEECH_FIELDS = (
    *("model", "stream", "stream_format", "sample_rate", "speed", "instructions", "extra_body"),
    *("block_sizes", "num_steps", "cfg_scale_text", "cfg_min_t", "truncation_factor", "preset"),
    *("chunk_target_seconds", "max_text_length", "guidance_mode", "init_scale", "rescale_k"),
)
INWORLD = {
    "text": "Hello there.",
    "voiceId": "anna",
    "audioConfig": {"audioEncoding": "PCM", "sampleRateHertz": 8000, "speakingRate": 1.0},
}
INWORLD_FIELDS = (
    *("modelId", "timestampType", "timestampTransportStrategy", "temperature", "audio_config"),
    *("voice_id", "audioEncoding", "bitRate"),
)
CLONE_FIELDS = ("langCode", "description", "tags", "voice_samples", "display_name")


@pytest.fixture(scope="module")
def server(run, toy, tmp_path_factory) -> Iterator[Running]:
    """Takes voices into a folder of its own, and makes temporary files in one of its own."""
    folder = tmp_path_factory.mktemp("clones")
    scratch = tmp_path_factory.mktemp("scratch")
    roots = f"voices.roots=['{folder}','{toy / 'audio_prompts'}']"
    on = [roots, f"voices.clone_root='{folder}'", "inworld.clone_enabled=true"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(scratch))
        with run(*on) as running:
            running.folder, running.scratch = folder, scratch
            yield running


@pytest.fixture(autouse=True)
def nothing_stays_behind(server) -> Iterator[None]:
    speaks(server)
    before = left_behind(server)
    yield
    speaks(server)
    try:
        wait_until(lambda: not grown(before, left_behind(server)), 10)
    except AssertionError:
        pytest.fail(f"grown: {grown(before, left_behind(server))}")


def speaks(server: Running) -> None:
    reply = server.speak(input="Still there.", stream=True)
    assert reply.status_code == 200
    assert len(reply.content) == 2 * 8 * 2048


def left_behind(server: Running) -> Counter[str]:
    """What a leak would add to."""
    server.engine.streams.clear()
    server.engine.steps_at_close.clear()
    gc.collect()
    stats = server.engine.stats()
    files = [*server.scratch.iterdir(), *server.folder.glob(".clone-part-*")]
    return Counter(
        files=len(files),
        descriptors=len(list(Path("/proc/self/fd").iterdir()))
        if Path("/proc/self/fd").is_dir()
        else 0,
        requests=stats["active"] + stats["queued"],
        memory=resident_bytes() // GROWTH_BYTES,
    )


def grown(before: Counter[str], after: Counter[str]) -> dict[str, tuple[int, int]]:
    # A pool's thread or a kept-alive connection more or less is no leak.
    allowed = {"descriptors": 8, "memory": 1}
    return {
        name: (before[name], count)
        for name, count in after.items()
        if count > before[name] + allowed.get(name, 0)
    }


def resident_bytes() -> int:
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else 0


def settled(reply: httpx.Response, seed: int) -> int:
    """An answer in its protocol's shape, whatever was asked."""
    assert reply.status_code < 500, f"seed {seed}: {reply.status_code} {reply.text[:300]}"
    if reply.status_code >= 400:
        told = reply.json()
        flat = reply.request.url.path.startswith(("/tts/", "/voices/"))
        assert set(told) == ({"code", "message", "details"} if flat else {"error"}), f"seed {seed}"
        message = told["message"] if flat else told["error"]["message"]
        assert 0 < len(message) < 1000, f"seed {seed}"
    return reply.status_code


def seeds(count: int) -> Iterator[tuple[int, Random]]:
    for seed in range(SEED, SEED + max(1, count)):
        yield seed, Random(seed)


@pytest.mark.parametrize(
    ("path", "good", "fields"),
    [
        ("/v1/audio/speech", SPEECH, SPEECH_FIELDS),
        ("/tts/v1/voice", INWORLD, INWORLD_FIELDS),
        ("/tts/v1/voice:stream", INWORLD, INWORLD_FIELDS),
    ],
)
def test_no_body_of_a_speech_request_does_harm(server, path, good, fields):
    statuses: Counter[int] = Counter()
    for seed, rng in seeds(CASES):
        raw = hostile.json_text(rng, hostile.body(rng, good, fields))
        kind = rng.choice(("application/json",) * 9 + ("text/json; charset=utf-16", "x" * 300))
        reply = server.client.post(path, content=raw, headers={"content-type": kind})
        statuses[settled(reply, seed)] += 1
    assert set(statuses) <= {200, 400, 404, 415}, statuses
    assert statuses[200], "no case got as far as speech"
    assert statuses[400]


def test_no_body_that_clones_or_changes_a_voice_does_harm(server):
    good = hostile.clips()
    statuses: Counter[int] = Counter()
    for seed, rng in seeds(CASES):
        # Few that reach the decoder: each takes a process.
        data = hostile.audio(rng, good) if rng.random() < 0.04 else rng.randbytes(500)
        sample = {"audioData": hostile.base64_text(rng, data), "transcription": "Hello."}
        body = {"displayName": f"V {seed}", "voiceSamples": [sample] * rng.choice((1, 1, 2))}
        if rng.random() < 0.7:
            body = hostile.body(rng, body, CLONE_FIELDS)
        raw = hostile.json_text(rng, body)
        method, path = rng.choice(
            (
                ("POST", "/voices/v1/voices:clone"),
                ("POST", "/voices/v1/workspaces/w/voices:clone"),
                ("PATCH", "/voices/v1/voices/default__V"),
            )
        )
        headers = {"content-type": "application/json"}
        reply = server.client.request(method, path, content=raw, headers=headers)
        statuses[settled(reply, seed)] += 1
    assert set(statuses) <= {200, 400, 404, 409}, statuses
    assert statuses[400]
    voices_are_whole(server)


def test_no_uploaded_file_does_harm(server):
    good = hostile.clips()
    statuses: Counter[int] = Counter()
    for seed, rng in seeds(CASES // 25):
        sample = hostile.audio(rng, good)
        name = rng.choice((f"U {seed}", f"U {seed}", rng.choice(hostile.STRINGS)))
        form = multipart(name.encode("utf-8", "surrogatepass"), sample)
        if rng.random() < 0.3:
            form = hostile.damaged(rng, form)
        charset = rng.choice(("", "; charset=utf-7", "; charset=hex", "; charset=unicode_escape"))
        headers = {"content-type": "multipart/form-data; boundary=xyz" + charset}
        reply = server.client.post("/v1/audio/voices", content=form, headers=headers)
        statuses[settled(reply, seed)] += 1
    assert set(statuses) <= {200, 400, 409}, statuses
    voices_are_whole(server)


def test_no_audio_in_a_request_does_harm(server):
    good = hostile.clips()
    statuses: Counter[int] = Counter()
    for seed, rng in seeds(CASES // 25):
        voice = hostile.base64_text(rng, hostile.audio(rng, good))
        statuses[settled(server.speak(input="Hi.", voice=voice), seed)] += 1
    assert set(statuses) <= {200, 400}, statuses


def test_no_frame_of_a_socket_does_harm(server):
    url = server.server.url.replace("http", "ws") + "/tts/v1/voice:streamBidirectional"
    codes: Counter[int] = Counter()
    for seed, rng in seeds(CASES // 10):
        with connect(url) as socket:
            reader = threading.Thread(target=read_results, args=(socket, codes))
            reader.start()
            for _ in range(rng.randrange(1, 25)):
                told = hostile.json_text(rng, hostile.frame(rng, ("a", "b", "c"), INWORLD))
                as_text = rng.random() < 0.7
                socket.send(told.decode("utf-8", "replace") if as_text else told)
            if rng.random() < 0.5:  # else leave in the middle of it all
                socket.send(json.dumps({"create": INWORLD, "context_id": f"last {seed}"}))
                socket.send(
                    json.dumps({"send_text": {"text": "Hi."}, "context_id": f"last {seed}"})
                )
                time.sleep(0.05)
        reader.join(SECONDS)
        assert not reader.is_alive(), f"seed {seed}"
    assert codes[0], "no frame got as far as an answer"
    assert set(codes) <= {0, 3, 5, 6, 8}, codes
    wait_until(lambda: server.engine.stats()["active"] == 0)


def read_results(socket: Any, codes: Counter[int]) -> None:
    try:
        for message in socket:
            result = json.loads(message)["result"]
            codes[result["status"]["code"]] += 1
    except ConnectionClosed as closed:
        codes[-closed.rcvd.code if closed.rcvd else -1] += 1


def multipart(name: bytes, sample: bytes) -> bytes:
    part = b'--xyz\r\nContent-Disposition: form-data; name="'
    return (
        (part + b'name"\r\n\r\n' + name + b"\r\n")
        + (part + b'audio_sample"; filename="a.wav"\r\n\r\n' + sample + b"\r\n")
        + b"--xyz--\r\n"
    )


def voices_are_whole(server: Running) -> None:
    """Each that was made is listed and can speak; nothing else is in the folder."""
    listed = {voice["id"] for voice in server.client.get("/v1/voices").json()["data"]}
    made = {path.stem for path in server.folder.iterdir() if path.suffix in (".wav", ".mp3")}
    told = {path.name.removesuffix(".clone.json") for path in server.folder.glob("*.clone.json")}
    assert made == told
    assert made <= listed
    others = [p for p in server.folder.iterdir() if p.stem not in made and p.suffix != ".json"]
    assert [path.name for path in others] == [".clones.lock"][: len(others)]
    for voice in sorted(made)[:3]:
        assert server.speak(input="Hi.", voice=voice).status_code == 200
