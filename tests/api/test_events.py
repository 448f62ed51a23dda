from __future__ import annotations

import base64
import json
import re

import httpx
import pytest

from .test_streaming import failing_at

TEXT = "Hello there."


def events_of(body: str) -> list[dict]:
    assert body.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in body[:-2].split("\n\n")]


@pytest.mark.parametrize("fmt", ["pcm", "wav", "mp3", "opus", "aac", "flac"])
def test_the_deltas_joined_are_the_streamed_file(running, fmt):
    body = {"input": TEXT, "response_format": fmt, "stream": True, "seed": 7}
    reply = running.speak(**body, stream_format="sse")
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-audio-sample-rate"] == ("48000" if fmt == "opus" else "44100")
    *deltas, last = events_of(reply.text)
    assert all(set(event) == {"type", "audio"} for event in deltas)
    audio = b"".join(base64.b64decode(event["audio"], validate=True) for event in deltas)
    assert audio == running.speak(**body).content
    stats = running.engine.streams[-1].stats
    assert last == {
        "type": "speech.audio.done",
        "usage": {
            "input_tokens": stats.text_tokens,
            "output_tokens": 8,
            "total_tokens": stats.text_tokens + 8,
        },
    }
    assert stats.text_tokens >= len(TEXT)


def test_openais_defaults_hold_for_events(running):
    *deltas, _ = events_of(running.speak(input=TEXT, stream_format="sse").text)
    assert base64.b64decode(deltas[0]["audio"])[0] == 0xFF  # an mp3 frame


def test_a_wav_in_events_is_streamed(running):
    reply = running.speak(input=TEXT, stream_format="sse", response_format="wav")
    first = base64.b64decode(events_of(reply.text)[0]["audio"])
    assert first[40:44] == b"\xff\xff\xff\xff"


def test_a_whole_file_can_come_as_events(running):
    body = {"input": TEXT, "response_format": "wav", "stream": False, "seed": 7}
    reply = running.speak(**body, stream_format="sse")
    *deltas, _ = events_of(reply.text)
    audio = b"".join(base64.b64decode(event["audio"]) for event in deltas)
    assert audio == running.speak(**body).content


def test_no_line_is_longer_than_a_cautious_client_reads(running):
    reply = running.speak(input=TEXT, stream=True, stream_format="sse", block_sizes=[64])
    assert max(map(len, reply.text.split("\n"))) < 40_000


def test_a_failure_between_events_breaks_the_connection(run):
    with (
        run(change=failing_at(2)) as running,
        running.stream(input=TEXT, stream=True, stream_format="sse") as reply,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        reply.read()


@pytest.mark.parametrize("stream", [True, False])
def test_timing_is_told_as_far_as_it_is_known(running, stream):
    timing = running.speak(input=TEXT, stream=stream).headers["server-timing"]
    spans = dict(re.findall(r'(\w+)(?:;desc="\w+")?;dur=([\d.]+)', timing))
    assert {"queue", "voice", "ttfb"} <= spans.keys()
    assert ("total" in spans) >= (not stream)
    assert float(spans["ttfb"]) > 0
