from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from echo.audio.encode import encode_file

TEXT = "Hello there."


@pytest.fixture
def clip() -> bytes:
    noise = 0.3 * np.random.default_rng(1).standard_normal(44_100).astype(np.float32)
    return encode_file(noise, 44_100, "wav")


@pytest.fixture
def cloning(run, toy, tmp_path):
    """A server that takes voices, into an empty folder of its own."""
    roots = f"voices.roots=['{tmp_path / 'mine'}','{toy / 'audio_prompts'}']"
    folder = f"voices.clone_root='{tmp_path / 'mine'}'"
    with run(roots, folder, flags={"ECHO_INWORLD_CLONE_ENABLED": "1"}) as running:
        yield running


def upload(running, name: str | None, audio: bytes | None):
    data = {} if name is None else {"name": name}
    files = {"other": b""} if audio is None else {"audio_sample": ("me.wav", audio, "audio/wav")}
    return running.client.post("/v1/audio/voices", data=data, files=files)


def test_the_short_list_has_ids_and_names(running):
    voices = [{"id": name, "name": name} for name in ("anna", "letter", "pair")]
    assert running.client.get("/v1/audio/voices").json() == {"voices": voices}


def test_an_uploaded_voice_speaks_at_once_and_is_gone_when_deleted(cloning, clip):
    made = upload(cloning, "Me 2", clip).json()
    assert made["object"] == "audio.voice"
    assert (made["id"], made["name"]) == ("default__Me 2", "Me 2")
    ids = [voice["id"] for voice in cloning.client.get("/v1/audio/voices").json()["voices"]]
    assert made["id"] in ids
    assert cloning.speak(input=TEXT, voice=made["id"]).status_code == 200
    gone = cloning.client.delete("/v1/audio/voices/default__Me%202")
    assert gone.json() == {"object": "audio.voice.deleted", "id": made["id"], "deleted": True}
    assert cloning.speak(input=TEXT, voice=made["id"]).status_code == 400
    assert cloning.client.delete("/v1/audio/voices/default__Me%202").status_code == 404


def test_an_uploaded_voice_is_never_overwritten(cloning, clip):
    assert upload(cloning, "me", clip).status_code == 200
    again = upload(cloning, "me", clip)
    assert again.status_code == 409
    assert again.headers["x-should-retry"] == "false"
    assert again.json()["error"]["param"] == "name"


@pytest.mark.parametrize(
    ("name", "param"), [("../me", "name"), ("a/b", "name"), ("", "name"), ("x" * 101, "name")]
)
def test_an_impossible_name_is_refused(cloning, clip, name, param):
    reply = upload(cloning, name, clip)
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == param
    assert "displayName" not in reply.text


def test_what_is_missing_or_no_audio_is_named(cloning, clip):
    for reply, param in (
        (upload(cloning, None, clip), "name"),
        (upload(cloning, "me", None), "audio_sample"),
        (upload(cloning, "me", b""), "audio_sample"),
        (upload(cloning, "me", b"Dear Anna, " * 1000), "audio_sample"),
        (upload(cloning, "me", clip[:60]), "audio_sample"),
    ):
        assert reply.status_code == 400, reply.text
        assert reply.json()["error"]["param"] == param


def test_an_upload_over_the_limit_is_413(cloning):
    assert upload(cloning, "me", bytes(10 * 1024 * 1024 + 1)).status_code == 413
    assert upload(cloning, "me", bytes(12 * 1024 * 1024)).status_code == 413


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{}", 415),
        ("multipart/form-data", b"", 400),
        ("multipart/form-data; boundary=x", b"", 400),
        ("multipart/form-data; boundary=x", b"no form at all", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n\r\n--x--", 400),
        ("multipart/form-data; boundary=x", b"--x\r\n" * 5000, 400),
        ("multipart/form-data; boundary=" + "x" * 5000, b"--x", 400),
    ],
)
def test_a_broken_form_is_refused(cloning, kind, body, status):
    headers = {"content-type": kind}
    reply = cloning.client.post("/v1/audio/voices", content=body, headers=headers)
    assert reply.status_code == status, reply.text
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("voice", ["anna", "pair", "..%2Fsecret", "..%2f..%2fsecret.wav", "x__y"])
def test_only_uploaded_voices_can_be_deleted(cloning, toy: Path, voice):
    assert cloning.client.delete(f"/v1/audio/voices/{voice}").status_code == 404
    assert (toy / "audio_prompts" / "anna.wav").exists()
    assert (toy / "secret.wav").exists()


def test_where_cloning_is_off_both_say_how_to_turn_it_on(running, clip):
    for reply in (upload(running, "me", clip), running.client.delete("/v1/audio/voices/a__b")):
        assert reply.status_code == 403
        assert reply.json()["error"]["code"] == "cloning_disabled"
        assert "ECHO_INWORLD_CLONE_ENABLED" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "voice"),
    [("alloy", "anna"), ("Ballad", "pair"), ("alex", "anna"), ("DENNIS", "pair")],
)
def test_names_of_other_services_are_voices_at_hand(running, name, voice):
    assert running.speak(input=TEXT, voice=name).status_code == 200
    assert running.engine.streams[-1].info.voice == voice


def test_an_alias_can_be_set(run):
    with run("voices.aliases.alloy=pair", "+voices.aliases.bob=anna") as running:
        for name, voice in (("alloy", "pair"), ("Bob", "anna")):
            assert running.speak(input=TEXT, voice=name).status_code == 200
            assert running.engine.streams[-1].info.voice == voice
