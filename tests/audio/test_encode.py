from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import soundfile

from echo.audio.decode import decode_audio
from echo.audio.encode import (
    FORMATS,
    encode_file,
    format_of,
    open_encoder,
    pcm16,
    wav_header,
)
from echo.errors import GenerationError, InvalidRequestError

STREAMED = ("wav", "mp3", "flac", "ogg", "opus", "aac")
LOSSLESS = ("wav", "flac")


def decode(data):
    return decode_audio(data, max_bytes=10_000_000, max_seconds=300.0)


def stream(name, samples, rate, parts, **options):
    encoder = open_encoder(name, rate, **options)
    pieces = [encoder.push(part) for part in np.array_split(samples, parts)]
    return [*pieces, encoder.close()]


def best_correlation(decoded, samples, rate):
    """Highest correlation over shifts up to 100 ms: codecs delay."""
    size = 1 << (decoded.size + samples.size).bit_length()
    spectrum = np.fft.rfft(decoded, size) * np.conj(np.fft.rfft(samples, size))
    shifts = np.fft.irfft(spectrum, size)[: rate // 10]
    return shifts.max() / (np.linalg.norm(decoded) * np.linalg.norm(samples))


def test_pcm_is_rounded_clipped_and_little_endian():
    samples = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1.4 / 32767, 1.6 / 32767], np.float32)
    values = struct.unpack("<8h", pcm16(samples))
    assert values == (0, 32767, -32767, 32767, -32767, 16384, 1, 2)


def test_a_wav_header_is_the_canonical_one():
    header = wav_header(24_000, 1000)
    assert len(header) == 44
    assert struct.unpack("<4sI4s4sIHHIIHH4sI", header) == (
        *(b"RIFF", 1036, b"WAVE", b"fmt ", 16, 1, 1, 24_000, 48_000, 2, 16, b"data", 1000),
    )
    streamed = wav_header(24_000, None)
    assert (streamed[4:8], streamed[40:44]) == (b"\xff" * 4, b"\xff" * 4)
    assert streamed[8:40] == header[8:40]


@pytest.mark.parametrize("name", [*STREAMED, "m4a"])
def test_each_file_format_round_trips(name, sweep):
    samples = sweep(2.0)
    decoded = decode(encode_file(samples, 44_100, f"folder/Speech.{name.upper()}"))
    assert decoded.samples.size / decoded.sample_rate == pytest.approx(2.0, abs=0.06)
    expected = sweep(2.0, decoded.sample_rate)
    assert best_correlation(decoded.samples, expected, decoded.sample_rate) > 0.98
    if name in LOSSLESS:
        np.testing.assert_allclose(decoded.samples, samples, atol=1e-4)


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("parts", [1, 7, 150])
def test_streamed_parts_join_to_the_same_audio(name, parts, sweep):
    samples = sweep(2.0)
    decoded = decode(b"".join(stream(name, samples, 44_100, parts)))
    assert decoded.samples.size / decoded.sample_rate == pytest.approx(2.0, abs=0.06)
    expected = sweep(2.0, decoded.sample_rate)
    assert best_correlation(decoded.samples, expected, decoded.sample_rate) > 0.98


@pytest.mark.parametrize("name", ["pcm", *STREAMED])
def test_how_a_stream_is_cut_does_not_change_its_bytes(name, sweep):
    samples = sweep(1.0)
    whole = b"".join(stream(name, samples, 44_100, 1))
    assert b"".join(stream(name, samples, 44_100, 9)) == whole
    assert b"".join(stream(name, samples, 44_100, 1)) == whole


@pytest.mark.parametrize("name", STREAMED)
def test_audio_comes_out_as_it_is_pushed(name, sweep):
    samples = sweep(3.0)
    encoder = open_encoder(name, 44_100)
    early = encoder.push(samples[: 2 * 44_100])
    decoded = decode(early)
    assert decoded.samples.size / decoded.sample_rate > 1.75
    assert encoder.push(samples[2 * 44_100 :])


def test_streamed_pcm_and_wav_are_the_plain_samples(sweep):
    samples = sweep(0.5)
    assert b"".join(stream("pcm", samples, 44_100, 5)) == pcm16(samples)
    assert b"".join(stream("wav", samples, 44_100, 5)) == wav_header(44_100, None) + pcm16(samples)


