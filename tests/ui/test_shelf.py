import copy
import io
import threading
import time

import httpx
import numpy as np
import pytest
import soundfile
from fastapi import FastAPI
from fastapi.testclient import TestClient

from echo.audio.encode import pcm16
from echo.ui.cards import DOWNLOADS
from echo.ui.routes import FOLDER, clip_router
from echo.ui.session import Session
from echo.ui.shelf import Shelf

RATE = 44_100
SECOND = np.linspace(-0.5, 0.5, RATE, dtype=np.float32)


@pytest.fixture
def shelf():
    return Shelf(max_bytes=3 * SECOND.nbytes)


@pytest.fixture
def client(shelf):
    app = FastAPI()
    app.include_router(clip_router(shelf))
    return TestClient(app)


def address(clip, fmt):
    return f"/{FOLDER}/{clip.token}.{fmt}"


def test_a_clip_that_grows_is_sent_as_it_grows(shelf, client):
    clip = shelf.open("x", RATE)

    def grow():
        for part in np.split(SECOND, 10):
            clip.add(part)
            time.sleep(0.01)
        clip.finish()

    threading.Thread(target=grow).start()
    data = client.get(address(clip, "pcm"))
    assert data.headers["cache-control"] == "no-store"
    assert data.content == pcm16(SECOND)


def test_whoever_still_reads_misses_nothing_when_others_look_at_the_whole(shelf):
    clip = shelf.put("x", SECOND, RATE)
    clip.add(SECOND)
    assert len(clip.audio()) == 2 * RATE
    assert len(clip.parts_from(1)) == 1


@pytest.mark.parametrize("fmt", DOWNLOADS)
def test_a_finished_clip_comes_in_any_format(shelf, client, fmt):
    clip = shelf.put("Anna: 1", SECOND, RATE)
    reply = client.get(address(clip, fmt))
    assert reply.status_code == 200
    assert reply.headers["content-disposition"] == f'inline; filename="Anna-1.{fmt}"'
    if fmt in ("wav", "flac"):
        samples, rate = soundfile.read(io.BytesIO(reply.content), dtype="float32")
        assert rate == RATE
        np.testing.assert_allclose(samples, SECOND, atol=1e-4)


def test_players_seek_by_ranges(shelf, client):
    url = address(shelf.put("x", SECOND, RATE), "wav")
    whole = client.get(url).content
    part = client.get(url, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, whole[100:200])
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    assert client.get(url, headers={"Range": "bytes=44-"}).content == whole[44:]
    assert client.get(url, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416


@pytest.mark.parametrize("file", ["nobody.wav", "nobody", "nobody.exe"])
def test_what_is_not_there_is_told_in_a_sentence(client, file):
    reply = client.get(f"/{FOLDER}/{file}")
    assert reply.status_code == httpx.codes.NOT_FOUND
    assert reply.text == "This audio is no longer kept; make it again."


def test_the_oldest_finished_clips_make_room(shelf):
    growing = shelf.open("x", RATE)
    growing.add(SECOND)
    old, new = shelf.put("x", SECOND, RATE), shelf.put("x", SECOND, RATE)
    shelf.put("x", SECOND, RATE)
    shelf.open("x", RATE)
    assert shelf.get(growing.token) is growing
    assert shelf.get(old.token) is None
    assert shelf.get(new.token) is new


def test_a_visitor_who_leaves_takes_their_audio_along(shelf):
    mine, yours = Session(shelf), Session(shelf)
    for session in (mine, yours):
        session.listen_to(shelf.put("voice", SECOND[:10], RATE))
        session.compared.append(shelf.put("variant", SECOND[:10], RATE))
    mine.close()
    assert len(shelf) == 2
    assert shelf.get(yours.compared[0].token) is not None


def test_each_visitor_gets_a_session_of_their_own(shelf):
    template = Session(shelf)
    template.votes.append(None)
    one = copy.deepcopy(template)
    assert one.votes == []
    assert one.shelf is shelf
