from __future__ import annotations

import threading
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from .conftest import audio_of

FLAT = "/voices/v1/voices"


def post(running: Any, path: str, body: dict[str, Any]) -> httpx.Response:
    return running.client.post(path, json=body)


def clone(running: Any, body: dict[str, Any], path: str = f"{FLAT}:clone") -> dict[str, Any]:
    reply = post(running, path, body)
    assert reply.status_code == 200, reply.text
    return reply.json()["voice"]


def test_the_list_of_voices(running):
    reply = running.client.get("/tts/v1/voices", params={"filter": "language=en"}).json()
    assert reply["voices"][0] == {
        "languages": ["en"],
        "voiceId": "anna",
        "displayName": "anna",
        "description": "Built-in voice",
        "tags": ["built-in"],
    }
    assert [voice["voiceId"] for voice in reply["voices"]] == ["anna", "letter", "pair"]
    assert running.client.get("/tts/v1/voices").json() == reply
    other = running.client.get("/tts/v1/voices", params={"filter": "language=de"}).json()
    assert other == {"voices": []}


def test_a_built_in_voice_in_both_styles(running):
    told = {
        "name": "workspaces/w/voices/anna",
        "voiceId": "anna",
        "langCode": "EN_US",
        "displayName": "anna",
        "description": "Built-in voice: anna",
        "tags": ["built-in"],
        "source": "SYSTEM",
    }
    assert running.client.get("/voices/v1/workspaces/w/voices/anna").json() == told
    flat = {**told, "name": "workspaces/default/voices/anna"}
    assert running.client.get(f"{FLAT}/anna").json() == flat
    assert flat in running.client.get(FLAT).json()["voices"]


@pytest.mark.parametrize("voice", ["nobody", "..%2Fsecret", "%2e%2e", "a" * 300, "%00"])
@pytest.mark.parametrize("path", [FLAT, "/voices/v1/workspaces/w/voices"])
def test_an_unknown_voice_is_a_flat_404(running, path, voice):
    reply = running.client.get(f"{path}/{voice}")
    assert reply.status_code == 404
    assert reply.json()["code"] == 5
    assert set(reply.json()) == {"code", "message", "details"}


def test_cloning_off_is_a_clear_flat_error(running, clone_body):
    for reply in (
        post(running, f"{FLAT}:clone", clone_body()),
        post(running, "/voices/v1/workspaces/w/voices:clone", clone_body()),
        running.client.delete(f"{FLAT}/anna"),
        running.client.patch(f"{FLAT}/anna", json={}),
    ):
        assert reply.status_code == 403
        assert "ECHO_INWORLD_CLONE_ENABLED" in reply.json()["message"]
        assert set(reply.json()) == {"code", "message", "details"}


def test_a_clone_from_upload_to_deletion(cloning, clone_body, clip):
    body = clone_body("My Voice-2", langCode="EN_GB", description="low", tags=["warm"])
    body["voiceSamples"][0]["transcription"] = "Hello."
    with cloning() as (running, folder):
        reply = post(running, "/voices/v1/workspaces/w/voices:clone", body)
        assert reply.status_code == 200
        voice = reply.json()["voice"]
        assert voice == {
            "name": "workspaces/w/voices/My Voice-2",
            "voiceId": "w__My Voice-2",
            "langCode": "EN_GB",
            "displayName": "My Voice-2",
            "description": "low",
            "tags": ["warm"],
            "source": "IVC",
        }
        assert reply.json()["audioSamplesValidated"] == [
            {"langCode": "EN_GB", "warnings": [], "errors": [], "transcription": "Hello."}
        ]
        assert (folder / "w__My Voice-2.wav").read_bytes() == clip

        flat = f"{FLAT}/{quote('w__My Voice-2')}"
        assert running.client.get(flat).json() == voice
        in_workspace = "/voices/v1/workspaces/w/voices/My%20Voice-2"
        assert running.client.get(in_workspace).json() == voice
        assert "w__My Voice-2" in running.client.get("/v1/voices").text
        listed = running.client.get("/tts/v1/voices").json()["voices"][-1]
        assert listed["voiceId"] == "w__My Voice-2"
        assert listed["tags"][0] == "cloned"

        spoken = {"text": "Hi.", "voiceId": "w__My Voice-2"}
        assert audio_of(post(running, "/tts/v1/voice", spoken).json())
        assert running.speak(input="Hi.", voice="w__My Voice-2").status_code == 200
        assert running.engine.stats()["voice_cache"]["entries"] == 1

        assert running.client.delete(in_workspace).json() == {}
        assert running.engine.stats()["voice_cache"]["entries"] == 0
        assert running.client.get(flat).status_code == 404
        assert post(running, "/tts/v1/voice", spoken).status_code == 404
        assert running.client.delete(flat).status_code == 404


def test_the_default_workspace_is_configurable_and_may_be_left_out(cloning, clone_body):
    with cloning("inworld.default_workspace=mine") as (running, folder):
        assert clone(running, clone_body())["voiceId"] == "mine__Anna"
        assert (folder / "mine__Anna.wav").is_file()
        for voice in ("mine__Anna", "Anna"):
            found = running.client.get(f"{FLAT}/{voice}").json()
            assert found["name"] == "workspaces/mine/voices/Anna"
        body = {"text": "Hi.", "voiceId": "Zed"}
        clone(running, clone_body("Zed"))
        assert post(running, "/tts/v1/voice", body).status_code == 200


