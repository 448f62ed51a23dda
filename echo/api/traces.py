"""OpenTelemetry: a span for each call and, below it, for each text and the stages it went through.

Attributes have fixed names, and values that are numbers of ours or of fixed sets: no texts, voices,
keys, paths or headers. Of what a client sends only W3C's ``traceparent`` is read, so that its trace
goes on here; the ``OTEL_*`` variables say where to, which share and under what name.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.types import Scope

from echo import __version__
from echo.api.call import Speech
from echo.engine.stats import RequestStats
from echo.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

SERVICE = "echo-tts"  # unless OTEL_SERVICE_NAME says otherwise
MAX_STAGES = 200  # spans of one text; a very long one has as many blocks as it likes
TRACEPARENT = "traceparent"
NO_SDK = "server.traces needs OpenTelemetry: pip install 'echo-tts[otel]'"


class Traces:
    """Begins a trace for each call."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._tracer = provider.get_tracer("echo", __version__)
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def from_environment(cls) -> Traces:
        """Exports in the background, by OTLP over HTTP; the rest is flushed at exit.

        Raises ConfigError where the SDK is not installed.
        """
        if not has_sdk():
            raise ConfigError(NO_SDK, param="server.traces")
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        own = Resource.create({"service.name": SERVICE, "service.version": __version__})
        provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def begin(self, scope: Scope, protocol: str) -> CallTrace:
        """The span of a call that begins now."""
        from opentelemetry.trace import SpanKind

        given = Headers(scope=scope).get(TRACEPARENT)
        parent = self._propagator.extract({TRACEPARENT: given} if given else {})
        kind, attributes = SpanKind.SERVER, {"echo.protocol": protocol}
        span = self._tracer.start_span("call", parent, kind=kind, attributes=attributes)
        return CallTrace(self._tracer, span)


@dataclass(frozen=True)
class CallTrace:
    """The spans of one call; ``echo.api.call.Trace``."""

    tracer: Tracer
    span: Span

    @property
    def trace_id(self) -> str:
        return f"{self.span.get_span_context().trace_id:032x}"

    def speech_ended(self, speech: Speech) -> None:
        """A span for the text and one for each stage, from the times that were noted."""
        from opentelemetry.trace import set_span_in_context

        if not self.span.is_recording():
            return
        zero = time.time() - time.monotonic()

        def ns(monotonic: float) -> int:
            return round((zero + monotonic) * 1e9)

        span = self.tracer.start_span(
            "speech",
            set_span_in_context(self.span),
            attributes=_attributes(speech),
            start_time=ns(speech.begun),
        )
        stats, inside = speech.stats, set_span_in_context(span)
        spans = [] if stats is None else stats.spans[:MAX_STAGES]
        if spans:
            prepared = self.tracer.start_span("prepare", inside, start_time=ns(speech.begun))
            prepared.end(ns(max(speech.begun, spans[0].begun)))
        for stage in spans:
            child = self.tracer.start_span(stage.stage, inside, start_time=ns(stage.begun))
            child.end(ns(stage.ended))
        if stats is not None and stats.ttfb_s is not None and spans:
            span.add_event("first audio", timestamp=ns(spans[0].begun + stats.ttfb_s))
        _judge(span, failed=speech.outcome == "failed")
        span.end(ns(time.monotonic()))

    def call_ended(self, method: str, route: str, status: int, ending: str) -> None:
        """The call is over; ``status`` 0: there was no answer."""
        self.span.update_name(f"{method} {route}")
        self.span.set_attributes(
            {"http.request.method": method, "http.route": route, "echo.ending": ending}
        )
        if status:
            self.span.set_attribute("http.response.status_code", status)
        _judge(self.span, failed=status >= 500 or ending == "broken")
        self.span.end()


def has_sdk() -> bool:
    """Whether what sends traces is installed."""
    there = importlib.util.find_spec("opentelemetry") is not None  # its parts are looked for in it
    return there and importlib.util.find_spec("opentelemetry.sdk") is not None


def _judge(span: Span, *, failed: bool) -> None:
    from opentelemetry.trace import StatusCode

    if failed:
        span.set_status(StatusCode.ERROR)


def _attributes(speech: Speech) -> dict[str, Any]:
    told: dict[str, Any] = {"echo.outcome": speech.outcome, "echo.live": speech.live}
    if speech.stats is not None:
        told |= _figures(speech.stats)
    return {name: value for name, value in told.items() if value is not None}


def _figures(stats: RequestStats) -> dict[str, Any]:
    return {
        "echo.audio_s": stats.audio_s,
        "echo.ttfb_s": stats.ttfb_s,
        "echo.rtf": stats.rtf,
        "echo.starved_s": stats.starved_s,
        "echo.text_tokens": stats.text_tokens,
        "echo.voice_cached": stats.voice_cached,
        "echo.steps": stats.steps,
        "echo.batch_mean": stats.batch_mean,
        "echo.blocks": len(stats.blocks),
        "echo.rerolls": stats.rerolls,
        "echo.load_s": stats.load_s or None,
        "echo.spans_left_out": max(0, len(stats.spans) - MAX_STAGES) or None,
    }
