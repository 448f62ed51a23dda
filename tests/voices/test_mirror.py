"""Several servers on one shelf: each has a folder of copies and a clone store over it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from echo.audio.decode import decode_audio
from echo.errors import StorageError, VoiceExistsError, VoiceNotFoundError
from echo.voices.clone_names import VoiceDetails
from echo.voices.clones import CloneStore
from echo.voices.mirror import CATCH_UP_GAP_S, CLAIM_S, VoiceMirror, mirrored
from echo.voices.shelf import Shelf, open_shelf
from echo.voices.store import VoiceStore, sha256_of


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


@dataclass
class Server:
    mirror: VoiceMirror
    voices: VoiceStore
    clones: CloneStore
    folder: Path
    clock: Clock
    forgotten: list[str] = field(default_factory=list)

    def clone(self, audio: bytes, name: str = "Anna", **details: object):
        return self.clones.create(
            "w", name, [audio], VoiceDetails(**details), max_bytes=1 << 20, param="sample"
        )

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.name[0] != ".")


class Watched:
    """A shelf that counts looks and can be cut off."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self.looks = 0
        self.reads: list[str] = []
        self.cut_off: set[str] = set()

    def list(self):
        self.looks += 1
        self._pass("list")
        return self._shelf.list()

    def read(self, name):
        self.reads.append(name)
        self._pass("read " + name)
        return self._shelf.read(name)

    def create(self, name, data):
        self._pass("create " + name)
        self._shelf.create(name, data)

    def put(self, name, data):
        self._shelf.put(name, data)

    def remove(self, name):
        self._pass("remove " + name)
        self._shelf.remove(name)

    def _pass(self, what):
        if what in self.cut_off:
            raise StorageError("the shared voices can't be reached")


@pytest.fixture(params=["folder", "memory"])
def shelf(request, tmp_path) -> Watched:
    place = tmp_path / "shared" if request.param == "folder" else f"memory://{uuid.uuid4().hex}"
    return Watched(open_shelf(str(place)))


@pytest.fixture
def serve(make_cfg, tmp_path, shelf) -> Callable[..., Server]:
    """A server of its own, or a second one on the ``folder`` of another."""

    def make(name: str, *, max_file_bytes: int = 10_000_000) -> Server:
        clock, forgotten = Clock(), []
        mirror = VoiceMirror(
            shelf,
            tmp_path / name,
            forgotten.append,
            max_file_bytes=max_file_bytes,
            now=clock,
        )
        cfg = make_cfg(clone_root=str(tmp_path / name))
        clones = CloneStore(cfg, forgotten.append, decode=decode_audio, shared=mirror)
        voices = VoiceStore(cfg, mirror.catch_up)
        return Server(mirror, voices, clones, tmp_path / name, clock, forgotten)

    return make


def test_a_voice_made_at_one_is_a_voice_at_the_other(serve, clip):
    here, there = serve("here"), serve("there")
    made = here.clone(clip(), description="calm", tags=("warm",))
    there.mirror.refresh()
    found = there.clones.get("w", "Anna")
    assert found == replace(made, path=there.folder / "w__Anna.wav")
    assert there.voices.find("w__Anna").path.read_bytes() == clip()


def test_a_name_nobody_knows_is_looked_for_at_once(serve, clip):
    here, there = serve("here"), serve("there")
    here.clone(clip())
    assert there.voices.get("w__Anna") is not None
    here.clone(clip(), name="B")
    there.clock.s += CATCH_UP_GAP_S
    assert there.clones.get("w", "B") is not None


def test_strangers_names_do_not_make_it_look_without_end(serve, shelf):
    server = serve("here")
    for number in range(100):
        assert server.voices.get(f"nobody {number}") is None
        assert server.clones.get("w", f"nobody {number}") is None
    assert shelf.looks == 1
    server.clock.s += CATCH_UP_GAP_S
    assert server.voices.get("nobody") is None
    assert shelf.looks == 2


