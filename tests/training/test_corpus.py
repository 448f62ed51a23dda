"""The synthesiser, the timing of its sounds, and the shards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from echo.errors import ConfigError
from echo.spec import SAMPLE_RATE
from echo.training.catalogue import PASSERS_BY, VOICES
from echo.training.corpus import BEFORE_SECONDS, LEVEL_RMS, CorpusConfig, build_corpus, say
from echo.training.espeak import EspeakVoice, speak
from echo.training.texts import TextMix
from echo.training.voices import CLIPS, DEFAULT_VOICE, build_voices

TINY = CorpusConfig(
    seed=3,
    hours=0.01,
    held_out_minutes=0.3,
    shard_minutes=0.3,
    voices=3,
    others=0.4,
    workers=1,
    mix=TextMix(sentences=0.45, slots=0.2, word_runs=0.2, short=0.15),
)


def test_what_was_said_before_does_not_change_what_is_said() -> None:
    first = speak("A red apple.", VOICES[0])
    speak("Something else entirely, and in another voice.", VOICES[1])
    again = speak("A red apple.", VOICES[0])
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phones == again.phones


def test_an_unknown_voice_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'xx-unknown'"):
        speak("Hello.", EspeakVoice("x", "xx-unknown", 170, 50, 50))


def test_sounds_are_in_order_and_belong_to_their_words() -> None:
    spoken = say("[S1] Old houses, 42 dogs.", 0)
    times = [time for phone in spoken.phones for time in (phone.start, phone.end)]
    assert times == sorted(times)
    assert times[-1] <= spoken.samples.size / SAMPLE_RATE
    chars = [phone.char for phone in spoken.phones]
    assert chars == sorted(chars)
    for word in ("Old", "houses", "42", "dogs"):
        start = spoken.text.index(word)
        assert set(chars) & set(range(start, start + len(word))), word
    assert min(chars) >= len("[S1] ")


def test_a_pause_belongs_to_the_comma_and_is_silent() -> None:
    spoken = say("[S1] Yes, of course.", 0)
    comma = spoken.text.index(",")
    pause = next(phone for phone in spoken.phones if phone.char == comma)
    middle = (pause.start + pause.end) / 2
    around = spoken.samples[round((middle - 0.02) * SAMPLE_RATE) :][: round(0.04 * SAMPLE_RATE)]
    assert pause.end - pause.start > 0.1
    assert np.sqrt(np.mean(around**2)) < 0.1 * LEVEL_RMS


@pytest.mark.parametrize("voice", range(len(VOICES)))
def test_all_voices_are_equally_loud_and_trimmed_alike(voice: int) -> None:
    samples = say("[S1] The baker opened the window.", voice).samples
    loud = np.abs(samples) > 0.01
    assert np.abs(samples).max() <= 1.0
    assert 0.06 < np.sqrt(np.mean(samples**2)) < 0.12
    assert BEFORE_SECONDS - 0.02 < np.flatnonzero(loud)[0] / SAMPLE_RATE < BEFORE_SECONDS + 0.08
    assert (samples.size - np.flatnonzero(loud)[-1]) / SAMPLE_RATE < 0.25


def test_a_corpus_holds_what_the_stages_read(tmp_path: Path) -> None:
    folder = build_corpus(TINY, tmp_path)
    for split, shards in (("train", 2), ("held_out", 1)):
        paths = sorted((folder / split).iterdir())
        assert [path.name for path in paths] == [f"shard_{i:04d}.npz" for i in range(shards)]
        for path in paths:
            _check_shard(path)
    assert [voice["name"] for voice in json.loads((folder / "voices.json").read_text())] == [
        voice.name for voice in (*VOICES[:3], *PASSERS_BY)
    ]
    with np.load(folder / "train" / "shard_0000.npz") as train:
        assert {index >= 3 for index in train["voice"].tolist()} == {False, True}
    with np.load(folder / "held_out" / "shard_0000.npz") as held_out:
        assert max(held_out["voice"]) < 3  # judged by shipped voices alone


def test_an_interrupted_corpus_goes_on_and_comes_out_the_same(tmp_path: Path) -> None:
    whole = build_corpus(TINY, tmp_path / "whole")
    cut = build_corpus(TINY, tmp_path / "cut")
    kept, lost = cut / "train" / "shard_0000.npz", cut / "train" / "shard_0001.npz"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    build_corpus(replace(TINY, hours=0.015), tmp_path / "cut")  # more hours add shards
    assert kept.stat().st_mtime_ns == before
    assert (cut / "train" / "shard_0002.npz").exists()
    with np.load(whole / "train" / lost.name) as a, np.load(lost) as b:
        assert all(np.array_equal(a[key], b[key]) for key in a.files)


def test_a_corpus_of_other_settings_is_not_mixed_in(tmp_path: Path) -> None:
    build_corpus(TINY, tmp_path)
    with pytest.raises(ConfigError, match="other settings"):
        build_corpus(replace(TINY, seed=4), tmp_path)


def test_more_voices_than_the_catalogue_has_are_refused() -> None:
    with pytest.raises(ConfigError, match="catalogue has 6"):
        replace(TINY, voices=7)


def test_the_shipped_voices_are_of_the_catalogue_with_one_folder(tmp_path: Path) -> None:
    files = build_voices(tmp_path)
    assert {file.voice for file in files} == {voice.name for voice in VOICES} == set(CLIPS)
    assert DEFAULT_VOICE in CLIPS
    assert all(5.0 <= file.seconds <= 15.0 for file in files)
    assert sorted(path.name for path in (tmp_path / "nora").iterdir()) == ["01.flac", "02.flac"]
    assert "Free for any use" in (tmp_path / "LICENSE").read_text()


def _check_shard(path: Path) -> None:
    with np.load(path) as shard:
        data = {key: shard[key] for key in shard.files}
    count = len(data["texts"])
    assert data["audio"].dtype == np.int16
    assert data["offsets"][0] == 0
    assert data["offsets"][-1] == data["audio"].size >= 0.3 * 60 * SAMPLE_RATE
    assert len(data["offsets"]) == len(data["phone_offsets"]) == count + 1
    assert data["phone_offsets"][-1] == len(data["phone_start"]) == len(data["phone_byte"])
    assert max(data["voice"]) < 3 + len(PASSERS_BY)
    for index, text in enumerate(data["texts"]):
        part = slice(data["phone_offsets"][index], data["phone_offsets"][index + 1])
        seconds = (data["offsets"][index + 1] - data["offsets"][index]) / SAMPLE_RATE
        assert (data["phone_end"][part] > data["phone_start"][part]).all()
        assert data["phone_end"][part].max() <= seconds + 1e-3
        assert data["phone_byte"][part].max() < len(text.encode())
