from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from ..conftest import Running, steps_of, wait_until
from ..test_streaming import failing_at
from .conftest import audio_of

PATH = "/tts/v1/voice:streamBidirectional"
PCM = {"voiceId": "anna", "audioConfig": {"audioEncoding": "PCM", "sampleRateHertz": 44_100}}
BYTES = 8 * 2048 * 2  # of one utterance of the toy
SLOW = ("preset.block_sizes=[4,400]", "preset.num_steps=[1,200]")


class Client:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.seen: list[dict[str, Any]] = []

    def send(self, context: str | None = "c", **frame: object) -> None:
        named = {} if context is None else {"context_id": context}
        self.socket.send(json.dumps({**frame, **named}))

    def next(self, timeout: float = 60) -> dict[str, Any]:
        result = json.loads(self.socket.recv(timeout))["result"]
        assert set(result["status"]) == {"code", "message", "details"}
        self.seen.append(result)
        return result

    def until(self, key: str, context: str = "c") -> dict[str, Any]:
        while True:
            result = self.next()
            if key in result and result["contextId"] == context:
                return result

    def audio(self, context: str = "c") -> bytes:
        chunks = [
            r["audioChunk"] for r in self.seen if r["contextId"] == context and "audioChunk" in r
        ]
        return b"".join(map(audio_of, chunks))

    def kinds(self, context: str = "c") -> list[str]:
        """What the frames were, runs of audio as one."""
        kinds = [
            next((key for key in result if key not in ("contextId", "status")), "error")
            for result in self.seen
            if result["contextId"] == context
        ]
        return [kind for i, kind in enumerate(kinds) if i == 0 or kind != kinds[i - 1]]

    def silent_for(self, seconds: float) -> bool:
        try:
            self.next(seconds)
        except TimeoutError:
            return True
        return False


@contextmanager
def opened(running: Running) -> Iterator[Client]:
    url = running.server.url.replace("http", "ws") + PATH
    with connect(url) as socket:
        yield Client(socket)


@pytest.fixture
def client(running) -> Iterator[Client]:
    with opened(running) as client:
        yield client


def texts(running: Running, since: int) -> list[str]:
    return [stream.info.text.normalized for stream in running.engine.streams[since:]]


def test_a_conversation_without_waiting_comes_back_in_order(client):
    client.send(create={**PCM, "modelId": "m"})
    client.send(send_text={"text": "Hello there.", "flush_context": {}})
    client.send(close_context={})
    client.until("contextClosed")
    assert client.kinds() == ["contextCreated", "audioChunk", "flushCompleted", "contextClosed"]
    assert len(client.audio()) == BYTES
    chunk = next(r["audioChunk"] for r in client.seen if "audioChunk" in r)
    assert set(chunk) == {"audioContent", "usage"}
    assert chunk["usage"] == {"processedCharactersCount": 12, "modelId": "m"}
    created = client.seen[0]["contextCreated"]
    assert created["audioConfig"]["audioEncoding"] == "PCM"
    assert all(result["status"]["code"] == 0 for result in client.seen)


def test_camel_case_and_ids_inside_are_understood(client):
    client.socket.send(json.dumps({"create": {**PCM, "contextId": "x"}}))
    client.socket.send(
        json.dumps({"sendText": {"text": "Hi.", "flushContext": {}, "contextId": "x"}})
    )
    client.socket.send(json.dumps({"closeContext": {}, "contextId": "x"}))
    client.until("contextClosed", "x")
    assert len(client.audio("x")) == BYTES


def test_a_sentence_is_spoken_as_soon_as_it_is_complete(client, running):
    since = len(running.engine.streams)
    client.send(create=PCM)
    for piece in ("Hel", "lo there", ". How ", "are you"):
        client.send(send_text={"text": piece})
    client.until("audioChunk")
    assert texts(running, since) == ["[S1] Hello there."]
    client.send(send_text={"text": " today?"})
    client.send(send_text={"text": " Well"})
    client.send(close_context={})
    client.until("contextClosed")
    said = texts(running, since)  # what is there when the speech before ends is spoken as one
    assert " ".join(said).replace(" [S1]", "") == "[S1] Hello there. How are you today? Well"
    assert len(client.audio()) == len(said) * BYTES


def test_a_full_stop_at_rest_ends_a_sentence_and_a_decimal_does_not(client, running):
    since = len(running.engine.streams)
    client.send(create=PCM)
    client.send(send_text={"text": "It costs 3."})
    client.send(send_text={"text": "14 euros."})
    client.until("audioChunk")
    assert texts(running, since) == ["[S1] It costs 3.14 euros."]


def test_an_unfinished_sentence_waits_for_its_flush(client, running):
    since = len(running.engine.streams)
    client.send(create=PCM)
    client.until("contextCreated")
    client.send(send_text={"text": "and so on"})
    assert client.silent_for(0.4)
    client.send(flush_context={})
    client.until("flushCompleted")
    assert len(client.audio()) == BYTES
    client.send(flush_context={})
    client.until("flushCompleted")
    assert len(client.audio()) == BYTES
    assert texts(running, since) == ["[S1] and so on"]