def test_a_voice_deleted_at_one_is_gone_at_the_other_and_its_encoding_forgotten(serve, clip):
    here, there = serve("here"), serve("there")
    voice = here.clone(clip())
    there.mirror.refresh()
    digest = sha256_of(there.folder / "w__Anna.wav")
    here.clones.delete(voice)
    there.mirror.refresh()
    assert there.voices.get("w__Anna") is None
    assert there.names() == []
    assert there.forgotten == [digest]
    with pytest.raises(VoiceNotFoundError):
        there.clones.delete(voice)


def test_details_changed_at_one_are_changed_at_the_other(serve, clip):
    here, there = serve("here"), serve("there")
    voice = here.clone(clip(), description="old")
    there.mirror.refresh()
    here.clones.update(voice, VoiceDetails(description="new"))
    there.mirror.refresh()
    assert there.clones.get("w", "Anna").details.description == "new"
    assert there.forgotten == []


@pytest.mark.parametrize("other", [".wav", ".mp3"])
def test_a_name_taken_elsewhere_is_taken_even_before_the_copy_is_here(serve, clip, other):
    here, there = serve("here"), serve("there")
    here.clone(clip())
    with pytest.raises(VoiceExistsError):
        there.clone(clip(hertz=300, fmt=other[1:]))
    there.mirror.refresh()
    assert there.names() == ["w__Anna.clone.json", "w__Anna.wav"]
    assert (there.folder / "w__Anna.wav").read_bytes() == clip()


def test_a_voice_put_on_the_shelf_by_hand_is_one(serve, shelf, clip):
    shelf.put("w__Anna.wav", clip())
    shelf.put("notes.txt", b"not a voice")
    shelf.put("plain.wav", clip())
    server = serve("here")
    server.mirror.refresh()
    assert server.names() == ["w__Anna.wav"]
    with pytest.raises(VoiceExistsError):
        server.clone(clip())


def test_an_upload_that_fails_leaves_the_name_free(serve, shelf, clip):
    server = serve("here")
    shelf.cut_off = {"create w__Anna.wav"}
    with pytest.raises(StorageError):
        server.clone(clip())
    assert shelf.list() == {}
    assert server.names() == []
    shelf.cut_off = set()
    server.clone(clip())


def test_a_claim_without_audio_holds_for_a_while_and_no_longer(serve, shelf, clip):
    shelf.create("w__Anna.clone.json", b"{}")  # by a machine that died before the audio
    server = serve("here")
    server.mirror.refresh()
    assert server.voices.get("w__Anna") is None
    server.clock.s += CLAIM_S
    with pytest.raises(VoiceExistsError):
        server.clone(clip())
    server.clock.s += 1
    assert server.clone(clip(), description="mine").details.description == "mine"


def test_a_file_that_was_half_written_by_others_is_taken_again_when_it_is_whole(serve, shelf, clip):
    server = serve("here")
    shelf.put("w__Anna.wav", clip()[:1000])
    server.mirror.refresh()
    half = sha256_of(server.folder / "w__Anna.wav")
    shelf.put("w__Anna.wav", clip())
    server.mirror.refresh()
    assert (server.folder / "w__Anna.wav").read_bytes() == clip()
    assert server.forgotten == [half]


def test_what_is_here_already_is_not_fetched_again(serve, shelf, clip):
    here = serve("here")
    here.clone(clip())
    here.mirror.refresh()
    before = len(shelf.reads)
    here.mirror.refresh()
    serve("here").mirror.refresh()  # the same folder after a restart
    assert len(shelf.reads) == before


def test_two_processes_may_share_a_folder_of_copies(serve, shelf, clip):
    first, second, far = serve("here"), serve("here"), serve("far")
    far.clone(clip())
    first.mirror.refresh()
    reads = len(shelf.reads)
    second.mirror.refresh()
    assert len(shelf.reads) == reads
    assert second.voices.get("w__Anna") is not None


def test_a_copy_that_was_lost_is_fetched_again(serve, clip):
    server = serve("here")
    server.clone(clip())
    server.mirror.refresh()
    (server.folder / "w__Anna.wav").unlink()
    server.mirror.refresh()
    assert server.voices.get("w__Anna") is not None


