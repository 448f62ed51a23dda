"""One visitor's request from the filled-in form to what the page shows. No Gradio in here."""

from __future__ import annotations

import base64
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from echo.engine import Engine, Progress, SpeechRequest, SpeechStream
from echo.engine.stats import RequestStats
from echo.engine.stream import StreamInfo
from echo.errors import CancelledError, EchoError, LimitExceededError

TICK_S = 0.15  # how often the status follows the generation while no audio comes

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """What the visitor filled in.

    ``voice``: None for the default one. ``clip``: a file of theirs, used instead of ``voice``.
    ``preset``: None for the configured one. ``seed``: None or -1 for a random one.
    """

    text: str
    voice: str | None = None
    clip: Path | None = None
    preset: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Result:
    """A generation that is over, at its end or because it was stopped.

    ``audio``: all of it, [T] float32, -1 ... 1, at ``sample_rate``.
    """

    audio: Audio
    sample_rate: int
    stopped: bool
    info: StreamInfo
    stats: RequestStats


@dataclass(frozen=True)
class Update:
    """News for the page: a line of ``status``, and perhaps the next ``audio`` [T] float32.

    The last one has either the ``result`` or, as a sentence, the ``error``.
    """

    status: str
    audio: Audio | None = None
    result: Result | None = None
    error: str | None = None


class Run:
    """A generation that another thread may stop at any moment, also before it has begun."""

    def __init__(self) -> None:
        self.stopped = False
        self._stream: SpeechStream | None = None

    def attach(self, stream: SpeechStream) -> None:
        """From now on there is something to stop."""
        self._stream = stream  # before the look at the flag: stop() does it the other way round
        if self.stopped:
            stream.close()

    def stop(self) -> None:
        """Stop at the next sampling step. Safe to repeat."""
        self.stopped = True
        if self._stream is not None:
            self._stream.close()


class Session:
    """What one visitor has running: one generation at most."""

    def __init__(self) -> None:
        self._run: Run | None = None

    def start(self) -> Run:
        """A new run; one that is still going is stopped."""
        self.stop()
        self._run = Run()
        return self._run

    def stop(self) -> None:
        """Stop what is running, if anything is."""
        if self._run is not None:
            self._run.stop()


def speak(engine: Engine, form: Form, run: Run) -> Generator[Update, None, None]:
    """Generate and tell what happens. Closing the iterator stops the generation.

    Raises nothing of :mod:`echo.errors`: what goes wrong is the last update's ``error``.
    """
    try:
        yield Update("Reading the text and the voice …")
        with engine.stream(_request(engine, form)) as stream:
            run.attach(stream)
            yield from _follow(stream, run)
    except EchoError as error:
        yield Update(f"Error: {error.message}", error=error.message)


def _request(engine: Engine, form: Form) -> SpeechRequest:
    voice = form.voice or None
    if form.clip is not None:
        voice = _data_url(form.clip, engine.config.voices.max_inline_bytes)
    # The configured preset may have been changed key by key; naming it would undo that.
    other = form.preset is not None and form.preset != engine.config.preset.name
    return SpeechRequest(
        form.text,
        voice=voice,
        seed=form.seed,
        overrides={"preset": form.preset} if other else {},
    )


def _data_url(clip: Path, max_bytes: int) -> str:
    size = clip.stat().st_size
    if size > max_bytes:
        raise LimitExceededError(
            f"the clip has {size} bytes; at most {max_bytes} are taken, send a shorter one",
            param="voice",
        )
    return "data:;base64," + base64.b64encode(clip.read_bytes()).decode("ascii")


@dataclass
class _Heard:
    """The audio that has arrived so far."""

    sample_rate: int
    chunks: list[Audio] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return sum(len(chunk) for chunk in self.chunks) / self.sample_rate

    def joined(self) -> Audio:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.float32)


def _follow(stream: SpeechStream, run: Run) -> Generator[Update, None, None]:
    news = threading.Event()
    stream.set_listener(news.set)
    heard, status = _Heard(stream.sample_rate), ""
    while True:
        news.wait(TICK_S)
        news.clear()
        try:
            while (chunk := stream.poll()) is not None:
                heard.chunks.append(chunk)
                status = _status(stream, heard)
                yield Update(status, audio=chunk)
        except EOFError:
            break
        except CancelledError:
            if not run.stopped:
                raise
            break
        if status != (now := _status(stream, heard)):
            status = now
            yield Update(status)
    verb = "Stopped after" if run.stopped else "Done:"
    parts = (f"{verb} {heard.seconds:.1f} s of audio", *stream.info.text.warnings)
    yield Update(
        " · ".join(parts),
        result=Result(heard.joined(), stream.sample_rate, run.stopped, stream.info, stream.stats),
    )


def _status(stream: SpeechStream, heard: _Heard) -> str:
    if stream.stats.queue_s is None:
        return "Waiting for its turn …"
    if stream.progress is None:
        return "Encoding the voice …"
    return f"{_place(stream.progress)} · {heard.seconds:.1f} s of audio"


def _place(p: Progress) -> str:
    part = f"part {p.chunk + 1} of {p.chunks} · " if p.chunks > 1 else ""
    percent = 100 * p.steps_done // p.steps_planned
    return f"{part}block {p.block + 1} of {p.blocks} · step {p.step} of {p.steps} · {percent} %"
