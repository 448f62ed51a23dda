from __future__ import annotations

import base64
import hashlib

import numpy as np
import pytest

from echo.audio.load import load_reference
from echo.errors import (
    AudioDecodeError,
    InvalidRequestError,
    LimitExceededError,
    VoiceNotFoundError,
)
from echo.voices.source import decode_base64_audio, resolve
from echo.voices.store import VoiceStore


@pytest.fixture
def resolve_with(make_cfg):
    def call(voice, **changes):
        cfg = make_cfg(**changes)
        return resolve(voice, VoiceStore(cfg), cfg)

    return call


def test_a_name_gives_the_file(resolve_with, roots, clip):
    data = clip()
    (roots[0] / "amy.wav").write_bytes(data)
    source = resolve_with("Amy")
    assert source.name == "amy"
    assert source.content_key == hashlib.sha256(data).hexdigest()
    np.testing.assert_array_equal(source.load(), load_reference(data, max_bytes=10**6))


@pytest.mark.parametrize("fmt", ["wav", "mp3", "flac", "m4a", "ogg", "opus"])
def test_a_voice_may_be_of_any_listed_format(fmt, resolve_with, roots, clip):
    (roots[0] / f"amy.{fmt}").write_bytes(clip(1.0, fmt=fmt))
    samples = resolve_with("amy").load()
    assert samples.dtype == np.float32
    assert samples.size / 44_100 == pytest.approx(1.0, abs=0.1)


def test_a_folder_is_joined_in_name_order_with_a_second_between(resolve_with, roots, clip):
    (roots[0] / "duo").mkdir()
    (roots[0] / "duo" / "b.wav").write_bytes(clip(0.4, 500))
    (roots[0] / "duo" / "a.wav").write_bytes(clip(0.3, 200))
    samples = resolve_with("duo").load()
    first = load_reference(clip(0.3, 200), max_bytes=10**6)
    second = load_reference(clip(0.4, 500), max_bytes=10**6)
    gap = np.zeros(44_100, np.float32)
    np.testing.assert_array_equal(samples, np.concatenate([first, gap, second]))


def test_a_folders_key_depends_on_names_content_and_gap(resolve_with, roots, clip):
    folder = roots[0] / "duo"
    folder.mkdir()
    (folder / "a.wav").write_bytes(clip(0.3, 200))
    (folder / "b.wav").write_bytes(clip(0.3, 500))
    keys = [resolve_with("duo").content_key]
    assert resolve_with("duo").content_key == keys[0]
    keys.append(resolve_with("duo", folder_gap_seconds=0.5).content_key)
    (folder / "a.wav").rename(folder / "c.wav")
    keys.append(resolve_with("duo").content_key)
    (folder / "c.wav").write_bytes(clip(0.3, 300))
    keys.append(resolve_with("duo").content_key)
    (folder / "d.wav").write_bytes(clip(0.3, 300))
    keys.append(resolve_with("duo").content_key)
    assert len(set(keys)) == len(keys)


def test_equal_content_has_one_key_wherever_it_comes_from(resolve_with, roots, clip):
    (roots[0] / "amy.wav").write_bytes(clip())
    (roots[1] / "bob.wav").write_bytes(clip())
    keys = {
        resolve_with(voice).content_key
        for voice in ("amy", "bob", base64.b64encode(clip()).decode())
    }
    assert len(keys) == 1


def test_a_changed_file_is_noticed(resolve_with, roots, clip):
    (roots[0] / "amy.wav").write_bytes(clip(0.5, 200))
    before = resolve_with("amy")
    (roots[0] / "amy.wav").write_bytes(clip(0.5, 300))
    after = resolve_with("amy")
    assert before.content_key != after.content_key
    with pytest.raises(InvalidRequestError, match="changed while it was read"):
        before.load()
    (roots[0] / "amy.wav").unlink()
    with pytest.raises(AudioDecodeError, match="can't be read"):
        after.load()


