"""Networks that leave memory when nobody needs them, and come back for the next who does."""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from echo.engine.components import Components
from echo.errors import UnavailableError
from echo.models.recorder import anything_recorded

log = logging.getLogger(__name__)

RETRY_S = 5.0
LOOKS = 8  # at whether it is idle, within the time that makes it so


@dataclass
class _Counts:
    loads: int = 0  # on demand: the one at the start is not among them
    load_failures: int = 0
    load_s: float = 0.0  # of all loads


class Resident:
    """Holds an engine's components. Thread-safe.

    After ``idle_s`` without use they are dropped and ``dropped`` is called; the next :meth:`use`
    loads them again. One load at a time: who comes meanwhile waits for it and shares its failure.
    """

    def __init__(
        self,
        components: Components,
        load: Callable[[], Components] | None,
        *,
        idle_s: float | None,
        busy: Callable[[], bool],
        dropped: Callable[[], None],
        retry_s: float = RETRY_S,
    ) -> None:
        """``load``: None: there is nowhere to load from, so they stay. ``busy``: whether requests
        are in work that were begun in an earlier use. ``retry_s``: for so long after a failure all
        who come share it."""
        self._components: Components | None = components
        self._load = load
        self._busy = busy
        self._dropped = dropped
        self._retry_s = retry_s
        self._changed = threading.Condition()
        self._users = 0
        self._loading = self._closed = False
        self._failure: tuple[str, float] | None = None  # message, when it may be tried again
        self._used = time.monotonic()
        self._counts = _Counts()
        self._watcher: threading.Thread | None = None
        if idle_s is not None and load is not None:
            watch = threading.Thread(target=self._watch, args=(idle_s,), name="echo-idle")
            watch.daemon = True
            self._watcher = watch
            watch.start()

    @property
    def state(self) -> str:
        """loaded, loading or unloaded."""
        if self._components is not None:
            return "loaded"
        return "loading" if self._loading else "unloaded"

    @contextmanager
    def use(self) -> Iterator[Components]:
        """The components, which stay until the end of the block, and longer while ``busy``.

        Raises:
            UnavailableError: they cannot be loaded now.
        """
        with self._changed:
            self._users += 1
        try:
            yield self._get()
        finally:
            with self._changed:
                self._users -= 1
                self._used = time.monotonic()

    def stats(self) -> dict[str, Any]:
        """The state, and counts since the start."""
        return {"state": self.state, **asdict(self._counts)}

    def close(self) -> None:
        """Watch no longer. Safe to repeat."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._watcher is not None:
            self._watcher.join()

    def _get(self) -> Components:
        with self._changed:
            self._changed.wait_for(lambda: not self._loading)
            if self._components is not None:
                return self._components
            if self._failure is not None and time.monotonic() < self._failure[1]:
                raise UnavailableError(self._failure[0], retry_after_s=self._retry_s)
            self._loading = True
        return self._load_again()

    def _load_again(self) -> Components:
        assert self._load is not None
        components: Components | None = None
        begun = time.monotonic()
        try:
            if self._failure is not None:
                _give_back()  # what a load that failed has left
            components = self._load()
        except Exception as error:  # whatever a file, a hub or a full device raises
            log.error("the model could not be loaded again", exc_info=error)
            reason = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            message = f"the model is not in memory and cannot be loaded: {reason}"
            self._failure = (message, time.monotonic() + self._retry_s)
            self._counts.load_failures += 1
            raise UnavailableError(message, retry_after_s=self._retry_s) from error
        finally:
            with self._changed:
                self._components, self._loading = components, False
                self._changed.notify_all()
        self._counts.loads += 1
        self._counts.load_s += time.monotonic() - begun
        log.info("loaded again in %.1f s", time.monotonic() - begun)
        return components

    def _watch(self, idle_s: float) -> None:
        with self._changed:
            while not self._closed:
                try:
                    self._look(idle_s)
                except Exception:  # else nothing would be unloaded any more
                    log.exception("not everything could be dropped that was idle")
                self._changed.wait(timeout=idle_s / LOOKS)

    def _look(self, idle_s: float) -> None:
        if self._users or self._loading or self._busy():
            self._used = time.monotonic()
        elif self._components is not None and time.monotonic() - self._used >= idle_s:
            self._drop(idle_s)

    def _drop(self, idle_s: float) -> None:
        """With the lock: who comes now waits until the memory is free."""
        self._components = None
        try:
            self._dropped()
        finally:
            _give_back()
        log.info("unloaded after %.0f s without a request", idle_s)


def _give_back() -> None:
    """What was freed, to the GPU and to the system: PyTorch and glibc keep it for themselves."""
    gc.collect()  # compiled functions and the modules they belong to hold each other
    if torch.cuda.is_available():
        # A private call, as there is no other. Another engine's graphs may work in them.
        clear_workspaces = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
        if clear_workspaces is not None and not anything_recorded():
            clear_workspaces()
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)