def test_a_complete_wav_states_its_exact_size(sweep):
    data = encode_file(sweep(0.5), 44_100, "wav")
    assert data == wav_header(44_100, len(data) - 44) + pcm16(sweep(0.5))
    assert soundfile.info(io.BytesIO(data)).frames == 22_050


@pytest.mark.parametrize(
    ("name", "wanted", "given"),
    [
        ("pcm", 24_000, 24_000),
        ("wav", 8_000, 8_000),
        ("mp3", 48_000, 48_000),
        ("mp3", 44_000, 44_100),
        ("opus", 44_100, 48_000),
        ("opus", 24_000, 24_000),
        ("aac", 96_000, 48_000),
        ("aac", 24_000, 32_000),
        ("flac", 16_000, 16_000),
    ],
)
def test_an_output_rate_is_resampled_to(name, wanted, given, sweep):
    encoder = open_encoder(name, 44_100, output_rate=wanted)
    assert encoder.sample_rate == given
    data = encoder.push(sweep(1.0)) + encoder.close()
    if name == "pcm":
        assert len(data) == 2 * wanted
    else:
        decoded = decode(data)
        rate = 48_000 if name == "opus" else given  # Opus always decodes at 48 kHz
        assert decoded.sample_rate == rate
        assert decoded.samples.size / rate == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("name", [*STREAMED, "m4a"])
def test_every_format_takes_the_usual_rates(name, rate, sweep):
    decoded = decode(encode_file(sweep(1.0, rate), rate, name))
    assert decoded.samples.size / decoded.sample_rate == pytest.approx(1.0, abs=0.06)


def test_a_bit_rate_is_honoured(sweep):
    low, high = (
        b"".join(stream("mp3", sweep(2.0), 44_100, 2, bit_rate=rate)) for rate in (32_000, 192_000)
    )
    assert len(low) * 8 / 2.0 == pytest.approx(32_000, rel=0.1)
    assert len(high) * 8 / 2.0 == pytest.approx(192_000, rel=0.1)


def test_what_is_louder_than_full_scale_is_clipped_not_wrapped(sweep):
    for name in ("flac", "opus"):
        decoded = decode(b"".join(stream(name, sweep(0.5) * 6, 44_100, 3)))
        assert 0.9 < np.abs(decoded.samples).max() < 1.5


@pytest.mark.parametrize("name", ["pcm", *STREAMED])
def test_a_stream_without_samples_ends_cleanly(name):
    encoder = open_encoder(name, 44_100)
    assert encoder.push(np.zeros(0, np.float32)) + encoder.close() is not None
    assert encoder.close() == b""
    with pytest.raises(ValueError, match="closed"):
        encoder.push(np.zeros(10, np.float32))


def test_unknown_formats_are_refused_with_the_list():
    for call in (
        lambda: encode_file(np.zeros(10, np.float32), 44_100, "speech.xyz"),
        lambda: open_encoder("xyz", 44_100),
        lambda: format_of("noextension"),
    ):
        with pytest.raises(InvalidRequestError, match="pcm, wav, mp3, flac, opus, ogg, aac, m4a"):
            call()


def test_what_cannot_stream_or_has_an_impossible_rate_is_refused():
    with pytest.raises(InvalidRequestError, match="m4a can't be streamed"):
        open_encoder("m4a", 44_100)
    for rate in (0, -1, 3_999, 10**9):
        with pytest.raises(InvalidRequestError, match="impossible"):
            open_encoder("pcm", 44_100, output_rate=rate)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_audio_that_is_no_number_is_an_error(bad):
    samples = np.array([0.0, bad], np.float32)
    for call in (pcm16, open_encoder("mp3", 44_100).push, open_encoder("wav", 44_100).push):
        with pytest.raises(GenerationError):
            call(samples)


def test_content_types_are_those_clients_decode_by():
    types = {name: open_encoder(name, 44_100).media_type for name in FORMATS if name != "m4a"}
    assert types == {
        "pcm": "audio/pcm;rate=44100;channels=1",
        "wav": "audio/wav",
        "mp3": "audio/mpeg",
        "flac": "audio/flac",
        "opus": "audio/opus",
        "ogg": "audio/ogg",
        "aac": "audio/aac",
    }