def test_two_contexts_are_interleaved_and_each_keeps_its_order(run):
    shape = ("preset.block_sizes=[4,4,4,4]", "preset.num_steps=[5,5,5,5]")
    with run(*shape) as running, opened(running) as client:
        for context in ("a", "b"):
            client.send(context, create=PCM)
            client.send(context, send_text={"text": "Hello there.", "flush_context": {}})
        client.send("a", close_context={})
        client.send("b", close_context={})
        client.until("contextClosed", "a")
        if "contextClosed" not in client.kinds("b"):
            client.until("contextClosed", "b")
        order = [r["contextId"] for r in client.seen if "audioChunk" in r]
        assert order != sorted(order)
        assert order != sorted(order, reverse=True)
        for context in ("a", "b"):
            assert client.kinds(context) == [
                "contextCreated",
                "audioChunk",
                "flushCompleted",
                "contextClosed",
            ]
            assert len(client.audio(context)) == 2 * BYTES


def test_cancelling_stops_the_generation_at_once_and_leaves_others_alone(run):
    with run(*SLOW) as running, opened(running) as client:
        for context in ("a", "b"):
            client.send(context, create=PCM)
        client.send("a", send_text={"text": "Hello there.", "flush_context": {}})
        client.until("audioChunk", "a")
        stream = running.engine.streams[0]
        client.send("a", cancel_context={})
        client.until("contextClosed", "a")
        assert running.engine.steps_at_close[stream] < 150
        wait_until(lambda: running.engine.stats()["active"] == 0)
        assert steps_of(stream) <= running.engine.steps_at_close[stream] + 1
        assert "flushCompleted" not in client.kinds("a")
        client.send("a", create=PCM)
        assert "contextCreated" in client.next()
        client.send("b", close_context={})
        client.until("contextClosed", "b")


def test_a_client_that_leaves_stops_all_its_contexts(run):
    with run(*SLOW) as running:
        with opened(running) as client:
            for context in ("a", "b"):
                client.send(context, create=PCM)
                client.send(context, send_text={"text": "Hello there.", "flush_context": {}})
            client.until("audioChunk", "a")
        wait_until(lambda: running.engine.stats()["active"] == 0)
        assert len(running.engine.steps_at_close) == len(running.engine.streams) >= 1
        assert max(running.engine.steps_at_close.values()) < 200


def test_at_most_five_contexts_are_open(client):
    for number in range(6):
        client.send(str(number), create=PCM)
    codes = [client.next()["status"]["code"] for _ in range(6)]
    assert codes == [0] * 5 + [8]
    client.send("0", close_context={})
    client.until("contextClosed", "0")
    client.send("5", create=PCM)
    assert "contextCreated" in client.next()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"create": {**PCM, "voiceId": "nobody"}}, 5),
        ({"create": {"audioConfig": {}}}, 3),
        ({"create": {**PCM, "audioConfig": {"audioEncoding": "X"}}}, 3),
        ({"create": 3}, 3),
        ({"send_text": {"text": "Hi."}}, 5),
        ({"flush_context": {}}, 5),
        ({"close_context": {}}, 5),
        ({"cancel_context": {}}, 5),
        ({"hello": {}}, 3),
    ],
)
def test_errors_are_status_frames_and_the_connection_lives(client, frame, code):
    client.send(**frame)
    result = client.next()
    assert result["contextId"] == "c"
    assert result["status"]["code"] == code
    assert result["status"]["message"]
    client.send(create=PCM)
    assert "contextCreated" in client.next()


@pytest.mark.parametrize("raw", ["", "{", "[]", "3", b"\xff\x00", '{"contextId": 5, "create": {}}'])
def test_what_is_no_frame_is_a_status_frame(client, raw):
    client.socket.send(raw)
    assert client.next()["status"]["code"] == 3


def test_a_text_that_is_too_long_is_refused_and_the_context_goes_on(client):
    client.send(create=PCM)
    client.send(send_text={"text": "x" * 1001})
    client.send(send_text={"text": "Hi.", "flush_context": {}})
    client.until("flushCompleted")
    assert client.kinds() == ["contextCreated", "error", "audioChunk", "flushCompleted"]
    assert client.seen[1]["status"]["code"] == 3


def test_too_much_text_at_once_is_refused(run):
    with run(*SLOW) as running, opened(running) as client:
        client.send(create=PCM)
        for _ in range(60):  # the first third may be taken in one gulp
            client.send(send_text={"text": "Hello there. " * 76})
        while client.next()["status"]["code"] == 0:
            pass
        assert client.seen[-1]["status"]["code"] == 3