def test_a_clone_is_found_before_a_built_in_voice_of_that_name(cloning, clone_body):
    with cloning() as (running, _):
        clone(running, clone_body("anna"), "/voices/v1/workspaces/w/voices:clone")
        get = running.client.get
        assert get("/voices/v1/workspaces/w/voices/anna").json()["source"] == "IVC"
        assert get("/voices/v1/workspaces/other/voices/anna").json()["source"] == "SYSTEM"
        mine = [v["voiceId"] for v in get("/voices/v1/workspaces/w/voices").json()["voices"]]
        others = [v["voiceId"] for v in get("/voices/v1/workspaces/o/voices").json()["voices"]]
        assert set(mine) - set(others) == {"w__anna"}


def test_details_can_be_changed(cloning, clone_body):
    with cloning() as (running, _):
        clone(running, clone_body(tags=["a"]))
        path = f"{FLAT}/default__Anna"
        change = {"display_name": "Anna the Great", "description": "new"}
        told = running.client.patch(path, json=change).json()
        assert told["displayName"] == "Anna the Great"
        assert told["description"] == "new"
        assert told["tags"] == ["a"]
        assert told["voiceId"] == "default__Anna"
        assert running.client.get(path).json() == told
        for bad in ({"displayName": "a/b"}, {"tags": "x"}, {"description": "x" * 2001}):
            assert running.client.patch(path, json=bad).status_code == 400
        assert running.client.get(path).json() == told
        assert running.client.patch(f"{FLAT}/anna", json=change).status_code == 400


def test_only_clones_can_be_deleted(cloning, toy):
    before = sorted((toy / "audio_prompts").rglob("*"))
    with cloning() as (running, _):
        for voice in ("anna", "pair", "..%2Fsecret", "w__anna", "nobody", "%2Fetc%2Fpasswd"):
            reply = running.client.delete(f"{FLAT}/{voice}")
            assert reply.status_code in (400, 404)
            assert reply.json()["code"] in (3, 5)
    assert sorted((toy / "audio_prompts").rglob("*")) == before
    assert (toy / "secret.wav").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"displayName": "a/b"},
        {"displayName": "../x"},
        {"displayName": "x" * 101},
        {"displayName": ""},
        {"displayName": None},
        {"voiceSamples": []},
        {"voiceSamples": [{}]},
        {"voiceSamples": [{"audioData": "!!"}]},
        {"voiceSamples": [{"audioData": ""}]},
        {"voiceSamples": [{"audioData": "aGVsbG8="}]},
        {"voiceSamples": [{"audioData": "ZkxhQwAAACI="}]},  # FLAC
        {"voiceSamples": [{"audioData": "UklGRgAAAABXQVZF"}]},  # a WAV's beginning
        {"tags": [1]},
    ],
)
def test_an_impossible_clone_is_a_flat_400_and_leaves_nothing(cloning, clone_body, changes):
    with cloning() as (running, folder):
        reply = post(running, f"{FLAT}:clone", {**clone_body(), **changes})
        assert reply.status_code == 400
        assert reply.json()["code"] == 3
        assert not folder.exists()


def test_the_sample_size_is_limited(cloning, clone_body, clip):
    with cloning(f"inworld.max_sample_size={len(clip) - 1}") as (running, _):
        reply = post(running, f"{FLAT}:clone", clone_body())
        assert reply.status_code == 400
        assert str(len(clip) - 1) in reply.json()["message"]
    with cloning(f"inworld.max_sample_size={len(clip)}") as (running, _):
        clone(running, clone_body())


def test_an_upload_may_be_larger_than_other_bodies(cloning, clone_body, clip):
    limits = ("server.max_body_bytes=2000", f"inworld.max_sample_size={len(clip)}")
    with cloning(*limits) as (running, _):
        clone(running, clone_body())
        assert post(running, "/tts/v1/voice", clone_body()).status_code == 413
        long = clone_body("B", description="x" * 70_000)
        reply = post(running, f"{FLAT}:clone", long)
        assert reply.status_code == 413
        assert set(reply.json()) == {"code", "message", "details"}


def test_snake_case_clones_too(cloning, clone_body):
    sample = clone_body()["voiceSamples"][0]["audioData"]
    body = {"display_name": "Anna", "lang_code": "DE_DE", "voice_samples": [{"audio_data": sample}]}
    with cloning() as (running, _):
        assert clone(running, body)["langCode"] == "DE_DE"
        german = running.client.get("/tts/v1/voices", params={"filter": "language=de"}).json()
        assert [voice["voiceId"] for voice in german["voices"]] == ["default__Anna"]


def test_of_two_clones_of_one_name_at_once_one_wins(cloning, clone_body):
    with cloning() as (running, folder):
        replies = []

        def upload() -> None:
            with httpx.Client(base_url=running.server.url, timeout=60) as client:
                replies.append(client.post(f"{FLAT}:clone", json=clone_body()))

        threads = [threading.Thread(target=upload) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(reply.status_code for reply in replies) == [200, 409]
        loser = max(replies, key=lambda reply: reply.status_code)
        assert "already" in loser.json()["message"]
        assert len(list(folder.glob("*.wav"))) == 1


def test_a_start_cleans_up_after_a_killed_server(cloning, clone_body):
    with cloning() as (running, folder):
        clone(running, clone_body())
    (folder / ".clone-part-x").write_bytes(b"RIFF")
    with cloning() as (running, folder):
        assert not (folder / ".clone-part-x").exists()
        assert running.client.get(f"{FLAT}/default__Anna").status_code == 200
