"""Two replicas behind Serve's proxy: what holds for one server holds for them together."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection

pytestmark = pytest.mark.timeout(600)

REPLICA = "x-echo-replica"
KEY = {"authorization": "Bearer sesame"}
VOICES = ("clara", "oscar", "iris", "bruno", "nora", "felix")
SENTENCE = "The river is quiet this morning, and the boats wait for the wind. "
LONG = SENTENCE * 12
CLIP = Path(__file__).parents[2] / "audio_prompts" / "clara.flac"


def at_once(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def frames(text: str) -> Iterator[str]:
    create = {"voiceId": "clara", "audioConfig": {"audioEncoding": "PCM"}}
    for frame in ({"create": create}, {"send_text": {"text": text}}, {"flush_context": {}}):
        yield json.dumps({"contextId": "a", **frame})


def read_on(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=120)


def test_every_answer_says_which_replica_gave_it_and_has_one_request_id(cluster):
    answer = cluster.client.get("/health", headers={"x-request-id": "mine-7"})
    assert answer.json()["status"] == "ok"
    assert answer.headers.get_list("x-request-id") == ["mine-7"]
    assert answer.headers[REPLICA] in cluster.replicas()


def test_streams_are_spread_over_the_replicas(cluster):
    text = "Hello there. " * 6  # long enough for all to be in work together
    bodies = [{"input": text, "voice": voice, "stream": True} for voice in VOICES]
    replies = at_once([partial(cluster.speak, **body) for body in bodies])
    assert [reply.status_code for reply in replies] == [200] * 6
    assert all(len(reply.content) > 20_000 for reply in replies)
    dealt = Counter(reply.headers[REPLICA] for reply in replies)
    assert len(dealt) == 2
    assert min(dealt.values()) >= 2


def test_requests_of_a_voice_go_to_one_replica_and_voices_to_both(cluster):
    cluster.settle()
    seen = defaultdict(Counter)
    for number in range(12):
        voice = f"nobody {number % 6}"  # refused before any work, so that this takes no time
        for _ in range(3):
            seen[voice][cluster.speak(input="Hi.", voice=voice).headers[REPLICA]] += 1
    # What the proxy still counts as in work sends one elsewhere now and then.
    at_home = sum(max(replicas.values()) for replicas in seen.values())
    assert at_home >= 33, seen  # of 36; by chance it would be 24
    others = set()
    for number in range(40):
        others |= {cluster.speak(input="Hi.", voice=f"nobody {number}").headers[REPLICA]}
    assert others == cluster.replicas()


def test_errors_and_limits_are_those_of_the_application(cluster):
    empty = cluster.speak(input="", voice="clara")
    assert (empty.status_code, empty.json()["error"]["param"]) == (400, "input")
    nobody = cluster.client.post("/tts/v1/voice", json={"text": "Hi.", "voiceId": "nobody"})
    assert (nobody.status_code, nobody.json()["code"]) == (404, 5)
    strange = {"host": "evil.example"}
    assert cluster.client.get("/health", headers=strange).status_code == 403
    assert cluster.client.get("/metrics").status_code == 404  # they are Ray's


def test_without_a_key_nobody_gets_in(cluster):
    nobody = {"authorization": "Bearer guess"}
    for path, told in (("/v1/audio/speech", "error"), ("/tts/v1/voice", "message")):
        answer = cluster.client.post(path, json={"input": "Hi."}, headers=nobody)
        assert answer.status_code == 401
        assert told in answer.json()
    with pytest.raises(InvalidStatus) as caught, cluster.socket(**nobody):
        pass
    assert caught.value.response.status_code == 401


def test_a_voice_cloned_at_one_is_there_at_both_and_so_is_its_end(cluster):
    made = cluster.client.post(
        "/v1/audio/voices", data={"name": "Anna"}, files={"audio_sample": CLIP.read_bytes()}
    )
    assert made.status_code == 200, made.text
    voice = made.json()["id"]
    replies = at_once([lambda: cluster.speak(input="Hi.", voice=voice)] * 6)
    assert [reply.status_code for reply in replies] == [200] * 6
    assert {reply.headers[REPLICA] for reply in replies} == cluster.replicas()
    assert cluster.client.delete(f"/v1/audio/voices/{voice}").status_code == 200
    end = time.monotonic() + 30
    gone: set[str] = set()
    while gone != cluster.replicas():
        assert time.monotonic() < end
        answer = cluster.client.get("/v1/audio/voices")
        if voice not in answer.text:
            gone.add(answer.headers[REPLICA])


def test_a_websocket_speaks_through_the_proxy(cluster):
    with cluster.socket(**KEY) as socket:
        for frame in frames("Hello there."):
            socket.send(frame)
        socket.send(json.dumps({"contextId": "a", "close_context": {}}))
        results = []
        while "contextClosed" not in (results[-1] if results else {}):
            results.append(json.loads(socket.recv(timeout=120))["result"])
    assert [each for each in results if "audioChunk" in each]


def test_a_client_that_leaves_stops_its_generation(cluster):
    with cluster.stream(input=LONG, voice="clara") as stream:
        replica = stream.headers[REPLICA]
        next(stream.iter_raw())
    end = time.monotonic() + 60
    while cancelled(replica) < 1:
        assert time.monotonic() < end
        time.sleep(0.2)


def cancelled(replica: str) -> float:
    """As Ray's agent tells it to Prometheus."""
    import ray

    [node] = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    lines = httpx.get(address, timeout=30).text.splitlines()
    wanted = ("ray_echo_speech_requests_total{", 'outcome="cancelled"', f'replica="{replica}"')
    found = [line for line in lines if all(part in line for part in wanted)]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def test_ray_itself_listens_on_loopback_only(cluster):
    import ray

    assert [node["NodeManagerAddress"] for node in ray.nodes()] == ["127.0.0.1"]


