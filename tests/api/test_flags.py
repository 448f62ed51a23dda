"""Environment flags as clients notice them; tests/config has those that only name a setting."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

TEXT = "Hello there."
LONG = " ".join(f"This is sentence number {number} of a rather long text." for number in range(20))


@pytest.fixture
def speak_with(run):
    """The stream of a request to a server with ``flags``, after its reply; and the reply."""

    def speak(flags: dict[str, str], *, without: tuple[str, ...] = (), **body: object):
        with run(flags=flags, without=without) as running:
            reply = running.speak(**{"input": TEXT, "stream": True, "seed": 1, **body})
            assert reply.status_code == 200, reply.text
            return running.engine.streams[-1], reply

    return speak


def test_folder_support(run):
    with run(flags={"ECHO_FOLDER_SUPPORT": "0"}) as running:
        ids = [voice["id"] for voice in running.client.get("/v1/voices").json()["data"]]
        assert ids == ["anna", "letter"]
        assert running.speak(input=TEXT, voice="pair").status_code == 400


def chunks(speak_with, **flags: str) -> int:
    stream, _ = speak_with(flags, input=LONG, block_sizes=[1], num_steps=1)
    return len(stream.info.text.chunks)


def test_chunking_and_its_estimates(speak_with):
    usual = chunks(speak_with)
    assert usual > 2
    assert chunks(speak_with, ECHO_CHUNK_CHARS_PER_SECOND="7") > usual
    assert chunks(speak_with, ECHO_CHUNK_WORDS_PER_SECOND="1") > usual
    off = chunks(speak_with, ECHO_CHUNKING="0")
    assert off < usual


@pytest.mark.parametrize(("flag", "spoken"), [("1", "Hello."), ("0", "Hello!")])
def test_normalize_exclamation(speak_with, flag, spoken):
    stream, _ = speak_with({"ECHO_NORMALIZE_EXCLAMATION": flag}, input="Hello!")
    assert stream.info.text.normalized.endswith(spoken)


def test_debug_logs_keep_the_last_generation(speak_with, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    speak_with({})
    assert not Path("api_generation.wav").exists()
    _, reply = speak_with({"ECHO_DEBUG_LOGS": "yes"})
    assert Path("api_generation.wav").read_bytes()[44:] == reply.content


def test_steps_of_a_reply_that_is_not_streamed(speak_with):
    flags = {"ECHO_NUM_STEPS_NONSTREAM": "3"}
    steps = ("sampler.nonstream_num_steps",)
    for streamed, wanted in ((False, [3]), (True, [2, 2])):
        stream, _ = speak_with(flags, without=steps, stream=streamed)
        assert [block.steps for block in stream.stats.blocks] == wanted


@pytest.mark.parametrize(
    ("preset", "sizes", "steps"),
    [
        ("low", [32, 64, 272, 272], [8, 10, 15, 15]),
        ("Equal", [213, 213, 214], [15, 15, 15]),
        ("unheard of", [32, 128, 480], [8, 15, 20]),
    ],
)
def test_performance_preset(run, preset, sizes, steps):
    shape = ("preset.block_sizes", "preset.num_steps")
    with run(flags={"ECHO_PERFORMANCE_PRESET": preset}, without=shape) as running:
        with running.stream(input=TEXT, stream=True) as reply:
            next(reply.iter_raw())
        blocks = running.engine.streams[-1].info.settings.blocks
    assert [block.size for block in blocks] == sizes
    assert [block.num_steps for block in blocks] == steps


def test_reroll_of_blocks_without_speech(speak_with):
    """The toy's noise is silence to the detector of speech: every block is made again."""
    flags = {
        "ECHO_VAD_REROLL_ENABLED": "on",
        "ECHO_VAD_SILENCE_THRESHOLD_MS": "100",
        "ECHO_VAD_MAX_REROLLS": "2",
    }
    for changed, attempts in (
        ({}, 3),
        ({"ECHO_VAD_MAX_REROLLS": "1"}, 2),
        ({"ECHO_VAD_SILENCE_THRESHOLD_MS": "5000"}, 1),
        ({"ECHO_VAD_REROLL_ENABLED": "off"}, 1),
    ):
        stream, _ = speak_with({**flags, **changed})
        assert {block.attempts for block in stream.stats.blocks} == {attempts}


@pytest.mark.parametrize("place", [lambda given: {"extra_body": given}, lambda given: given])
def test_a_request_asks_for_the_reroll_itself(speak_with, place):
    wanted = {"vad_enabled": True, "vad_silence_threshold_ms": 100, "vad_max_rerolls": 1}
    stream, _ = speak_with({}, **place(wanted))
    assert {block.attempts for block in stream.stats.blocks} == {2}
    assert {block.attempts for block in speak_with({})[0].stats.blocks} == {1}


def test_the_reference_is_cut_to_its_longest(speak_with):
    _, whole = speak_with({})
    _, cut = speak_with({"ECHO_MAX_SPEAKER_LATENT_LENGTH": "8"})
    assert whole.content != cut.content


def test_number_formats_of_model_and_codec(run):
    with run(flags={"ECHO_MODEL_DTYPE": "bf16", "ECHO_FISH_DTYPE": "fp32"}) as running:
        parts = running.engine.components
        assert (parts.model.dtype, parts.codec.dtype) == (torch.bfloat16, torch.float32)
        assert running.speak(input=TEXT).status_code == 200


def test_warm_up_speaks_the_text_in_the_voice(run):
    flags = {"ECHO_WARMUP_TEXT": "Good morning.", "ECHO_WARMUP_VOICE": "pair"}
    with run(flags=flags) as running:
        running.engine.warm_up()
        info = running.engine.streams[-1].info
    assert (info.text.normalized, info.voice) == ("[S1] Good morning.", "pair")


def test_inworld_endpoints_can_be_turned_off(run):
    for flag, found in (("1", True), ("0", False)):
        with run(flags={"ECHO_INWORLD_COMPAT": flag}) as running:
            assert (running.client.get("/tts/v1/voices").status_code == 200) is found


def test_keys(run):
    with run(flags={"ECHO_API_KEYS": "secret"}) as running:
        assert running.speak(input=TEXT).status_code == 401
