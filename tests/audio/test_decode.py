from __future__ import annotations

import io
import os
import random
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from echo.audio.decode import decode_audio, sniff_container
from echo.audio.encode import encode_file, wav_header
from echo.errors import AudioDecodeError, LimitExceededError

FILE_FORMATS = ("wav", "mp3", "flac", "ogg", "opus", "aac", "m4a")


def decode(data, *, max_bytes=10_000_000, max_seconds=300.0, **names):
    return decode_audio(data, max_bytes=max_bytes, max_seconds=max_seconds, **names)


def wav(samples, rate=44_100, subtype="PCM_16", container="WAV"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype=subtype, format=container)
    return buffer.getvalue()


def correlation(a, b):
    n = min(a.size, b.size)
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.mark.parametrize(
    "subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"]
)
def test_every_wav_encoding_gives_the_samples(subtype, sweep):
    samples = sweep(0.5)
    decoded = decode(wav(samples, subtype=subtype))
    tolerance = {"PCM_U8": 0.01, "ULAW": 0.03, "ALAW": 0.03, "PCM_16": 1e-4}.get(subtype, 1e-6)
    assert decoded.sample_rate == 44_100
    assert decoded.samples.dtype == np.float32
    np.testing.assert_allclose(decoded.samples, samples, atol=tolerance)


def test_channels_are_averaged(sweep):
    left = sweep(0.2)
    stereo = np.stack([left, np.zeros_like(left)], axis=1)
    np.testing.assert_allclose(decode(wav(stereo)).samples, left / 2, atol=1e-4)
    np.testing.assert_allclose(decode(wav(stereo, container="FLAC")).samples, left / 2, atol=1e-4)


@pytest.mark.parametrize(("container", "subtype"), [("AIFF", "PCM_16"), ("OGG", "VORBIS")])
def test_formats_written_by_another_library_are_read(container, subtype, sweep):
    samples = sweep(1.0)
    decoded = decode(wav(samples, subtype=subtype, container=container))
    assert correlation(decoded.samples, samples) > 0.99


