from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from echo.errors import (
    AudioDecodeError,
    InvalidRequestError,
    LimitExceededError,
    StorageError,
    VoiceExistsError,
    VoiceNotFoundError,
)
from echo.voices.clone_names import VoiceDetails, clone_id, split_id
from echo.voices.clones import CloneStore
from echo.voices.store import VoiceStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def forgotten() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "clones"


@pytest.fixture
def cfg(make_cfg, folder):
    return make_cfg(clone_root=str(folder))


@pytest.fixture
def clones(cfg, forgotten) -> CloneStore:
    return CloneStore(cfg, forgotten.append)


def make(clones: CloneStore, *audio: bytes, workspace="w", name="Anna", **details):
    return clones.create(
        workspace, name, audio, VoiceDetails(**details), max_bytes=1 << 20, param="sample"
    )


def test_a_clone_is_a_voice_at_once_with_its_bytes_and_details(clones, cfg, clip, folder):
    voice = make(clones, clip(), display_name="Anna", tags=("warm",), lang_code="EN_US")
    assert voice.id == "w__Anna"
    assert (folder / "w__Anna.wav").read_bytes() == clip()
    assert [v.id for v in VoiceStore(cfg).list()] == ["w__Anna"]
    again = clones.get("w", "Anna")
    assert again == voice
    assert again.details == VoiceDetails("Anna", None, ("warm",), "EN_US")
    assert clones.by_id("w__Anna") == voice


def test_mp3_stays_mp3_other_kinds_and_several_clips_become_wav(clones, clip):
    assert make(clones, clip(fmt="mp3")).path.name == "w__Anna.mp3"
    assert make(clones, clip(fmt="flac"), name="B").path.name == "w__B.wav"
    joined = make(clones, clip(0.5), clip(0.5), name="C").path
    assert joined.stat().st_size == 44 + 2 * 2 * 44_100  # 0.5 s, 1 s of silence, 0.5 s


def test_a_name_is_taken_whatever_the_extension(clones, clip, folder):
    make(clones, clip(fmt="mp3"))
    before = (folder / "w__Anna.mp3").read_bytes()
    with pytest.raises(VoiceExistsError):
        make(clones, clip())
    assert not (folder / "w__Anna.wav").exists()
    assert (folder / "w__Anna.mp3").read_bytes() == before


