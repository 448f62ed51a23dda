import numpy as np
import pytest

from echo.audio.tail import fade_out


def test_the_last_50_ms_fade_by_the_cube():
    samples = np.ones(44_100, np.float32)
    faded = fade_out(samples, 44_100)
    assert faded.dtype == np.float32
    assert (faded[: 44_100 - 2205] == 1.0).all()
    tail = faded[-2205:]
    assert tail[0] == 1.0
    assert tail[1102] == pytest.approx(0.125, abs=1e-6)  # (1 - 0.5)³
    assert tail[-1] == 0.0
    assert (samples == 1.0).all()


def test_what_is_shorter_fades_as_a_whole():
    np.testing.assert_allclose(fade_out(np.ones(3, np.float32), 44_100), [1.0, 0.125, 0.0])
    assert fade_out(np.zeros(0, np.float32), 44_100).size == 0