def test_a_file_that_is_too_large_is_left_where_it_is(serve, shelf, clip):
    shelf.put("w__Anna.wav", clip())
    server = serve("here", max_file_bytes=1000)
    server.mirror.refresh()
    assert server.names() == []
    assert shelf.reads == []


def test_while_the_shelf_is_away_the_copies_serve_and_nothing_is_made(serve, shelf, clip):
    server = serve("here")
    voice = server.clone(clip())
    shelf.cut_off = {"list", "remove w__Anna.wav"}
    assert server.voices.get("w__Anna") is not None
    assert server.voices.get("nobody") is None
    with pytest.raises(StorageError):
        server.clone(clip(), name="B")
    with pytest.raises(StorageError):
        server.clones.delete(voice)
    assert server.names() == ["w__Anna.clone.json", "w__Anna.wav"]
    with pytest.raises(StorageError):
        server.mirror.start(1.0)


def test_a_shelf_that_is_away_is_not_asked_for_every_strangers_name(serve, shelf):
    server = serve("here")
    shelf.cut_off = {"list"}
    for number in range(100):
        assert server.voices.get(f"nobody {number}") is None
    assert shelf.looks == 1
    server.clock.s += CATCH_UP_GAP_S
    assert server.voices.get("nobody") is None
    assert shelf.looks == 2


def test_a_voice_that_cannot_be_read_keeps_no_other_away(serve, shelf, clip):
    shelf.put("w__Anna.wav", clip())
    shelf.put("w__Berta.wav", clip())
    shelf.cut_off = {"read w__Anna.wav"}
    server = serve("here")
    server.mirror.refresh()
    assert server.names() == ["w__Berta.wav"]
    shelf.cut_off = set()
    server.mirror.refresh()
    assert server.names() == ["w__Anna.wav", "w__Berta.wav"]


def test_a_mount_that_goes_away_takes_no_copies_with_it(make_cfg, serve, clip, tmp_path):
    server = serve("here")
    server.mirror = VoiceMirror(
        open_shelf(str(tmp_path / "mount")), server.folder, print, max_file_bytes=1 << 20
    )
    (tmp_path / "mount").mkdir()
    (tmp_path / "mount" / "w__Anna.wav").write_bytes(clip())
    server.mirror.refresh()
    (tmp_path / "mount").rename(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="mounted"):
        server.mirror.refresh()
    assert server.names() == ["w__Anna.wav"]


def test_details_of_a_voice_that_is_gone_are_not_put_back(serve, shelf, clip):
    here, there = serve("here"), serve("there")
    voice = here.clone(clip())
    there.mirror.refresh()
    there.clones.delete(voice)
    with pytest.raises(VoiceNotFoundError):
        here.clones.update(voice, VoiceDetails(description="new"))
    assert shelf.list() == {}


def test_a_name_in_decomposed_letters_is_fetched_under_its_usual_one(serve, shelf, clip):
    shelf.put("w__Zoe\u0308.wav", clip())
    server = serve("here")
    server.mirror.refresh()
    assert server.names() == ["w__Zo\u00eb.wav"]


def test_an_engines_settings_lead_to_the_copies_which_follow_by_themselves(
    make_cfg, tmp_path, clip
):
    cfg = make_cfg(
        shared=str(tmp_path / "shared"),
        shared_cache=str(tmp_path / "caches"),
        shared_poll_seconds=0.1,
    )
    local, mirror = mirrored(cfg, lambda key: None)
    try:
        assert Path(local.clone_root).parent == tmp_path / "caches"
        (tmp_path / "shared").mkdir()
        (tmp_path / "shared" / "w__Anna.wav").write_bytes(clip())
        end = time.monotonic() + 20
        while VoiceStore(local).get("w__Anna") is None:
            assert time.monotonic() < end
            time.sleep(0.01)
    finally:
        mirror.close()


def test_without_a_shelf_nothing_is_mirrored(make_cfg):
    cfg = make_cfg()
    assert mirrored(cfg, lambda key: None) == (cfg, None)
