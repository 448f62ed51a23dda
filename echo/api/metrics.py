"""``GET /metrics`` for Prometheus.

Labels have fixed values only (protocols, outcomes, methods, route templates, classes of status):
neither voices, keys and texts nor made-up paths can add a series.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from echo import __version__
from echo.api.call import OUTCOMES, PROTOCOLS, Speech
from echo.api.describe import READING, Responses, openai_errors
from echo.api.watch import METRICS_PATH
from echo.engine import Engine

TTFB_S = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
QUEUE_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
RTF = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0, 1.5, 2.0, 5.0, 10.0)
BATCH = (1, 2, 4, 8, 16, 32, 64, 128)  # requests

_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4.partition(";")[0]


class Metrics:
    """Counts of one application, in a registry of its own; the observer of ``Watch``."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(EngineCollector(engine))
        self._http = Counter(
            "echo_http_requests",
            "Calls that ended, by route and class of status; WebSockets as WEBSOCKET, 1xx",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._speeches = Counter(
            "echo_speech_requests",
            "Texts given to the engine, by how they came out",
            ("protocol", "outcome"),
            registry=self._registry,
        )
        self._ttfb = self._histogram(
            "echo_ttfb_seconds", "From a text's arrival at the engine to its first audio", TTFB_S
        )
        self._queue = self._histogram(
            "echo_queue_seconds", "A text's wait until work on it begins", QUEUE_S
        )
        self._rtf = self._histogram(
            "echo_rtf_ratio", "Compute time over audio time, of texts spoken to their end", RTF
        )
        self._audio = self._counter("echo_audio_seconds", "Audio that was generated")
        self._starved = self._counter(
            "echo_starved_seconds",
            "Time in which streams had nothing left to play before their end",
        )
        self._rerolls = self._counter(
            "echo_rerolls", "Blocks made again because they were too silent"
        )
        self._early_stops = self._counter(
            "echo_early_stops", "Chunks that ended before their last block"
        )
        self._show_all()

    def http_ended(self, method: str, route: str, status: str) -> None:
        self._http.labels(method, route, status).inc()

    def speech_ended(self, speech: Speech) -> None:
        if speech.protocol not in PROTOCOLS:
            return
        protocol, stats = speech.protocol, speech.stats
        self._speeches.labels(protocol, speech.outcome).inc()
        if stats is None:
            return
        if stats.queue_s is not None:
            self._queue.labels(protocol).observe(stats.queue_s)
        if stats.ttfb_s is not None:
            self._ttfb.labels(protocol).observe(stats.ttfb_s)
        if stats.rtf is not None and speech.outcome == "ok":
            self._rtf.labels(protocol).observe(stats.rtf)
        self._audio.labels(protocol).inc(stats.audio_s)
        self._rerolls.labels(protocol).inc(stats.rerolls)
        self._early_stops.labels(protocol).inc(stats.early_stops)
        if speech.live:
            self._starved.labels(protocol).inc(stats.starved_s)

    def collect(self) -> Iterator[Metric]:
        """Everything now, without the time stamps of when each series began."""
        for metric in self._registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric

    def render(self) -> bytes:
        """Prometheus' text format 0.0.4."""
        return generate_latest(self)

    def _counter(self, name: str, help: str) -> Counter:
        return Counter(name, help, ("protocol",), registry=self._registry)

    def _histogram(self, name: str, help: str, buckets: Sequence[float]) -> Histogram:
        return Histogram(name, help, ("protocol",), buckets=buckets, registry=self._registry)

    def _show_all(self) -> None:
        """Series begin at 0, not with their first event, which rates would miss."""
        for protocol in PROTOCOLS:
            for outcome in OUTCOMES:
                self._speeches.labels(protocol, outcome)
            for metric in (self._ttfb, self._queue, self._rtf):
                metric.labels(protocol)
            for counter in (self._audio, self._starved, self._rerolls, self._early_stops):
                counter.labels(protocol)


class EngineCollector(Collector):
    """Reads ``engine.stats()`` when it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is registered is not to be collected yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        stats = self._engine.stats()
        worker, cache, weights = stats["worker"], stats["voice_cache"], stats["weights"]
        yield self._build()
        yield GaugeMetricFamily("echo_requests_active", "Being generated", stats["active"])
        yield GaugeMetricFamily("echo_requests_queued", "Waiting", stats["queued"])
        yield CounterMetricFamily("echo_steps", "Sampling steps of the device", worker["steps"])
        yield CounterMetricFamily(
            "echo_busy_seconds", "Time in which the worker had work", worker["busy_s"]
        )
        yield CounterMetricFamily(
            "echo_retried_steps", "Shared steps that failed", worker["retried_steps"]
        )
        yield _batches(worker["batches"])
        yield CounterMetricFamily("echo_voice_cache_hits", "Voices found encoded", cache["hits"])
        yield CounterMetricFamily("echo_voice_cache_misses", "Voices to encode", cache["misses"])
        yield GaugeMetricFamily("echo_voice_cache_entries", "Voices held", cache["entries"])
        yield GaugeMetricFamily("echo_voice_cache_bytes", "Size of those held", cache["bytes"])
        loaded = float(weights["state"] == "loaded")
        yield GaugeMetricFamily("echo_weights_loaded", "0: they left memory when idle", loaded)
        yield CounterMetricFamily("echo_weight_loads", "Loads on demand", weights["loads"])
        yield CounterMetricFamily(
            "echo_weight_load_failures", "Loads on demand that failed", weights["load_failures"]
        )
        yield CounterMetricFamily(
            "echo_weight_load_seconds", "Time of loads on demand", weights["load_s"]
        )
        memory = GaugeMetricFamily(
            "echo_device_memory_bytes", "PyTorch's memory on the GPU", labels=("kind",)
        )
        for kind, size in stats["device_memory"].items():
            memory.add_metric((kind,), size)
        yield memory

    def _build(self) -> Metric:
        labels = {
            "version": __version__,
            "model": self._engine.config.model.name,
            "device": str(self._engine.device),
        }
        build = GaugeMetricFamily("echo_build_info", "What runs; always 1", labels=tuple(labels))
        build.add_metric(tuple(labels.values()), 1)
        return build


def metrics_router(metrics: Metrics) -> APIRouter:
    """``/metrics``: with keys where there are keys, as it tells how busy the server is."""
    router = APIRouter(tags=["server"])
    content = {_MEDIA_TYPE: {"schema": {"type": "string"}}}
    described: Responses = {200: {"description": "Prometheus' text format.", "content": content}}

    @router.get(
        METRICS_PATH,
        response_class=Response,
        responses={**described, **openai_errors(*READING)},
        summary="Counts for Prometheus",
    )
    async def read_metrics() -> Response:
        """Requests, TTFB, RTF, queue, batches, voice cache and memory since the start."""
        return Response(metrics.render(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


def _batches(counts: Mapping[int, int]) -> Metric:
    """Steps by the number of requests that shared them, as a histogram."""
    buckets = [
        (str(float(top)), sum(count for size, count in counts.items() if size <= top))
        for top in BATCH
    ]
    buckets.append(("+Inf", sum(counts.values())))
    total = sum(size * count for size, count in counts.items())
    return HistogramMetricFamily(
        "echo_batch_size", "Requests that shared a step", buckets=buckets, sum_value=total
    )