def test_of_two_clones_of_one_name_at_once_one_wins(cfg, clip):
    results: list[object] = []
    start = threading.Barrier(4)

    def clone(number: int) -> None:
        store = CloneStore(cfg, lambda key: None)  # one each, as in several processes
        start.wait()
        try:
            results.append(make(store, clip(0.3 + number / 10), description=str(number)))
        except VoiceExistsError as error:
            results.append(error)

    threads = [threading.Thread(target=clone, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [result for result in results if not isinstance(result, VoiceExistsError)]
    assert len(results) == 4
    assert len(winners) == 1
    kept = CloneStore(cfg, lambda key: None).get("w", "Anna")
    assert kept == winners[0]
    assert kept.path.read_bytes() == clip(0.3 + int(kept.details.description) / 10)


@pytest.mark.parametrize("audio", [b"", b"RIFF....WAVEfmt junk", b"hello" * 100])
def test_what_does_not_decode_is_refused_and_leaves_nothing(clones, folder, audio):
    with pytest.raises(AudioDecodeError) as caught:
        make(clones, audio)
    assert caught.value.param == "sample"
    assert not folder.exists()


def test_too_short_too_large_and_no_audio_are_refused(clones, clip):
    with pytest.raises(AudioDecodeError, match=r"shorter than 0\.2 s"):
        make(clones, clip(0.1))
    with pytest.raises(LimitExceededError):
        clones.create("w", "A", [clip()], VoiceDetails(), max_bytes=100, param="sample")
    with pytest.raises(InvalidRequestError):
        make(clones)


@pytest.mark.parametrize(
    "name", ["", " ", "../x", "a/b", "a\\b", "a.b", ".", "___", "a\0b", "a\nb"]
)
def test_names_that_are_none_are_refused(clones, clip, name):
    with pytest.raises(InvalidRequestError):
        make(clones, clip(), name=name)
    with pytest.raises(InvalidRequestError):
        make(clones, clip(), workspace=name or " ")
    assert clones.get("w", name) is None


def test_names_have_letters_digits_and_a_limit():
    assert clone_id("w", " Zoë-2 the_2nd ") == "w__Zoë-2 the_2nd"
    clone_id("w", "a" * 100)
    for workspace, name in (("w", "a" * 101), ("b" * 100, "a" * 100), ("a__b", "c"), ("a_", "c")):
        with pytest.raises(InvalidRequestError):
            clone_id(workspace, name)


@pytest.mark.parametrize(("workspace", "name"), [("a", "b"), ("a", "_b"), ("a_b", "c__d")])
def test_an_id_tells_workspace_and_name(workspace, name):
    assert split_id(clone_id(workspace, name)) == (workspace, name)


@pytest.mark.parametrize(
    "voice_id", ["anna", "__a", "a__", "a__b/c", "../a__b", "a__b.wav", " a__b"]
)
def test_what_is_no_id_of_a_clone_is_none(voice_id):
    assert split_id(voice_id) is None


def test_deleting_removes_the_files_and_forgets_the_encoding(clones, cfg, clip, folder, forgotten):
    voice = make(clones, clip(), description="x")
    digest = VoiceStore(cfg).clips(VoiceStore(cfg).find("w__Anna"))[0].sha256
    clones.delete(voice)
    assert forgotten == [digest]
    assert [p.name for p in folder.iterdir() if not p.name.startswith(".")] == []
    with pytest.raises(VoiceNotFoundError):
        clones.delete(voice)
    make(clones, clip())


def test_only_plain_files_of_the_folder_are_clones(clones, clip, folder, tmp_path):
    folder.mkdir()
    (tmp_path / "w__secret.wav").write_bytes(clip())
    (folder / "w__link.wav").symlink_to(tmp_path / "w__secret.wav")
    (folder / "w__dir.wav").mkdir()
    (folder / "plain.wav").write_bytes(clip())
    for voice_id in ("w__link", "w__dir", "plain", "../w__secret", "x/../w__link"):
        assert clones.by_id(voice_id) is None
    with pytest.raises(VoiceExistsError):
        make(clones, clip(), name="link")
    assert (tmp_path / "w__secret.wav").exists()


def test_details_can_be_changed_and_survive_a_broken_file(clones, clip, folder):
    voice = make(clones, clip(), description="old")
    new = clones.update(voice, VoiceDetails("New name", "new", ("a", "b"), "DE_DE"))
    assert clones.get("w", "Anna") == new
    assert new.path == voice.path
    for broken in ("{", "[1]", '{"tags": 3, "description": {}}'):
        (folder / "w__Anna.clone.json").write_text(broken)
        assert clones.get("w", "Anna").details == VoiceDetails()
    with pytest.raises(LimitExceededError):
        clones.update(voice, VoiceDetails(description="x" * 2001))
    clones.delete(voice)
    with pytest.raises(VoiceNotFoundError):
        clones.update(voice, VoiceDetails())


def test_a_folder_that_cannot_be_written_is_a_clear_error(make_cfg, clip, tmp_path):
    (tmp_path / "file").write_text("")
    store = CloneStore(make_cfg(clone_root=str(tmp_path / "file")), lambda key: None)
    with pytest.raises(StorageError, match="file"):
        make(store, clip())


# Decoding in a process of its own would take most of the time; the kill is to hit the writing.
WRITER = """
import json
import sys

from echo.audio.decode import decode_audio
from echo.config.schema import VoicesConfig
from echo.voices.clone_names import VoiceDetails
from echo.voices.clones import CloneStore

cfg = VoicesConfig(**json.loads(sys.argv[1]))
store = CloneStore(cfg, lambda key: None, decode=decode_audio)
audio = sys.stdin.buffer.read()
print("ready", flush=True)
for number in range(10_000):
    voice = store.create(
        "w", str(number), [audio], VoiceDetails(description=str(number)),
        max_bytes=1 << 24, param="sample",
    )
    store.delete(voice) if number % 2 else None
"""


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.03])
def test_a_killed_writer_leaves_whole_voices_only(cfg, clones, clip, folder, delay, tmp_path):
    audio = clip(60.0)
    script = tmp_path / "writer.py"
    script.write_text(WRITER)
    program = subprocess.Popen(
        [sys.executable, str(script), json.dumps(vars(cfg))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    with program:
        program.stdin.write(audio)
        program.stdin.close()
        assert program.stdout.readline() == b"ready\n"
        while len(list(folder.glob("*.wav")) if folder.is_dir() else []) < 3:
            assert program.poll() is None
            time.sleep(0.001)
        time.sleep(delay)
        program.send_signal(signal.SIGKILL)
    clones.recover()
    names = {path.name for path in folder.iterdir()} - {".clones.lock"}
    voices = [voice.id for voice in VoiceStore(cfg).list()]
    assert len(voices) >= 2
    assert names == {f"{v}.wav" for v in voices} | {f"{v}.clone.json" for v in voices}
    for voice in voices:
        assert (folder / f"{voice}.wav").read_bytes() == audio
        assert clones.by_id(voice).details.description == voice.removeprefix("w__")


def test_recovery_removes_leftovers_and_nothing_else(clones, clip, folder):
    clones.recover()
    assert not folder.exists()
    make(clones, clip())
    (folder / ".clone-part-abc").write_bytes(b"half")
    (folder / "w__gone.clone.json").write_text("{}")
    (folder / "notes.json").write_text("{}")
    clones.recover()
    kept = {path.name for path in folder.iterdir()} - {".clones.lock"}
    assert kept == {"w__Anna.wav", "w__Anna.clone.json", "notes.json"}
