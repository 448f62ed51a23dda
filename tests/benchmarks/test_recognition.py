from __future__ import annotations

from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.recognition import SlotListener, WhisperListener, listeners
from echo.errors import ConfigError


class Transcriber:
    """Hears two segments, and remembers what it was given."""

    def transcribe(self, audio, **how):
        self.given = audio
        parts = (SimpleNamespace(text=text) for text in (" Two dogs", " were sleeping. "))
        return parts, None


def test_whisper_hears_all_segments_at_its_own_rate() -> None:
    fake = Transcriber()
    listener = WhisperListener(fake)
    heard = listener.hear(np.zeros(44_100, dtype=np.float32), 44_100)
    assert heard == "two dogs were sleeping."
    assert fake.given.size == pytest.approx(16_000, abs=2)
    assert listener.name == "whisper"


@pytest.mark.skipif(find_spec("faster_whisper") is not None, reason="faster-whisper is here")
def test_whisper_that_is_not_installed_is_said_before_anything_is_measured() -> None:
    with pytest.raises(ConfigError, match="pip install faster-whisper") as raised:
        listeners("small")
    assert raised.value.param == "benchmark.whisper_model"


def test_pocketsphinx_judges_where_it_is_installed() -> None:
    pytest.importorskip("pocketsphinx")
    (listener,) = listeners(None)
    assert isinstance(listener, SlotListener)
    assert listener.hear(np.zeros(8_000, dtype=np.float32), 16_000) == ""
