"""The call that runs: an HTTP request or a WebSocket, known by context, as in tracing.

Whoever speaks for it, however deep, and every line that it logs can tell whose it is without
anything being handed through the routes.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # the log is set up before torch is imported
    from echo.engine.stats import RequestStats

PROTOCOLS = ("openai", "inworld", "inworld_socket")  # of what speaks
OUTCOMES = ("ok", "cancelled", "busy", "invalid", "failed")


@dataclass(frozen=True)
class Speech:
    """One text that was spoken, or not.

    Attributes:
        protocol: one of :data:`PROTOCOLS`, or ``other`` for none of them.
        outcome: one of :data:`OUTCOMES`.
        live: sent as it was made, so that somebody listened meanwhile.
        stats: None where it did not come to a stream.
        begun: when it was asked for, in monotonic seconds.
    """

    protocol: str
    outcome: str
    live: bool
    stats: RequestStats | None
    begun: float


class Observer(Protocol):
    """Who is told of what ended."""

    def http_ended(self, method: str, route: str, status: str) -> None:
        """``status``: 1xx (a WebSocket) to 5xx; none if the client left before the answer."""

    def speech_ended(self, speech: Speech) -> None:
        """Called once for each text, when it has been spoken or given up."""


class Trace(Protocol):
    """The trace of one call, where there are traces."""

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""

    def speech_ended(self, speech: Speech) -> None: ...

    def call_ended(self, method: str, route: str, status: int, ending: str) -> None:
        """``status`` 0: there was no answer."""


@dataclass(frozen=True)
class Call:
    """An HTTP request or a WebSocket while it is served."""

    request_id: str
    protocol: str
    observer: Observer | None
    trace: Trace | None = None


CALL: ContextVar[Call | None] = ContextVar("echo_call", default=None)


def current_call() -> Call | None:
    """The call that the running code serves; None outside of any."""
    return CALL.get()


def speech_ended(outcome: str, stats: RequestStats | None, *, live: bool, begun: float) -> None:
    """Tell the current call's observer and trace, if there are such, how a text came out.

    ``begun``: when it was asked for, in monotonic seconds.
    """
    if (call := current_call()) is None:
        return
    speech = Speech(call.protocol, outcome, live, stats, begun)
    if call.observer is not None:
        call.observer.speech_ended(speech)
    if call.trace is not None:
        call.trace.speech_ended(speech)
