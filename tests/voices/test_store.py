from __future__ import annotations

import os
import time
import unicodedata

import pytest

from echo.errors import AudioDecodeError, LimitExceededError, VoiceNotFoundError
from echo.voices.store import FileDigests, VoiceStore


@pytest.fixture
def store(make_cfg):
    return VoiceStore(make_cfg())


def ids(store):
    return [voice.id for voice in store.list()]


def test_files_and_folders_of_all_roots_are_listed_by_name(store, roots):
    first, second = roots
    for path in (first / "zoe.wav", second / "Adam.mp3", first / "ben.M4A", second / "eve.opus"):
        path.write_bytes(b"x")
    (first / "choir").mkdir()
    (first / "choir" / "one.flac").write_bytes(b"x")
    listed = [(v.id, v.name, v.source, v.type) for v in store.list()]
    assert listed == [
        ("Adam", "Adam", "extra_prompt_audio", "file"),
        ("ben", "ben", "audio_prompts", "file"),
        ("choir", "choir", "audio_prompts", "folder"),
        ("eve", "eve", "extra_prompt_audio", "file"),
        ("zoe", "zoe", "audio_prompts", "file"),
    ]
    assert store.list()[2].path == first / "choir"


def test_what_is_no_voice_is_not_listed(store, roots):
    first, _ = roots
    for name in ("notes.txt", ".hidden.wav", ".wav", "README", "x" * 197 + ".wav"):
        (first / name).write_bytes(b"x")
    (first / "empty").mkdir()
    (first / "texts").mkdir()
    (first / "texts" / "a.txt").write_bytes(b"x")
    (first / "folder.wav").mkdir()
    os.mkfifo(first / "pipe.wav")
    assert ids(store) == []


def test_roots_that_do_not_exist_are_skipped(make_cfg, roots, tmp_path):
    (roots[1] / "amy.wav").write_bytes(b"x")
    (tmp_path / "file").write_bytes(b"x")
    missing = (str(tmp_path / "nowhere"), str(tmp_path / "file"), str(roots[1]))
    assert ids(VoiceStore(make_cfg(roots=missing))) == ["amy"]
    assert VoiceStore(make_cfg(roots=())).list() == ()


def test_folders_can_be_turned_off(make_cfg, roots):
    (roots[0] / "choir").mkdir()
    (roots[0] / "choir" / "one.wav").write_bytes(b"x")
    assert ids(VoiceStore(make_cfg(folder_support=True))) == ["choir"]
    without = VoiceStore(make_cfg(folder_support=False))
    assert without.list() == ()
    with pytest.raises(VoiceNotFoundError):
        without.find("choir")


def test_changes_are_seen_at_once(store, roots):
    assert ids(store) == []
    (roots[0] / "amy.wav").write_bytes(b"x")
    assert ids(store) == ["amy"]
    (roots[0] / "amy.wav").unlink()
    assert ids(store) == []


def test_the_first_root_and_the_first_extension_win(store, roots):
    first, second = roots
    for path in (first / "amy.mp3", first / "amy.flac", second / "amy.wav"):
        path.write_bytes(b"x")
    assert ids(store) == ["amy"]
    assert store.list()[0].path == store.find("amy").path == first / "amy.mp3"


def test_an_extension_chooses_among_files_of_one_name(store, roots):
    first, second = roots
    for path in (first / "amy.mp3", first / "amy.flac", second / "amy.wav"):
        path.write_bytes(b"x")
    for name, path in (
        ("amy.mp3", first / "amy.mp3"),
        ("amy.flac", first / "amy.flac"),
        ("amy.wav", second / "amy.wav"),
        ("AMY.WAV", second / "amy.wav"),
    ):
        assert store.find(name).path == path


def test_an_exact_name_goes_before_one_without_case_and_spaces(store, roots):
    for name in ("Old Man.wav", "oldman.mp3", "OldMan.flac"):
        (roots[0] / name).write_bytes(b"x")
    assert store.find("Old Man").path.name == "Old Man.wav"
    assert store.find("oldman").path.name == "oldman.mp3"
    assert store.find("OldMan").path.name == "OldMan.flac"
    (roots[0] / "oldman.mp3").unlink()
    (roots[0] / "OldMan.flac").unlink()
    for name in ("oldman", "OLD MAN", " old  man ", "oldman.WAV"):
        assert store.find(name).path.name == "Old Man.wav"


def test_accents_are_found_however_the_file_system_spells_them(store, roots):
    (roots[0] / (unicodedata.normalize("NFD", "Zoë") + ".wav")).write_bytes(b"x")
    assert store.get(unicodedata.normalize("NFC", "Zoë")) is not None


def test_an_unknown_voice_lists_some_that_exist(store, roots):
    with pytest.raises(VoiceNotFoundError, match="there are none"):
        store.find("amy")
    for number in range(12):
        (roots[0] / f"v{number:02}.wav").write_bytes(b"x")
    with pytest.raises(VoiceNotFoundError, match="no voice 'amy'") as caught:
        store.find("amy")
    assert caught.value.param == "voice"
    assert "v09 and 2 more" in caught.value.message
    assert "v10" not in caught.value.message