def test_a_killed_replica_breaks_its_streams_and_loses_no_request_that_had_not_begun(cluster):
    """With `stream: false` a WAV begins when it is whole: until then nothing was answered."""
    before = cluster.wait_for(2)
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        streams = [
            stack.enter_context(cluster.stream(input=SENTENCE * 6, voice=v)) for v in VOICES[:3]
        ]
        victim = streams[0].headers[REPLICA]
        socket = stack.enter_context(cluster.socket(**KEY))
        for frame in frames(SENTENCE * 6):
            socket.send(frame)
        body = {"input": "Is anybody there?", "response_format": "wav", "stream": False}
        waiting = [pool.submit(cluster.speak, voice=voice, **body) for voice in VOICES[:4]]
        time.sleep(0.5)  # they are on their way to both
        cluster.kill(victim)
        answers = [each.result() for each in waiting]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert all(answer.content[:4] == b"RIFF" for answer in answers)
        assert victim not in {answer.headers[REPLICA] for answer in answers}
        hers = [stream for stream in streams if stream.headers[REPLICA] == victim]
        for stream in hers:
            with pytest.raises(httpx.RemoteProtocolError):
                stream.read()
        if socket.response is not None and socket.response.headers[REPLICA] == victim:
            with pytest.raises(ConnectionClosedError):
                read_on(socket)
    assert cluster.speak(input="Hi.", voice="clara").status_code == 200
    after = cluster.wait_for(2)
    assert victim not in after
    assert before - {victim} <= after


@pytest.mark.long
def test_an_update_and_scaling_down_leave_running_streams_whole(cluster):
    from ray import serve

    from echo.cluster.app import APPLICATION, application

    old = cluster.wait_for(2)
    with ExitStack() as stack:
        streams = [
            stack.enter_context(cluster.stream(input=SENTENCE * 5, voice=v)) for v in VOICES[:4]
        ]
        assert {stream.headers[REPLICA] for stream in streams} == old
        update = application(cluster.config("cluster.replicas=1"))
        deploying = threading.Thread(target=serve.run, args=[update], kwargs={"name": APPLICATION})
        deploying.start()
        sizes = [len(stream.read()) for stream in streams]
        deploying.join()
    seconds = [size / 2 / 44_100 for size in sizes]
    assert min(seconds) > 10, seconds  # five sentences, to their end
    new = cluster.wait_for(1)
    end = time.monotonic() + 120
    while cluster.replicas() & old:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert cluster.replicas() == new
    assert cluster.speak(input="Hi.", voice="clara").status_code == 200