def test_an_id_is_used_once_and_again_after_its_end(client):
    client.send(create=PCM)
    client.send(create=PCM)
    assert [client.next()["status"]["code"] for _ in range(2)] == [0, 6]
    client.send(close_context={})
    client.send(send_text={"text": "late"})
    client.until("contextClosed")
    client.send(create=PCM)
    while client.next().get("contextCreated") is None:
        assert client.seen[-1]["status"]["code"] == 5  # of the late text


def test_keep_alives_are_silent(client):
    client.send(None, send_text={"text": ""})
    client.send("unknown", send_text={"text": ""})
    client.send(create=PCM)
    client.send(send_text={"text": ""})
    client.send(None, send_text={"text": ""})
    assert "contextCreated" in client.next()
    assert client.silent_for(0.3)


def test_without_an_id_the_only_context_is_meant(client):
    client.send(None, create=PCM)
    context = client.next()["contextId"]
    assert context
    client.send(None, send_text={"text": "Hi.", "flush_context": {}})
    client.until("flushCompleted", context)


def test_markup_and_speakers_go_on_from_piece_to_piece(client, running):
    since = len(running.engine.streams)
    client.send(create=PCM)
    for piece in ("[S2] One. <bre", 'ak time="0.5', 's"/> Two. ', "[happy] Thr", "ee."):
        client.send(send_text={"text": piece})
    client.send(close_context={})
    client.until("contextClosed")
    said = texts(running, since)
    assert said[0] == "[S2] One."
    assert said[1:] in (["[S2] Two.", "[S2] Three."], ["[S2] Two. Three."])
    assert len(client.audio()) == len(said) * BYTES + 2 * 22_050


@pytest.mark.parametrize("encoding", ["MP3", "OGG_OPUS", "FLAC", "WAV"])
def test_one_encoder_serves_a_context(client, encoding):
    client.send(create={**PCM, "audioConfig": {"audioEncoding": encoding}})
    for _ in range(2):
        client.send(send_text={"text": "Hello.", "flush_context": {}})
    client.send(close_context={})
    client.until("contextClosed")
    magic = {"MP3": b"\xff", "OGG_OPUS": b"OggS", "FLAC": b"fLaC", "WAV": b"RIFF"}[encoding]
    data = client.audio()
    assert data.startswith(magic)
    if encoding in ("FLAC", "WAV"):
        assert data.count(magic) == 1


@pytest.mark.parametrize("strategy", ["SYNC", "ASYNC"])
def test_words_are_timed_from_the_last_flush(client, strategy):
    """Clients keep the time of what was flushed before and add it."""
    client.send(create={**PCM, "timestampType": "WORD", "timestampTransportStrategy": strategy})
    for flush in (False, False, True):
        client.send(send_text={"text": "Hello there. ", **({"flush_context": {}} if flush else {})})
    client.until("flushCompleted")
    first = timed(client.seen)
    client.send(send_text={"text": "Hello there.", "flush_context": {}})
    client.until("flushCompleted")
    second = timed(client.seen)[len(first) :]
    one = BYTES / 2 / 44_100
    for words, said in ((first, 3), (second, 1)):
        assert [word for word, _ in words] == ["Hello", "there."] * said
        ends = [end for _, end in words]
        assert ends == sorted(ends)
    assert (len(client.audio()) / 2 / 44_100 - one) == pytest.approx(first[-1][1], abs=0.02)
    assert 0 < second[-1][1] <= one + 0.02


def timed(results: list[dict[str, Any]]) -> list[tuple[str, float]]:
    """Words and their ends."""
    alignments = [
        r["audioChunk"]["timestampInfo"]["wordAlignment"]
        for r in results
        if "timestampInfo" in r.get("audioChunk", {})
    ]
    return [
        pair
        for each in alignments
        for pair in zip(each["words"], each["wordEndTimeSeconds"], strict=True)
    ]


def test_a_failing_generation_is_told_and_ends_its_context_only(run):
    with run(change=failing_at(2)) as running, opened(running) as client:
        client.send(create=PCM)
        client.send(send_text={"text": "Hello there.", "flush_context": {}})
        client.until("contextClosed")
        assert client.kinds() == ["contextCreated", "audioChunk", "error", "contextClosed"]
        assert client.seen[-2]["status"]["code"] == 13
        client.send(create=PCM)
        client.send(send_text={"text": "Hello there.", "flush_context": {}})
        client.until("flushCompleted")


def test_a_slow_reader_pauses_its_generation(run):
    text = "This goes on and on. " * 40
    with run(
        "engine.buffer_seconds=1", "preset.block_sizes=[128]", "preset.num_steps=[1]"
    ) as running:
        url = running.server.url.replace("http", "ws") + PATH
        with connect(url, max_queue=1) as socket:
            client = Client(socket)
            client.send(create=PCM)
            for _ in range(15):
                client.send(send_text={"text": text})
            client.until("audioChunk")
            made = -1
            while made != (now := sum(s.stats.samples for s in running.engine.streams)):
                made = now
                time.sleep(0.5)
            assert running.engine.stats()["active"] == 1  # it rests, and is not at its end
