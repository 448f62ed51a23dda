"""Listeners: they ask, hear the audio as it comes, play it in real time, and notice every gap."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from benchmarks.speech import texts
from echo.engine import Engine, SpeechRequest
from echo.errors import BusyError, GenerationError

BYTES_PER_SAMPLE = 2  # of the server's pcm
SERVER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Line:
    """What to ask for."""

    text: str
    voice: str | None
    seed: int


class Target(Protocol):
    """Something that speaks."""

    def speak(self, line: Line) -> Iterator[float]:
        """Seconds of audio of each part, as it comes. Raises EchoError; may be closed early."""
        ...


class EngineTarget:
    """An engine in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def speak(self, line: Line) -> Iterator[float]:
        request = SpeechRequest(line.text, voice=line.voice, seed=line.seed)
        with self._engine.stream(request) as stream:
            for chunk in stream:
                yield len(chunk) / stream.sample_rate


class ServerTarget:
    """A running server, over ``POST /v1/audio/speech`` with streamed pcm."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url)
        self._https, self._address = parts.scheme == "https", parts.netloc
        self._key = {"Authorization": f"Bearer {api_key}"} if api_key else {}

    def voices(self) -> list[str]:
        """Names of the voices it offers."""
        with closing(self._connect()) as connection:
            connection.request("GET", "/v1/voices", headers=self._key)
            answer = connection.getresponse()
            body = answer.read()
            self._check(answer.status, body)
            return [voice["id"] for voice in json.loads(body)["data"]]

    def speak(self, line: Line) -> Iterator[float]:
        body = {"input": line.text, "seed": line.seed, "stream": True, "response_format": "pcm"}
        if line.voice is not None:
            body["voice"] = line.voice
        headers = {"Content-Type": "application/json", **self._key}
        with closing(self._connect()) as connection:
            try:
                connection.request("POST", "/v1/audio/speech", json.dumps(body), headers)
                answer = connection.getresponse()
                if answer.status != 200:
                    self._check(answer.status, answer.read())
                rate = int(answer.headers["X-Audio-Sample-Rate"])
                while part := answer.read1(1 << 16):
                    yield len(part) / BYTES_PER_SAMPLE / rate
            except (OSError, http.client.HTTPException) as error:
                raise GenerationError(f"the server broke off: {error}") from error

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        return kind(self._address, timeout=SERVER_TIMEOUT_S)

    @staticmethod
    def _check(status: int, body: bytes) -> None:
        if status == 200:
            return
        text = body.decode(errors="replace")[:300]
        if status in (429, 503):
            raise BusyError(f"the server is busy: {text}")
        raise GenerationError(f"the server answered {status}: {text}")


@dataclass(frozen=True)
class Heard:
    """One request as its listener had it.

    ``gap_s``: silence between the first audio and the end of playback because nothing was there
    to play. ``refused``: the queue was full, nothing was heard.
    """

    arrived: float  # seconds on the clock of all listeners
    ttfb_s: float
    ended: float  # the last part came
    played: float  # playback is over
    audio_s: float
    gap_s: float
    refused: bool = False


def listen(target: Target, line: Line, *, only_first: bool = False) -> Heard:
    """Ask for ``line`` and hear it, to the end or only its first part."""
    arrived = time.perf_counter()
    parts: list[tuple[float, float]] = []
    try:
        for seconds in target.speak(line):
            parts.append((time.perf_counter(), seconds))
            if only_first:
                break
    except BusyError:
        now = time.perf_counter()
        return Heard(arrived, float("nan"), now, now, 0.0, 0.0, refused=True)
    if not parts:
        raise GenerationError(f"no audio came for {line.text!r}")
    played, gap = playback(parts)
    audio = sum(seconds for _, seconds in parts)
    return Heard(arrived, parts[0][0] - arrived, parts[-1][0], played, audio, gap)


def playback(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """When playback of parts (arrival, seconds) ends, and for how long it stood still between."""
    dry, gap = parts[0][0], 0.0
    for arrival, seconds in parts:
        gap += max(0.0, arrival - dry)
        dry = max(dry, arrival) + seconds
    return dry, gap


class Lines:
    """Endless lines: unique texts, lengths and voices in turn. Thread-safe."""

    def __init__(
        self, text_seconds: Sequence[float], voices: Sequence[str | None], seed: int
    ) -> None:
        self._texts = [texts(seconds, seed) for seconds in text_seconds]
        self._voices = voices
        self._rng = random.Random(seed)
        self._lock = threading.Lock()
        self._count = 0

    def next(self) -> Line:
        """The next one."""
        with self._lock:
            text = next(self._texts[self._count % len(self._texts)])
            voice = self._voices[self._count // len(self._texts) % len(self._voices)]
            self._count += 1
            return Line(text, voice, self._rng.randrange(1 << 31))


class Crowd:
    """Threads that listen; the first error of one ends it all and is raised by :meth:`join`."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._threads: list[threading.Thread] = []
        self._error: Exception | None = None
        self.stop = threading.Event()

    def add(self, what: Callable[[Crowd], None]) -> None:
        """Begin to run ``what`` in a thread of its own."""

        def run() -> None:
            try:
                what(self)
            except Exception as error:  # a listener who fails must not just be missing
                self._error = self._error or error
                self.stop.set()

        self._threads.append(threading.Thread(target=run, daemon=True))
        self._threads[-1].start()

    def join(self) -> list[Heard]:
        """Wait for all; what they heard, in order of arrival. Raises what went wrong."""
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error
        return sorted(self.heard, key=lambda heard: heard.arrived)

    @property
    def size(self) -> int:
        """Threads begun so far."""
        return len(self._threads)

    @property
    def busy(self) -> bool:
        """Whether anyone is still listening."""
        return any(thread.is_alive() for thread in self._threads)


def regular(
    target: Target, lines: Lines, requests: int, *, real_time: bool
) -> Callable[[Crowd], None]:
    """A listener with ``requests`` texts, one after the other.

    ``real_time``: the next one only when the last is played, else as soon as it is there.
    """

    def run(crowd: Crowd) -> None:
        for _ in range(requests):
            if crowd.stop.is_set():
                return
            heard = listen(target, lines.next())
            crowd.heard.append(heard)
            if real_time and not heard.refused:
                crowd.stop.wait(max(0.0, heard.played - time.perf_counter()))

    return run


def passer_by(target: Target, line: Line) -> Callable[[Crowd], None]:
    """Someone with a single text."""

    def run(crowd: Crowd) -> None:
        crowd.heard.append(listen(target, line))

    return run
