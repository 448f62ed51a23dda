"""Decoding of audio that strangers sent, in a process of its own.

A decoder is a lot of C on hostile input. Here a crash, a hang or a flood of memory ends a child
process and becomes an AudioDecodeError; the server and its other requests go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import numpy as np

from echo.audio.decode import Waveform, check_audio, decode_audio
from echo.errors import AudioDecodeError, InvalidRequestError, LimitExceededError

MAX_SECONDS_OF_WORK = 30
MAX_MEMORY_BYTES = 2 << 30  # address space of the child, where the system can limit it
MAX_CHILDREN = 4  # at once, so that all together have a limit, too
CHILD = (sys.executable, "-m", "echo.audio.sandbox")
_TURN = threading.BoundedSemaphore(MAX_CHILDREN)
_ERRORS = {kind.__name__: kind for kind in (AudioDecodeError, LimitExceededError)}


def decode_untrusted(
    data: bytes,
    *,
    max_bytes: int,
    max_seconds: float,
    name: str = "the audio",
    param: str | None = None,
    child: Sequence[str] = CHILD,
    max_work_s: float = MAX_SECONDS_OF_WORK,
) -> Waveform:
    """:func:`echo.audio.decode.decode_audio` of ``data``, in a child process.

    Takes about half a second more, and waits while ``MAX_CHILDREN`` work. Raises the same errors;
    also an AudioDecodeError if the decoder crashed, or worked for over ``max_work_s``. ``child``:
    the command that decodes.
    """
    check_audio(data, max_bytes=max_bytes, name=name, param=param)
    limits = json.dumps({"max_bytes": max_bytes, "max_seconds": max_seconds, "name": name})
    try:
        with _TURN:
            done = subprocess.run(
                [*child, limits],
                input=data,
                capture_output=True,
                timeout=max_work_s,
                check=False,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # each reserves address space
            )
    except subprocess.TimeoutExpired as error:
        message = f"{name} takes too long to decode; it is broken or made to be slow"
        raise AudioDecodeError(message, param=param) from error
    head, _, body = done.stdout.partition(b"\n")
    if done.returncode != 0 or not head:
        raise AudioDecodeError(f"{name} is broken: the decoder gave up on it", param=param)
    told = json.loads(head)
    if "error" in told:
        raise _ERRORS.get(told["error"], AudioDecodeError)(told["message"], param=param)
    return Waveform(np.frombuffer(body, np.float32), told["sample_rate"])


def _child(limits: str) -> None:
    """Read audio from stdin; write a line of JSON and the samples to stdout."""
    _limit_resources()
    settings = json.loads(limits)
    try:
        waveform = decode_audio(sys.stdin.buffer.read(), **settings)
    except InvalidRequestError as error:
        told = {"error": type(error).__name__, "message": error.message}
        sys.stdout.buffer.write(json.dumps(told).encode())
        return
    sys.stdout.buffer.write(json.dumps({"sample_rate": waveform.sample_rate}).encode() + b"\n")
    sys.stdout.buffer.write(waveform.samples.tobytes())


def _limit_resources() -> None:
    try:
        import resource
    except ImportError:  # not on Windows; the time limit still holds
        return
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS_OF_WORK, MAX_SECONDS_OF_WORK))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    _child(sys.argv[1])