@pytest.mark.parametrize(
    "name",
    [
        *("..", ".", "", "../secret", "../secret.wav", "..\\secret", "audio_prompts/amy"),
        *(
            "./amy",
            "choir/one",
            "choir/one.wav",
            "amy\0",
            "amy.wav\0.txt",
            "~/amy",
            "%2e%2e/secret",
        ),
        *("/etc/passwd", "amy/../amy", "a" * 201, "amy\n", "*", "am?"),
    ],
)
def test_no_name_leads_out_of_the_roots(name, store, roots):
    (roots[0].parent / "secret.wav").write_bytes(b"x")
    (roots[0] / "amy.wav").write_bytes(b"x")
    (roots[0] / "choir").mkdir()
    (roots[0] / "choir" / "one.wav").write_bytes(b"x")
    absolute = str(roots[0] / "amy.wav")
    for tried in (name, absolute):
        if "".join(tried.split()) == "amy":  # white space is not told apart
            assert store.find(tried).id == "amy"
            continue
        with pytest.raises(VoiceNotFoundError) as caught:
            store.find(tried)
        assert "\n" not in caught.value.message
        assert "\0" not in caught.value.message
        assert len(caught.value.message) < 400


def test_links_out_of_the_roots_are_neither_listed_nor_opened(store, roots, tmp_path):
    first, second = roots
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.wav").write_bytes(b"x")
    (second / "amy.wav").write_bytes(b"x")
    (first / "file.wav").symlink_to(outside / "secret.wav")
    (first / "folder").symlink_to(outside)
    (first / "inner").mkdir()
    (first / "inner" / "clip.wav").symlink_to(outside / "secret.wav")
    (first / "loop.wav").symlink_to(first / "loop.wav")
    (first / "dangling.wav").symlink_to(first / "nothing.wav")
    (first / "alias.wav").symlink_to(second / "amy.wav")
    assert ids(store) == ["alias", "amy"]
    for name in ("file", "folder", "inner", "loop", "dangling"):
        with pytest.raises(VoiceNotFoundError):
            store.find(name)
    assert store.clips(store.find("alias"))[0].path == (second / "amy.wav").resolve()


def test_a_file_that_became_a_link_outwards_is_not_opened(store, roots, tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"x")
    (roots[0] / "amy.wav").write_bytes(b"x")
    voice = store.find("amy")
    (roots[0] / "amy.wav").unlink()
    with pytest.raises(VoiceNotFoundError):
        store.clips(voice)
    (roots[0] / "amy.wav").symlink_to(tmp_path / "secret.wav")
    with pytest.raises(VoiceNotFoundError):
        store.clips(voice)


def test_a_root_may_itself_be_a_link(make_cfg, roots, tmp_path):
    (roots[0] / "amy.wav").write_bytes(b"x")
    (tmp_path / "voices").symlink_to(roots[0])
    store = VoiceStore(make_cfg(roots=(str(tmp_path / "voices"),)))
    assert store.clips(store.find("amy"))[0].path.is_file()


def test_a_folders_clips_come_in_name_order(store, roots):
    (roots[0] / "choir").mkdir()
    for name in ("b.wav", "a.mp3", "c.ogg", ".d.wav", "notes.txt"):
        (roots[0] / "choir" / name).write_bytes(name.encode())
    clips = store.clips(store.find("choir"))
    assert [clip.path.name for clip in clips] == ["a.mp3", "b.wav", "c.ogg"]


def test_a_changed_file_has_another_hash(store, roots):
    path = roots[0] / "amy.wav"
    path.write_bytes(b"one")
    before = store.clips(store.find("amy"))
    assert store.clips(store.find("amy")) == before
    path.write_bytes(b"two")  # as long as before, and within the same tick of the clock
    assert store.clips(store.find("amy")) != before


def test_an_old_file_is_hashed_once_until_it_changes(tmp_path):
    path = tmp_path / "amy.wav"
    path.write_bytes(b"one")
    status = path.stat()
    reads = []
    digests = FileDigests(
        100,
        digest=lambda path: reads.append(path) or f"digest {len(reads)}",
        now_ns=lambda: time.time_ns() + 10_000_000_000,
    )
    assert [digests.of(path) for _ in range(3)] == ["digest 1"] * 3
    time.sleep(0.02)  # the clock of file systems ticks in up to 10 ms
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as a careful copy would
    assert digests.of(path) == "digest 2"


def test_a_file_just_written_is_hashed_every_time(tmp_path):
    path = tmp_path / "amy.wav"
    path.write_bytes(b"one")
    reads = []
    digests = FileDigests(100, digest=lambda path: reads.append(path) or "digest")
    for _ in range(3):
        digests.of(path)
    assert len(reads) == 3


def test_a_file_over_the_limit_is_refused_unread(make_cfg, roots):
    (roots[0] / "amy.wav").write_bytes(bytes(101))
    store = VoiceStore(make_cfg(max_file_bytes=100))
    with pytest.raises(LimitExceededError, match=r"amy\.wav has 101 bytes; at most 100"):
        store.clips(store.find("amy"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_entries_do_not_break_the_listing(store, roots):
    (roots[0] / "amy.wav").write_bytes(b"x")
    (roots[0] / "shut").mkdir(mode=0)
    (roots[0] / "locked.wav").write_bytes(b"x")
    (roots[0] / "locked.wav").chmod(0)
    assert ids(store) == ["amy", "locked"]
    with pytest.raises(AudioDecodeError, match="can't be read"):
        store.clips(store.find("locked"))


def test_a_thousand_voices_are_listed_in_50_ms(store, roots):
    for number in range(800):
        (roots[0] / f"voice {number}.wav").touch()
    for number in range(200):
        (roots[1] / f"folder {number}").mkdir()
        (roots[1] / f"folder {number}" / "clip.wav").touch()
    assert len(store.list()) == 1000
    best = min(_seconds(store.list) for _ in range(7))
    assert best < 0.05
    assert min(_seconds(lambda: store.get("VOICE799")) for _ in range(7)) < 0.05


def _seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
