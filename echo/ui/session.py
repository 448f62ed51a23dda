"""What one visitor has: what is running, what they have heard, and how they voted."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from echo.engine import SpeechStream
from echo.engine.stats import RequestStats
from echo.engine.stream import StreamInfo
from echo.ui.compare import Match, Vote
from echo.ui.shelf import Clip, Shelf

MAX_HISTORY = 30


@dataclass(frozen=True)
class Entry:
    """A generation of the history. ``settings``: preset and overrides as they were given."""

    number: int
    text: str
    voice: str | None  # None: the default, or a clip of the visitor's own
    own_clip: str | None  # path of their upload, while it is there
    settings: Mapping[str, Any]
    base: Mapping[str, str]  # overrides of the configuration that it was made with
    clip: Clip
    stopped: bool
    info: StreamInfo
    stats: RequestStats
    made_at: float = field(default_factory=time.time)  # seconds since 1970


class Run:
    """A generation that another thread may stop at any moment, also before it has begun.

    One after another, several streams can be attached: a comparison.
    """

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
    """One visit. Copied, as Gradio does for each visitor, it is a fresh one."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.history: list[Entry] = []
        self.votes: list[Vote] = []
        self.matches: list[Match] = []  # of the blind test, those to come; the first is heard now
        self.compared: list[Clip] = []
        self.auditions: list[Clip] = []
        self.voted = 0  # of the blind test's pairs
        self._run: Run | None = None
        self._made = 0
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Session:
        return Session(self.shelf)

    def start(self) -> Run:
        """A new run; one that is still going is stopped."""
        self.stop()
        self._run = Run()
        return self._run

    def stop(self) -> None:
        """Stop what is running, if anything is."""
        if self._run is not None:
            self._run.stop()

    def remember(self, **what: Any) -> Entry:
        """Add to the history, newest first; the oldest beyond MAX_HISTORY goes."""
        with self._lock:
            self._made += 1
            entry = Entry(number=self._made, **what)
            self.history.insert(0, entry)
            self.shelf.drop(old.clip.token for old in self.history[MAX_HISTORY:])
            del self.history[MAX_HISTORY:]
        return entry

    def entry(self, number: int) -> Entry | None:
        """The history's entry of that number, if it is still there."""
        return next((entry for entry in self.history if entry.number == number), None)

    def forget_comparison(self) -> None:
        """Drop the clips and matches of the comparison before."""
        self.shelf.drop(clip.token for clip in self.compared)
        self.compared, self.matches, self.voted = [], [], 0

    def listen_to(self, clip: Clip) -> Clip:
        """Keep the recording of a voice until another voice is chosen."""
        self.auditions.append(clip)
        return clip

    def forget_auditions(self) -> None:
        """Drop the recordings of the voice before."""
        self.shelf.drop(clip.token for clip in self.auditions)
        self.auditions = []

    def close(self) -> None:
        """The visitor has left: stop, and forget what they heard."""
        self.stop()
        self.forget_comparison()
        self.forget_auditions()
        self.shelf.drop(entry.clip.token for entry in self.history)
        self.history = []
