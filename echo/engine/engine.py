"""Echo as one object: text and a voice in, audio out, for any number of callers at once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch

from echo.audio.vad import SpeechDetector
from echo.config.schema import EchoConfig
from echo.engine.components import Components, load_components, parameter_count
from echo.engine.generation import Generation
from echo.engine.request import SpeechRequest, resolve_seed, resolve_settings
from echo.engine.resident import Resident
from echo.engine.stream import Audio, Feed, SpeechStream, StreamInfo
from echo.engine.task import Limits
from echo.engine.threads import default_threads, in_passing_thread
from echo.engine.voice_bank import VoiceBank
from echo.engine.worker import Worker
from echo.errors import GenerationError, InvalidRequestError
from echo.models.compile import (
    compile_components,
    save_artifacts,
    stop_watching,
    warm_up_codec,
    warm_up_passes,
    watch_recompiles,
)
from echo.models.devices import allow_tf32, memory_of
from echo.spec import SAMPLE_RATE
from echo.text import prepare
from echo.voices.clones import CloneStore
from echo.voices.mirror import mirrored
from echo.voices.source import resolve
from echo.voices.store import VoiceStore

log = logging.getLogger(__name__)

COMPILE_TEXT = "This sentence is spoken so that everything is compiled before you come."


class Engine:
    """The networks, the voices and the worker that owns the device.

    Thread-safe: ``stream`` and ``synthesize`` may be called from several threads at once. Close
    it (or use ``with``) to free the device.
    """

    def __init__(
        self,
        config: EchoConfig,
        components: Components,
        detector: SpeechDetector | None = None,
        *,
        load: Callable[[], Components] | None = None,
    ) -> None:
        """An engine over networks that are there already; :meth:`from_config` loads them.

        ``detector``: of the VAD reroll; None: Silero's, loaded when the first request wants it
            or, where the configuration does, at once.
        ``load``: brings the networks back after ``engine.idle_unload_seconds``; None: they are
            never unloaded.
        """
        self.config = config
        self.device = components.model.device  # of the DiT
        self.sample_rate = SAMPLE_RATE
        self._compiled = False
        self._watching: Callable[..., None] | None = None
        self._bank = VoiceBank(config.voices)
        voices, self._mirror = mirrored(config.voices, self.forget_voice)
        catch_up = self._mirror.catch_up if self._mirror is not None else None
        self.voices = VoiceStore(voices, catch_up)
        self.clones = CloneStore(voices, forget=self.forget_voice, shared=self._mirror)
        self._detector = detector
        self._detector_lock = threading.Lock()
        if config.vad.enabled:
            self._speech_detector()
        limits = Limits(
            max_active=config.engine.max_active,
            max_queued=config.engine.max_queued,
            max_batch_tokens=config.engine.max_batch_tokens,
            max_load=config.engine.max_load,
            buffer_samples=config.engine.buffer_seconds * SAMPLE_RATE,
            sample_rate=SAMPLE_RATE,
        )
        self._lane = components.lane
        self._worker = Worker(limits, self.device, self._lane)
        self._load = load
        self._resident = Resident(
            components,
            None if load is None else self._load_again,
            idle_s=config.engine.idle_unload_seconds,
            busy=lambda: self._worker.busy,
            dropped=self._forget_networks,
        )

    @classmethod
    def from_config(cls, config: EchoConfig) -> Engine:
        """Load what ``config`` names and start the worker.

        Raises:
            CheckpointError: weights that are not there, not complete or of another model.
            ConfigError: a device this machine does not have.
        """
        torch.set_num_threads(config.engine.cpu_threads or default_threads())
        begun = time.monotonic()
        compiled = False

        def load() -> Components:
            nonlocal compiled
            components = load_components(config)
            if "cuda" in (components.model.device.type, components.codec.device.type):
                allow_tf32(config.model.tf32)
            compiled = compile_components(components.models, components.codec, config.compile)
            return components

        engine = cls(config, in_passing_thread(load), load=load)
        engine._compiled = compiled
        log.info("%s, ready in %.1f s", engine.describe(), time.monotonic() - begun)
        return engine

    @property
    def components(self) -> Components:
        """The networks, loaded again if they were unloaded. Who works with them beside the worker
        does so inside :meth:`using`, lest they be loaded twice."""
        with self.using() as components:
            return components

    @contextmanager
    def using(self) -> Iterator[Components]:
        """The networks, which are not unloaded before the end of the block.

        Raises:
            UnavailableError: they were unloaded and cannot be loaded again now.
        """
        with self._resident.use() as components:
            yield components

    def describe(self) -> str:
        """Model, size, device and number format in one line."""
        c, m = self.components, self.config.model
        weights = "random weights: it makes noise" if m.weights == "random" else m.repo
        in_8_bits = f" with weights in {m.quantize}" if m.quantize else ""
        million = (parameter_count(c.model) + parameter_count(c.codec)) / 1e6
        return (
            f"model {m.name} ({weights}; {million:.0f} M parameters) on {c.model.device}, "
            f"{str(c.model.dtype).removeprefix('torch.')}{in_8_bits}; codec on {c.codec.device}, "
            f"{str(c.codec.dtype).removeprefix('torch.')}"
        )

    def stream(self, request: SpeechRequest) -> SpeechStream:
        """Begin to speak. Checks everything before it returns; the audio follows by iteration.

        Decodes the reference voice in the calling thread: not for an event loop.

        Raises:
            InvalidRequestError: anything wrong with the request; ``param`` names the field.
            BusyError: the queue is full.
            UnavailableError: the model was unloaded and cannot be loaded again now.
        """
        settings = resolve_settings(self.config, request)
        seed = resolve_seed(request.seed)
        text = prepare(request.text, settings.text, settings.chunking)
        if request.voice is not None and not isinstance(request.voice, str):
            raise InvalidRequestError("voice must be a string", param="voice")
        source = resolve(request.voice, self.voices, self.config.voices)
        name = source.name or source.content_key[:12] if source is not None else None
        info = StreamInfo(seed=seed, voice=name, text=text, settings=settings)
        stream = SpeechStream(info, SAMPLE_RATE)
        arrived, was_there = time.monotonic(), self._resident.state == "loaded"
        with self.using() as components:
            stream.stats.load_s = 0.0 if was_there else time.monotonic() - arrived
            pending = None if source is None else self._bank.prepare(source, components)
            feed = Feed(stream)
            generation = Generation(
                components,
                self._bank,
                pending,
                info,
                feed,
                detector=self._speech_detector() if settings.vad.enabled else None,
            )
            stream.attach(self._worker.submit(feed, generation, arrived))
        return stream

    def synthesize(self, request: SpeechRequest) -> Audio:
        """The stream of ``request``, joined: float32 [T], -1 ... 1, at ``sample_rate``."""
        with self.stream(request) as stream:
            return stream.read()

    def forget_voice(self, content_key: str) -> None:
        """Free what is cached of a voice that was deleted or replaced.

        ``content_key``: of :class:`~echo.voices.source.VoiceSource`; of a file, its sha256.
        """
        self._bank.forget(content_key)

    def warm_up(self) -> None:
        """Speak ``engine.warmup_text`` once, so that the first listener need not wait.

        Without such a text only what is to be compiled is warmed up, by a sentence of our own.
        """
        text = self.config.engine.warmup_text or (COMPILE_TEXT if self._compiled else None)
        if text is None:
            return
        begun = time.monotonic()
        with self.using() as components:  # who is prepared must not be unloaded meanwhile
            in_passing_thread(partial(self._prepare, components))
            request = SpeechRequest(text, voice=self.config.engine.warmup_voice, seed=0)
            audio = self.synthesize(request)
        peak = float(np.abs(audio).max()) if len(audio) else 0.0
        log.info(
            "warm-up: %.1f s of audio in %.1f s (peak %.2f)",
            len(audio) / SAMPLE_RATE,
            time.monotonic() - begun,
            peak,
        )
        if self._compiled:
            save_artifacts(self.config.compile)
            self._watching = watch_recompiles()

    def check(self) -> None:
        """Raise GenerationError where no request can be expected to succeed any more."""
        fault = self._worker.fault
        if fault is not None:
            raise GenerationError(f"{fault}; start the engine again")

    def stats(self) -> dict[str, Any]:
        """Requests in work and waiting, what the worker did so far, the voice cache, whether the
        networks are loaded, and bytes on the GPU (none on the CPU).
        """
        cache = self._bank.stats()
        return {
            "weights": self._resident.stats(),
            "active": self._worker.active,
            "queued": self._worker.queued,
            "worker": self._worker.stats(),
            "voice_cache": vars(cache),
            "device_memory": memory_of(self.device),
        }

    def close(self) -> None:
        """Stop the worker; running requests fail with a clear error. Safe to repeat."""
        self._resident.close()
        self._worker.close()
        if self._mirror is not None:
            self._mirror.close()

    def _speech_detector(self) -> SpeechDetector:
        with self._detector_lock:
            if self._detector is None:
                self._detector = SpeechDetector()
            return self._detector

    def _load_again(self) -> Components:
        """As at the start; in the lane that there is, as the worker times what happens in it."""
        assert self._load is not None
        components = replace(in_passing_thread(self._load), lane=self._lane)
        if self._compiled:
            in_passing_thread(partial(self._prepare, components))
            self._watching = watch_recompiles()
        return components

    def _prepare(self, components: Components) -> None:
        """Compile and record what was set up, so that no listener waits for it."""
        warm_up_passes(components.models, self.config.compile, self.config.preset.block_sizes)
        components.lane.run(partial(warm_up_codec, components.codec))

    def _forget_networks(self) -> None:
        """What else holds them, or was made for them."""
        self._bank.clear()
        if self._watching is not None:  # what comes back is compiled anew
            stop_watching(self._watching)
            self._watching = None
        if self._compiled:
            torch.compiler.reset()  # else each load would add to what one function may compile

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
