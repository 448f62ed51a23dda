"""One visitor's request from the filled-in form to what the page shows. No Gradio in here."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from echo.engine import Engine, Progress, SpeechRequest, SpeechStream
from echo.engine.stats import RequestStats
from echo.engine.stream import StreamInfo
from echo.errors import CancelledError, EchoError, LimitExceededError
from echo.ui.session import Run

TICK_S = 0.15  # how often the status follows the generation while no audio comes

Audio = NDArray[np.float32]


@dataclass(frozen=True)
class Form:
    """What the visitor filled in.

    ``voice``: None for the default one. ``clip``: a file of theirs, used instead of ``voice``.
    ``preset``: None for the configured one. ``seed``: None or -1 for a random one. ``settings``:
    what differs from the configuration, by the names of a request's overrides.
    """

    text: str
    voice: str | None = None
    clip: Path | None = None
    preset: str | None = None
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def given(self, engine: Engine) -> dict[str, Any]:
        """The request's overrides: the settings and, if it is another, the preset."""
        # The configured preset may have been changed key by key; naming it would undo that.
        other = self.preset and self.preset != engine.config.preset.name
        return {**({"preset": self.preset} if other else {}), **self.settings}


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

    ``share``: of the work that is done, 0 ... 1; ``left_s``: how long the rest may take; None: not
    known yet. The last one has either the ``result`` or, as a sentence, the ``error``.
    """

    status: str
    share: float | None = None
    left_s: float | None = None
    audio: Audio | None = None
    result: Result | None = None
    error: str | None = None


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
        sentence = as_sentence(error.message)
        yield Update(sentence, error=sentence)


def as_sentence(message: str) -> str:
    """An error's message for people to read: a capital, but for a setting's name, and a stop."""
    first = message.split(" ", 1)[0]
    capital = first if {"_", "="} & set(first) else first[:1].upper() + first[1:]
    end = "" if message.endswith((".", "!", "?")) else "."
    return capital + message[len(first) :] + end


def _request(engine: Engine, form: Form) -> SpeechRequest:
    voice = form.voice or None
    if form.clip is not None:
        voice = _data_url(form.clip, engine.config.voices.max_inline_bytes)
    return SpeechRequest(form.text, voice=voice, seed=form.seed, overrides=form.given(engine))


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
    blocks = stream.info.settings.blocks
    pace = Pace([block.size * block.num_steps for block in blocks])
    heard, shown = _Heard(stream.sample_rate), None
    while True:
        news.wait(TICK_S)
        news.clear()
        try:
            while (chunk := stream.poll()) is not None:
                heard.chunks.append(chunk)
                shown = _status(stream, heard, pace)
                yield replace(shown, audio=chunk)
        except EOFError:
            break
        except CancelledError:
            if not run.stopped:
                raise
            break
        if shown != (now := _status(stream, heard, pace)):
            shown = now
            yield now
    verb = "Stopped after" if run.stopped else "Done:"
    parts = (f"{verb} {heard.seconds:.1f} s of audio", *stream.info.text.warnings)
    yield Update(
        " · ".join(parts),
        share=None if run.stopped else 1.0,
        result=Result(heard.joined(), stream.sample_rate, run.stopped, stream.info, stream.stats),
    )


def _status(stream: SpeechStream, heard: _Heard, pace: Pace) -> Update:
    if stream.stats.queue_s is None:
        return Update("Waiting for its turn …")
    if stream.progress is None:
        return Update("Encoding the voice …")
    share, left_s = pace.at(stream.progress)
    status = f"{_place(stream.progress)} · {heard.seconds:.1f} s of audio"
    return Update(status, share=share, left_s=left_s)


class Pace:
    """How much is done and how long the rest may take.

    ``work``: of each block, in any unit: its latents times its steps, as a step takes about as
    long as its block. What ends early is a surprise.
    """

    def __init__(self, work: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        self._work = work
        self._clock = clock
        self._first: tuple[float, float] | None = None  # when it was seen, the share then

    def at(self, p: Progress) -> tuple[float, float | None]:
        """(share done, 0 ... 1; seconds left, None until there is a pace)."""
        whole = sum(self._work)
        block = self._work[p.block] * p.step / p.steps
        share = (p.chunk * whole + sum(self._work[: p.block]) + block) / (p.chunks * whole)
        now = self._clock()
        if self._first is None:
            self._first = (now, share)
        begun, before = self._first
        if share <= before or now - begun < TICK_S:
            return share, None
        return share, round((1 - share) * (now - begun) / (share - before), 1)


def _place(p: Progress) -> str:
    part = f"part {p.chunk + 1} of {p.chunks} · " if p.chunks > 1 else ""
    return f"{part}block {p.block + 1} of {p.blocks} · step {p.step} of {p.steps}"
