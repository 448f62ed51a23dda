from __future__ import annotations

import os
import threading
import uuid
from contextlib import contextmanager

import pytest

from echo.errors import ConfigError, StorageError
from echo.voices.shelf import FolderShelf, ObjectShelf, open_shelf


@pytest.fixture(params=["folder", "file", "memory"])
def shelf(request, tmp_path):
    urls = {
        "folder": str(tmp_path / "shared"),
        "file": f"file://{tmp_path / 'shared'}",
        "memory": f"memory://{uuid.uuid4().hex}/shared",
    }
    return open_shelf(urls[request.param])


def test_what_is_created_is_listed_and_read(shelf):
    assert shelf.list() == {}
    shelf.create("w__Zoë 2.wav", b"audio")
    assert list(shelf.list()) == ["w__Zoë 2.wav"]
    assert shelf.list()["w__Zoë 2.wav"].size == 5
    assert shelf.read("w__Zoë 2.wav") == b"audio"


def test_what_is_there_is_not_created_again_but_can_be_replaced(shelf):
    shelf.create("a", b"first")
    version = shelf.list()["a"].version
    with pytest.raises(FileExistsError):
        shelf.create("a", b"second")
    assert shelf.read("a") == b"first"
    assert shelf.list()["a"].version == version
    shelf.put("a", b"third")
    assert shelf.read("a") == b"third"
    assert shelf.list()["a"].version != version


def test_what_is_removed_is_gone_and_removing_it_again_is_no_error(shelf):
    shelf.create("a", b"first")
    shelf.remove("a")
    shelf.remove("a")
    assert shelf.list() == {}
    with pytest.raises(FileNotFoundError):
        shelf.read("a")


def test_of_many_who_create_one_name_one_wins(shelf):
    won: list[int] = []
    start = threading.Barrier(8)

    def create(number: int) -> None:
        start.wait()
        try:
            shelf.create("a", str(number).encode())
            won.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=create, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert shelf.read("a") == str(won[0]).encode()


def test_a_folder_shows_neither_half_written_files_nor_folders(tmp_path):
    shelf = FolderShelf(tmp_path)
    shelf.create("a", b"whole")
    (tmp_path / ".clone-part-x").write_bytes(b"half")
    (tmp_path / "folder").mkdir()
    assert list(shelf.list()) == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".clone-part-x", "a", "folder"]


def test_a_file_that_vanishes_during_a_look_hides_no_other(tmp_path, monkeypatch):
    class Vanishes:
        def __init__(self, entry):
            self.name, self._entry = entry.name, entry

        def stat(self):
            (tmp_path / "b").unlink(missing_ok=True)
            return self._entry.stat()

    @contextmanager
    def scandir(folder):
        with listing(folder) as entries:
            yield map(Vanishes, sorted(entries, key=lambda entry: entry.name))

    listing = os.scandir
    monkeypatch.setattr("echo.voices.shelf.os.scandir", scandir)
    for name in "abc":
        (tmp_path / name).write_bytes(b"whole")
    assert list(FolderShelf(tmp_path).list()) == ["a", "c"]


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="shared voices"):
        FolderShelf(tmp_path / "file").create("a", b"")


class Offline:
    """A file system whose driver has errors of its own."""

    def __getattr__(self, name):
        def fail(*args, **kwargs):
            raise LookupError("no route to host")

        return fail


def test_what_a_driver_raises_is_told_as_ours():
    shelf = ObjectShelf(Offline(), "bucket/voices")
    calls = [shelf.list, lambda: shelf.read("a"), lambda: shelf.put("a", b"")]
    for call in [*calls, lambda: shelf.create("a", b""), lambda: shelf.remove("a")]:
        with pytest.raises(StorageError, match=r"bucket/voices.*no route to host"):
            call()


def test_a_url_without_a_driver_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"voices\.shared"):
        open_shelf("nonsense://x/y")


def test_where_there_are_no_hard_links_files_are_whole_all_the_same(tmp_path, monkeypatch):
    def refuse(*args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    shelf = FolderShelf(tmp_path)
    shelf.create("a", b"first")
    with pytest.raises(FileExistsError):
        shelf.create("a", b"second")
    assert shelf.read("a") == b"first"