def wrapped(text):
    return "\n".join(text[i : i + 76] for i in range(0, len(text), 76))


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.rstrip("="),
        lambda text: text.replace("+", "-").replace("/", "_"),
        wrapped,
        lambda text: "  " + text + "\r\n",
        lambda text: "data:audio/wav;base64," + text,
        lambda text: "DATA:audio/x-wav;codecs=1;BASE64," + text,
        lambda text: "data:;base64," + wrapped(text),
    ],
)
def test_base64_is_taken_however_it_is_written(write, resolve_with, clip):
    data = clip(0.301)
    source = resolve_with(write(base64.b64encode(data).decode()))
    assert source.name is None
    assert source.content_key == hashlib.sha256(data).hexdigest()
    assert source.load().size == pytest.approx(0.301 * 44_100, abs=1)


@pytest.mark.parametrize(
    "text",
    [
        "not base64! " * 30,
        "é" * 300,
        "A" * 401,  # no whole number of bytes
        "data:audio/wav;base64,@@@@",
        "data:audio/wav;base64,",
        "data:audio/wav;base64",
        "data:audio/wav,plain text",
        "A" * 300 + "=" + "A" * 300,
        "\x00" * 500,
    ],
)
def test_broken_base64_is_a_clear_error(text, resolve_with):
    with pytest.raises(InvalidRequestError) as caught:
        resolve_with(text)
    assert caught.value.param == "voice"
    assert "base64" in caught.value.message or "no audio" in caught.value.message
    assert len(caught.value.message) < 120


def test_base64_that_is_no_audio_is_refused_when_loaded(resolve_with):
    source = resolve_with(base64.b64encode(b"just some text " * 30).decode())
    with pytest.raises(AudioDecodeError, match="not audio") as caught:
        source.load()
    assert caught.value.param == "voice"


def test_inline_audio_over_the_limit_is_refused_by_its_length():
    with pytest.raises(LimitExceededError, match="holds 101 bytes of audio; at most 100"):
        decode_base64_audio(base64.b64encode(bytes(101)).decode(), max_bytes=100)
    assert decode_base64_audio(base64.b64encode(bytes(100)).decode(), max_bytes=100) == bytes(100)
    with pytest.raises(LimitExceededError):  # not decoded: it would be a base64 error
        decode_base64_audio("!" * 1000, max_bytes=100)


def test_a_text_file_named_wav_is_refused(resolve_with, roots):
    (roots[0] / "notes.wav").write_text("these are notes")
    with pytest.raises(AudioDecodeError, match=r"voice file notes\.wav is not audio") as caught:
        resolve_with("notes").load()
    assert caught.value.param == "voice"


def test_a_broken_clip_fails_its_folder(resolve_with, roots, clip):
    (roots[0] / "duo").mkdir()
    (roots[0] / "duo" / "a.wav").write_bytes(clip())
    (roots[0] / "duo" / "b.wav").write_text("these are notes")
    with pytest.raises(AudioDecodeError, match=r"b\.wav"):
        resolve_with("duo").load()


def test_a_voice_too_short_to_encode_is_refused(resolve_with, roots, clip):
    (roots[0] / "blip.wav").write_bytes(clip(0.18))
    (roots[0] / "short.wav").write_bytes(clip(0.19))
    with pytest.raises(AudioDecodeError, match=r"'blip' is shorter than 0\.2 s"):
        resolve_with("blip").load()
    assert resolve_with("short").load().size == 8379


def test_without_a_name_the_default_or_the_first_is_taken(resolve_with, roots, clip):
    assert resolve_with(None) is None
    (roots[0] / "zoe.wav").write_bytes(clip())
    (roots[1] / "Amy.wav").write_bytes(clip())
    assert resolve_with(None).name == "Amy"
    assert resolve_with(None, default="zoe").name == "zoe"
    assert resolve_with(None, default="gone").name == "Amy"


@pytest.mark.parametrize("voice", ["gone", "../etc/passwd", "bad\x00name", "x" * 200])
def test_an_unknown_name_is_not_taken_for_base64(voice, resolve_with, roots, clip):
    (roots[0] / "amy.wav").write_bytes(clip())
    with pytest.raises(VoiceNotFoundError, match="there are amy"):
        resolve_with(voice)


@pytest.mark.parametrize("voice", ["", "  ", "\n"])
def test_an_empty_name_is_an_error(voice, resolve_with):
    with pytest.raises(InvalidRequestError, match="voice is empty"):
        resolve_with(voice)


def test_audio_is_not_shown_when_a_source_is_logged(resolve_with, clip):
    assert len(repr(resolve_with(base64.b64encode(clip()).decode()))) < 200
