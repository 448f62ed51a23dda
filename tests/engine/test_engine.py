"""The engine as its callers see it, over toy networks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from echo import inference
from echo.audio.encode import encode_file
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components
from echo.errors import BusyError, CancelledError, GenerationError, VoiceNotFoundError
from echo.spec import HOP

TEXT = "Hello there. This is a test."
MakeEngine = Callable[..., Engine]


def clip(seconds: float, pitch: float) -> np.ndarray[Any, Any]:
    t = np.arange(int(44_100 * seconds), dtype=np.float32) / 44_100
    return (0.4 * np.sin(2 * np.pi * pitch * t)).astype(np.float32)


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_the_same_seed_says_it_the_same_way_streamed_or_joined(make_engine: MakeEngine) -> None:
    engine = make_engine()
    request = SpeechRequest(TEXT, seed=7)
    chunks = list(engine.stream(request))
    assert [len(chunk) for chunk in chunks] == [8 * HOP, 12 * HOP, 20 * HOP]
    assert all(chunk.dtype == np.float32 and chunk.ndim == 1 for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate(chunks), engine.synthesize(request))
    assert not np.array_equal(
        engine.synthesize(request), engine.synthesize(SpeechRequest(TEXT, seed=8))
    )


def test_it_says_what_the_plain_path_says(
    make_engine: MakeEngine, toy_components: Components, voice_root: Path
) -> None:
    voice = clip(3.0, 220.0)
    (voice_root / "ann.wav").write_bytes(encode_file(voice, 44_100, "wav"))
    ours = make_engine().synthesize(SpeechRequest(TEXT, voice="ann", seed=7))
    c = toy_components
    audio = inference.load_audio(voice_root / "ann.wav")
    latent, mask = inference.get_speaker_latent_and_mask(c.codec, c.pca, audio)
    ids, text_mask = inference.get_text_input_ids_and_mask(["[S1] " + TEXT], 768)  # type: ignore[misc]
    latents = inference.sample_blockwise_euler_cfg_independent_guidances(
        c.model, latent, mask, ids, text_mask, 7, [8, 12, 20], 3
    )
    plain = inference.ae_decode(c.codec, c.pca, latents)[0, 0].numpy()
    end = inference.find_flattening_point(latents[0]) * HOP
    assert end == len(plain) == len(ours)
    unfaded = slice(0, len(plain) - 2205)
    np.testing.assert_allclose(ours[unfaded], plain[unfaded], rtol=1e-3, atol=1e-3)
    assert abs(ours[-1]) < 1e-6


def test_sound_arrives_while_the_rest_is_still_being_made(make_engine: MakeEngine) -> None:
    stream = make_engine("preset.num_steps=[1,60,60]").stream(SpeechRequest(TEXT, seed=1))
    next(stream)
    assert stream.stats.total_s is None
    assert sum(1 for _ in stream) == 2
    assert stream.stats.total_s is not None
    assert stream.stats.ttfb_s is not None
    assert stream.stats.ttfb_s < stream.stats.total_s


def test_many_threads_at_once_get_what_each_gets_alone(make_engine: MakeEngine) -> None:
    engine = make_engine()
    requests = [SpeechRequest(f"Text number {i} is here.", seed=i) for i in range(6)]
    alone = [engine.synthesize(request) for request in requests]
    together: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda i=i: together.update({i: engine.synthesize(requests[i])}))
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, audio in enumerate(alone):
        np.testing.assert_allclose(together[i], audio, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", ["close", "drop"])
def test_who_leaves_stops_the_sampler_within_a_step(make_engine: MakeEngine, how: str) -> None:
    engine = make_engine("preset.num_steps=[2,200,200]")
    stream = engine.stream(SpeechRequest(TEXT, seed=1))
    next(stream)
    stats = stream.stats
    if how == "close":
        stream.close()
        with pytest.raises(CancelledError):
            next(stream)
    else:
        del stream
        gc.collect()
    wait_until(lambda: engine.stats()["active"] == 0)
    assert len(stats.blocks) == 1  # the second block was never finished


def test_a_reader_that_stands_still_pauses_its_own_request_only(make_engine: MakeEngine) -> None:
    engine = make_engine("engine.buffer_seconds=0.1")
    slow = engine.stream(SpeechRequest(TEXT, seed=1))
    wait_until(lambda: len(slow.stats.blocks) == 1)
    time.sleep(0.1)
    assert len(slow.stats.blocks) == 1
    other = engine.synthesize(SpeechRequest(TEXT, seed=2))
    assert len(other) == 40 * HOP
    assert len(slow.stats.blocks) == 1
    assert len(slow.read()) == 40 * HOP


def test_a_full_queue_is_told_at_once(make_engine: MakeEngine) -> None:
    engine = make_engine("engine.max_active=1", "engine.max_queued=0", "engine.buffer_seconds=0.1")
    held = engine.stream(SpeechRequest(TEXT, seed=1))
    wait_until(lambda: engine.stats()["active"] == 1)
    with pytest.raises(BusyError) as caught:
        engine.stream(SpeechRequest(TEXT, seed=2))
    assert caught.value.retry_after_s > 0
    held.close()
    wait_until(lambda: engine.stats()["active"] == 0)
    assert len(engine.synthesize(SpeechRequest(TEXT, seed=2))) > 0


def test_a_newcomer_goes_before_those_who_have_sound_in_hand(make_engine: MakeEngine) -> None:
    engine = make_engine("preset.num_steps=[1,150,150]", "engine.max_load=null")
    first = engine.stream(SpeechRequest(TEXT, seed=1))
    next(first)
    second = engine.stream(SpeechRequest(TEXT, seed=2))
    next(second)
    assert len(first.stats.blocks) == 1  # still busy with its second block
    first.close()
    second.close()


def test_a_closed_engine_says_so(make_engine: MakeEngine) -> None:
    engine = make_engine("preset.num_steps=[1,200,200]")
    running = engine.stream(SpeechRequest(TEXT, seed=1))
    next(running)
    engine.close()
    with pytest.raises(GenerationError, match="closed"):
        running.read()
    with pytest.raises(GenerationError, match="closed"):
        engine.stream(SpeechRequest(TEXT))


def test_a_voice_is_encoded_once_and_again_when_its_file_changes(
    make_engine: MakeEngine, voice_root: Path
) -> None:
    engine = make_engine()
    file = voice_root / "ann.wav"
    file.write_bytes(encode_file(clip(1.0, 220.0), 44_100, "wav"))

    def say() -> tuple[bool, Any]:
        with engine.stream(SpeechRequest(TEXT, voice="Ann", seed=3)) as stream:
            audio = stream.read()
        return stream.stats.voice_cached, audio

    (cached_1, first), (cached_2, second) = say(), say()
    assert (cached_1, cached_2) == (False, True)
    np.testing.assert_array_equal(first, second)
    file.write_bytes(encode_file(clip(1.0, 330.0), 44_100, "wav"))
    cached_3, third = say()
    assert not cached_3
    assert not np.array_equal(first, third)


def test_an_unknown_voice_is_told_before_anything_runs(make_engine: MakeEngine) -> None:
    engine = make_engine()
    with pytest.raises(VoiceNotFoundError):
        engine.stream(SpeechRequest(TEXT, voice="nobody"))
    assert engine.stats()["active"] == 0


def test_each_chunk_of_a_long_text_has_its_own_seed(make_engine: MakeEngine) -> None:
    engine = make_engine(
        "chunking.target_seconds=2", "chunking.min_seconds=1", "chunking.max_seconds=3"
    )
    text = "The first sentence goes here. The second sentence goes there."
    stream = engine.stream(SpeechRequest(text, seed=5))
    assert stream.info.text.chunks == (
        "[S1] The first sentence goes here.",
        "[S1] The second sentence goes there.",
    )
    joined = stream.read()
    assert len(joined) == 2 * 40 * HOP
    second = engine.synthesize(SpeechRequest("The second sentence goes there.", seed=6))
    np.testing.assert_array_equal(joined[40 * HOP :], second)


def test_progress_reaches_what_was_planned(make_engine: MakeEngine) -> None:
    stream = make_engine().stream(SpeechRequest(TEXT, seed=1))
    stream.read()
    assert stream.progress is not None
    assert stream.progress.steps_done == stream.progress.steps_planned == 9


def test_global_random_state_is_left_alone(make_engine: MakeEngine) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    make_engine().synthesize(SpeechRequest(TEXT, seed=1))
    assert torch.equal(before, torch.get_rng_state())


def test_one_non_streaming_block_and_the_streaming_shape_are_the_callers_choice(
    make_engine: MakeEngine,
) -> None:
    engine = make_engine("sampler.nonstream_block_sizes=[24]", "sampler.nonstream_num_steps=2")
    chunks = list(engine.stream(SpeechRequest(TEXT, seed=1, streaming=False)))
    assert [len(chunk) for chunk in chunks] == [24 * HOP]