def test_browser_recordings_in_webm_are_read(sweep):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(sweep(1.0, 48_000)[None], format="flt", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert decode(buffer.getvalue()).samples.size == pytest.approx(48_000, abs=1000)


@pytest.mark.parametrize("fmt", FILE_FORMATS)
def test_the_name_does_not_decide_the_format(fmt, tmp_path, sweep):
    path = tmp_path / "voice.wav"
    path.write_bytes(encode_file(sweep(1.0), 44_100, fmt))
    decoded = decode(path)
    assert decoded.samples.size / decoded.sample_rate == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("fmt", FILE_FORMATS)
def test_decoding_stops_at_the_limit_of_seconds(fmt, sweep):
    decoded = decode(encode_file(sweep(2.0), 44_100, fmt), max_seconds=0.5)
    assert decoded.samples.size == decoded.sample_rate // 2


@pytest.mark.parametrize(
    "text",
    [
        b"This is a text file that calls itself voice.wav\n" * 20,
        b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD></MPD>",
        "UTF-16 text".encode("utf-16"),
        b"\x00" * 1000,
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"RIFF",
        b"ID3",
        b"\xff",
    ],
)
def test_what_is_not_audio_is_refused(text, tmp_path):
    path = tmp_path / "notes.wav"
    path.write_bytes(text)
    with pytest.raises(AudioDecodeError, match=r"notes\.wav") as caught:
        decode(path, param="voice")
    assert caught.value.param == "voice"


def test_nothing_but_magic_bytes_is_refused():
    heads = [b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"\x1aE\xdf\xa3", b"\0\0\0\x18ftypM4A "]
    heads += [b"FORM\0\0\0\0AIFF", b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x40", b"ID3\x04\0\0\0\0\0\0"]
    for head in heads:
        assert sniff_container(head) is not None
        for data in (head, head + bytes(200), head + b"text " * 100):
            with pytest.raises(AudioDecodeError):
                decode(data)


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "empty.mp3"
    path.touch()
    with pytest.raises(AudioDecodeError, match=r"empty\.mp3 is empty"):
        decode(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(AudioDecodeError, match=r"gone\.wav can't be read: No such file"):
        decode(tmp_path / "gone.wav")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path):
        with pytest.raises(AudioDecodeError, match="is not a file"):
            decode(path)


@pytest.mark.parametrize("fmt", ["wav", "mp3", "flac", "ogg", "opus", "m4a"])
def test_a_file_cut_in_half_is_refused(fmt, sweep):
    whole = encode_file(sweep(3.0), 44_100, fmt)
    with pytest.raises(AudioDecodeError, match="cut off"):
        decode(whole[: len(whole) // 2])


def test_the_start_of_a_cut_file_is_used_if_that_is_all_we_take(sweep):
    whole = encode_file(sweep(3.0), 44_100, "mp3")
    assert decode(whole[: len(whole) // 2], max_seconds=1.0).samples.size == 44_100


def test_a_huge_claimed_length_is_refused_without_the_memory(sweep):
    data = wav_header(44_100, 0x7000_0000) + bytes(1000)
    with pytest.raises(AudioDecodeError, match="cut off"):
        decode(data)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 44])
def test_a_streamed_wav_without_a_length_is_read(size):
    head = bytearray(wav_header(44_100, None))
    head[40:44] = size.to_bytes(4, "little")
    assert decode(bytes(head) + bytes(4410)).samples.size == 2205


def test_more_bytes_than_allowed_are_refused_before_decoding(tmp_path):
    path = tmp_path / "big.wav"
    path.write_bytes(b"not even audio")
    for data in (path, path.read_bytes()):
        with pytest.raises(LimitExceededError, match="14 bytes; at most 10"):
            decode(data, max_bytes=10)


def test_a_wav_without_samples_is_refused():
    with pytest.raises(AudioDecodeError):
        decode(wav_header(44_100, 0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_not_numbers_are_refused(bad, sweep):
    samples = sweep(0.2)
    samples[100] = bad
    with pytest.raises(AudioDecodeError, match="not numbers"):
        decode(wav(samples, subtype="FLOAT"))


@pytest.mark.parametrize("rate", [100, 3_999, 384_001, 2_000_000])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(AudioDecodeError, match="Hz"):
        decode(wav_header(rate, 2000) + bytes(2000))


def test_too_many_channels_are_refused(sweep):
    many = np.tile(sweep(0.1)[:, None], (1, 9))
    with pytest.raises(AudioDecodeError, match="9 channels"):
        decode(wav(many))
    eight = decode(wav(many[:, :8]))
    np.testing.assert_allclose(eight.samples, many[:, 0], atol=1e-4)


def test_a_film_without_sound_is_refused():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioDecodeError, match="holds no audio"):
        decode(buffer.getvalue())


def test_a_codec_not_on_the_list_is_refused(sweep):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        stream = container.add_stream("ac3", rate=44_100, layout="mono")
        frame = av.AudioFrame.from_ndarray(sweep(0.5)[None], format="flt", layout="mono")
        frame.sample_rate = 44_100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(AudioDecodeError):
        decode(buffer.getvalue())


def test_a_picture_in_the_tags_does_no_harm(sweep):
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp3") as container:
        sound = container.add_stream("libmp3lame", rate=44_100, layout="mono")
        cover = container.add_stream("png", rate=1)
        cover.width = cover.height = 64
        cover.pix_fmt = "rgb24"
        container.mux(cover.encode(av.VideoFrame(64, 64, "rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(sweep(1.0)[None], format="fltp", layout="mono")
        frame.sample_rate = 44_100
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert b"PNG" in buffer.getvalue()
    assert decode(buffer.getvalue()).samples.size == 44_100


def test_a_file_with_many_broken_frames_is_refused_instead_of_shortened(sweep):
    data = bytearray(encode_file(sweep(3.0), 44_100, "m4a"))
    middle = slice(len(data) // 4, len(data) * 3 // 4)  # sound; the index is at the end
    data[middle] = b"\xff" * (middle.stop - middle.start)
    with pytest.raises(AudioDecodeError, match=r"is broken: \d+ of \d+ pieces"):
        decode(bytes(data))


def test_tags_and_junk_around_mp3_frames_do_no_harm(sweep):
    data = encode_file(sweep(2.0), 44_100, "mp3")
    decoded = decode(data + b"TAG" + b"title".ljust(125, b"\0"))
    assert decoded.samples.size / 44_100 == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize("fmt", [*FILE_FORMATS, "aiff"])
def test_damaged_files_never_raise_anything_else(fmt, sweep):
    rng = random.Random(fmt)
    if fmt == "aiff":
        whole = wav(sweep(0.3), container="AIFF")
    else:
        whole = encode_file(sweep(0.3), 44_100, fmt)
    outcomes = set()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 4, 40))):
            reach = rng.choice((64, 512, len(data)))
            data[rng.randrange(min(reach, len(data)))] = rng.randrange(256)
        try:
            decoded = decode(bytes(data[: rng.choice((len(data), rng.randrange(len(data)))) or 1]))
        except (AudioDecodeError, LimitExceededError):
            outcomes.add("refused")
        else:
            outcomes.add("read")
            assert np.isfinite(decoded.samples).all()
    assert "refused" in outcomes


def test_messages_name_the_file_but_not_its_folder(tmp_path: Path):
    path = tmp_path / "notes.wav"
    path.write_text("hello")
    with pytest.raises(AudioDecodeError) as caught:
        decode(path)
    assert str(tmp_path) not in caught.value.message
