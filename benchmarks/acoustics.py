"""What can be measured of a sound by arithmetic: loudness, tail, seams, mel-cepstral distance.

Sounds are [T] float32 in -1 ... 1, mono. Nothing here knows what was to be said.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from echo.audio.resample import Samples
from echo.audio.tail import FADE_MS
from echo.audio.vad import Span
from echo.training.measure import tail_dbfs

Array = NDArray[np.float64]

SILENT_LUFS = -70.0  # the absolute gate of BS.1770: what is below counts as silence
MCD_HOP_MS, MCD_WINDOW_MS = 10.0, 25.0
MEL_BANDS, CEPSTRA = 40, 13
TAIL_MS = 100.0
SEAM_MS = 1.0  # the join itself, to either side
AROUND_MS = 100.0  # what it is held against, to either side
QUIET = 1e-3  # amplitude (-60 dBFS): steps below this are no clicks, whatever surrounds them
_FLOOR = 1e-10  # power, -100 dBFS


def loudness_lufs(samples: Samples, sample_rate: int) -> float:
    """Integrated loudness by ITU-R BS.1770-4 (K-weighting, both gates); at least -70 LUFS.

    Sounds shorter than one gating block of 400 ms are one block.
    """
    if samples.size == 0:
        return SILENT_LUFS
    weighted = _k_weighted(samples.astype(np.float64), sample_rate)
    block, step = round(0.4 * sample_rate), round(0.1 * sample_rate)
    if weighted.size < block:
        power = np.array([(weighted**2).mean()])
    else:
        sums = np.concatenate(([0.0], np.cumsum(weighted**2)))
        starts = np.arange(0, weighted.size - block + 1, step)
        power = (sums[starts + block] - sums[starts]) / block
    power = power[_lufs(power) > SILENT_LUFS]
    if not power.size:
        return SILENT_LUFS
    power = power[_lufs(power) > _lufs(power.mean()) - 10.0]
    return float(_lufs(power.mean()))


def peak_dbfs(samples: Samples) -> float:
    """The largest sample in dB of full scale; at least -100."""
    return 20.0 * float(np.log10(max(float(np.abs(samples).max(initial=0.0)), 1e-5)))


def tail_noise_dbfs(samples: Samples, sample_rate: int) -> float:
    """RMS level of the 100 ms before the final fade, in dB of full scale; at least -100.

    Loud where the end cuts into speech, or into noise that should have been silence.
    """
    fade = round(sample_rate * FADE_MS / 1000)
    return tail_dbfs(samples[: max(0, samples.size - fade)], sample_rate, TAIL_MS)


def pauses_s(spans: list[Span]) -> list[float]:
    """Lengths of the gaps between stretches of speech, in seconds."""
    return [later[0] - earlier[1] for earlier, later in pairwise(spans)]


def seam_click(samples: Samples, sample_rate: int, at: int) -> float:
    """How far the waveform jumps at sample ``at``, 1 = no more than around it.

    The largest step between neighbouring samples within 1 ms of the join, over the largest one
    within 100 ms to either side (or over -60 dBFS, where that is silent). Above 1: a click.
    """
    near, around = round(SEAM_MS * sample_rate / 1e3), round(AROUND_MS * sample_rate / 1e3)
    step = np.abs(np.diff(samples.astype(np.float64)))
    join = step[max(0, at - near) : at + near]
    beside = np.concatenate(
        (step[max(0, at - around) : max(0, at - near)], step[at + near : at + around])
    )
    return float(join.max(initial=0.0) / max(QUIET, float(beside.max(initial=0.0))))


def seam_spectrum(samples: Samples, sample_rate: int, at: int) -> float:
    """How much the sound changes across sample ``at``, 1 = as much as it does around it.

    Mel-cepstral distance between the windows of 25 ms right before and right after, over the
    median of such distances within 100 ms to either side; NaN too near to an end.
    """
    window, hop = (round(ms * sample_rate / 1e3) for ms in (MCD_WINDOW_MS, MCD_HOP_MS))
    around = round(AROUND_MS * sample_rate / 1e3)
    offsets = np.arange(-around + window, around - window + 1, hop)
    places = [at + int(offset) for offset in (0, *offsets)]
    if min(places) < window or max(places) + window > samples.size:
        return float("nan")
    before = np.stack([samples[place - window : place] for place in places])
    after = np.stack([samples[place : place + window] for place in places])
    change = _distance(_cepstra_of(before, sample_rate), _cepstra_of(after, sample_rate))
    apart = np.abs(offsets) >= window  # the others look across the join, too
    return float(change[0] / max(1e-6, float(np.median(change[1:][apart]))))


def mel_cepstra(samples: Samples, sample_rate: int) -> Array:
    """[frames, 13]: cosine transform of 40 log mel bands every 10 ms, without the level c0."""
    window, hop = (round(ms * sample_rate / 1e3) for ms in (MCD_WINDOW_MS, MCD_HOP_MS))
    padded = np.pad(samples, (0, max(0, window - samples.size)))
    return _cepstra_of(np.lib.stride_tricks.sliding_window_view(padded, window)[::hop], sample_rate)


def mel_cepstral_db(a: Samples, b: Samples, sample_rate: int, *, aligned: bool) -> float:
    """Mean mel-cepstral distance in dB (Kubichek 1993); 0 = the same sound.

    ``aligned``: frame by frame, the longer one cut; else along the best path of dynamic time
    warping, which forgives another pace, not other sounds.
    """
    x, y = mel_cepstra(a, sample_rate), mel_cepstra(b, sample_rate)
    if aligned:
        frames = min(len(x), len(y))
        return float(_distance(x[:frames], y[:frames]).mean())
    cost = _distance(x[:, None], y[None])
    return _warped(cost)


def _warped(cost: Array) -> float:
    """Mean of ``cost`` [n, m] along the cheapest path from corner to corner."""
    rows, columns = cost.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    length = np.zeros((rows + 1, columns + 1))
    total[0, 0] = 0.0
    for diagonal in range(2, rows + columns + 1):  # all cells of one do not depend on each other
        i = np.arange(max(1, diagonal - columns), min(rows, diagonal - 1) + 1)
        j = diagonal - i
        ways = np.stack((total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]))
        best = ways.argmin(axis=0)
        total[i, j] = ways.min(axis=0) + cost[i - 1, j - 1]
        lengths = np.stack((length[i - 1, j - 1], length[i - 1, j], length[i, j - 1]))
        length[i, j] = np.take_along_axis(lengths, best[None], 0)[0] + 1
    return float(total[rows, columns] / length[rows, columns])


def _distance(x: Array, y: Array) -> Array:
    return np.asarray(10.0 / np.log(10.0) * np.sqrt(2.0 * ((x - y) ** 2).sum(axis=-1)))


def _cepstra_of(frames: NDArray[np.floating], sample_rate: int) -> Array:
    """[n, window] to [n, CEPSTRA]."""
    size = frames.shape[-1]
    spectrum = np.abs(np.fft.rfft(frames * np.hanning(size), axis=-1)) ** 2 / size
    bands = np.log(np.maximum(spectrum @ _mel_bank(size, sample_rate).T, _FLOOR))
    k = np.arange(1, CEPSTRA + 1)[:, None]
    cosine = np.cos(np.pi * k * (np.arange(MEL_BANDS) + 0.5) / MEL_BANDS)
    return np.asarray(bands @ cosine.T / MEL_BANDS * 2.0)


@lru_cache(maxsize=4)
def _mel_bank(size: int, sample_rate: int) -> Array:
    """[MEL_BANDS, size / 2 + 1] triangles of equal width on the mel scale, 60 Hz to 12 kHz."""
    top = min(12_000.0, sample_rate / 2)
    mels = np.linspace(2595 * np.log10(1 + 60 / 700), 2595 * np.log10(1 + top / 700), MEL_BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    hertz = np.fft.rfftfreq(size, 1 / sample_rate)[None]
    low, middle, high = (edges[i : i + MEL_BANDS, None] for i in range(3))
    bank = np.clip(
        np.minimum((hertz - low) / (middle - low), (high - hertz) / (high - middle)), 0, 1
    )
    empty = bank.sum(axis=1) == 0  # narrower than a bin
    bank[empty, np.abs(hertz - middle[empty]).argmin(axis=1)] = 1.0
    return np.asarray(bank)


def _k_weighted(samples: Array, sample_rate: int) -> Array:
    """Through BS.1770's two filters, by their response at every frequency.

    Coefficients by bilinear transform of the analogue prototypes behind the standard's table.
    """
    size = samples.size + sample_rate  # room for the high pass to die away
    z = np.exp(-2j * np.pi * np.fft.rfftfreq(size))
    spectrum = np.fft.rfft(samples, size) * _shelf(z, sample_rate) * _high_pass(z, sample_rate)
    return np.asarray(np.fft.irfft(spectrum, size)[: samples.size])


def _shelf(z: NDArray[np.complex128], sample_rate: int) -> NDArray[np.complex128]:
    k, q = np.tan(np.pi * 1681.974450955533 / sample_rate), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    band = high**0.4996667741545416
    top = (
        (high + band * k / q + k * k)
        + 2 * (k * k - high) * z
        + (high - band * k / q + k * k) * z**2
    )
    return np.asarray(top / _below(z, k, q))


def _high_pass(z: NDArray[np.complex128], sample_rate: int) -> NDArray[np.complex128]:
    k, q = np.tan(np.pi * 38.13547087602444 / sample_rate), 0.5003270373238773
    return np.asarray((1 - 2 * z + z**2) * (1 + k / q + k * k) / _below(z, k, q))


def _below(z: NDArray[np.complex128], k: float, q: float) -> NDArray[np.complex128]:
    return np.asarray((1 + k / q + k * k) + 2 * (k * k - 1) * z + (1 - k / q + k * k) * z**2)


def _lufs(power: Array | float) -> Array:
    return np.asarray(-0.691 + 10.0 * np.log10(np.maximum(power, 1e-12)))
