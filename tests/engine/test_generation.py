"""Early stop, tail, fade and reroll, with networks that land where the test says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from echo.config import EchoConfig
from echo.engine import Engine, SpeechRequest
from echo.engine.components import Components
from echo.engine.lane import Lane
from echo.errors import GenerationError, InvalidRequestError
from echo.spec import HOP
from fakes import ScriptedDetector, aiming

TEXT = "Hello there."
ONE_STEP = "preset.num_steps=[1,1,1]"


def speaks_until(last: int) -> Callable[[int, torch.Tensor], torch.Tensor]:
    """Noise is speech up to latent ``last``, zeros from there on."""

    def aim(start: int, x: torch.Tensor) -> torch.Tensor:
        positions = start + torch.arange(x.shape[1])
        return x * (positions < last)[None, :, None]

    return aim


@pytest.fixture
def aimed(toy_components: Components, toy_config: Callable[..., EchoConfig]):  # type: ignore[no-untyped-def]
    engines: list[Engine] = []

    def make(
        aim: Callable[[int, torch.Tensor], torch.Tensor],
        *overrides: str,
        silences_ms: Sequence[float] = (),
    ) -> Engine:
        detector = ScriptedDetector(silences_ms) if silences_ms else None
        config = toy_config(ONE_STEP, *overrides)
        engines.append(Engine(config, aiming(toy_components, aim), detector))  # type: ignore[arg-type]
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()


BLOCKS = "preset.block_sizes=[20,40,60]"


def test_blocks_after_the_end_of_speech_are_skipped_and_the_tail_is_cut(aimed) -> None:  # type: ignore[no-untyped-def]
    stream = aimed(speaks_until(37), BLOCKS).stream(SpeechRequest(TEXT, seed=1))
    chunks = list(stream)
    assert [len(chunk) for chunk in chunks] == [20 * HOP, 17 * HOP]
    assert stream.stats.early_stops == 1
    assert len(stream.stats.blocks) == 2
    assert stream.progress.steps_done == stream.progress.steps_planned == 2


class WatchedLane(Lane):
    """Notes the latents that it takes."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.taken: list[int] = []

    def take(self, made: torch.Tensor) -> torch.Tensor:
        self.taken.append(made.shape[1])
        return super().take(made)


def test_a_block_is_taken_into_the_lane_once_however_many_pieces_it_is_decoded_in(
    toy_components: Components, toy_config: Callable[..., EchoConfig]
) -> None:
    lane = WatchedLane()
    components = replace(toy_components, lane=lane)
    with Engine(toy_config(ONE_STEP, "preset.block_sizes=[8,40,70]"), components) as engine:
        engine.synthesize(SpeechRequest(TEXT, seed=1, overrides={"early_stop_on_zero": False}))
    assert lane.taken == [8, 40, 70]


def test_without_early_stop_all_blocks_run_but_the_tail_is_still_cut(aimed) -> None:  # type: ignore[no-untyped-def]
    engine = aimed(speaks_until(70), BLOCKS)
    overrides = {"early_stop_on_zero": False}
    stream = engine.stream(SpeechRequest(TEXT, seed=1, overrides=overrides))
    assert [len(chunk) for chunk in stream] == [20 * HOP, 40 * HOP, 10 * HOP]
    assert stream.stats.early_stops == 0


def test_what_was_sent_is_never_cut(aimed) -> None:  # type: ignore[no-untyped-def]
    # The end lies in the first block, whose last 16 frames are not all silent.
    stream = aimed(speaks_until(18), BLOCKS).stream(SpeechRequest(TEXT, seed=1))
    assert [len(chunk) for chunk in stream] == [20 * HOP]
    assert len(stream.stats.blocks) == 2


def test_a_pause_in_a_block_that_was_sent_does_not_swallow_what_follows(aimed) -> None:  # type: ignore[no-untyped-def]
    def aim(start: int, x: torch.Tensor) -> torch.Tensor:
        positions = start + torch.arange(x.shape[1])
        pause = (positions >= 22) & (positions < 45)
        return x * ~(pause | (positions >= 100))[None, :, None]

    stream = aimed(aim, BLOCKS).stream(SpeechRequest(TEXT, seed=1))
    assert [len(chunk) for chunk in stream] == [20 * HOP, 40 * HOP, 40 * HOP]


def test_the_last_50_ms_fade_out(aimed) -> None:  # type: ignore[no-untyped-def]
    engine = aimed(speaks_until(37), BLOCKS)
    overrides = {"block_sizes": [60], "num_steps": 1}
    faded = engine.synthesize(SpeechRequest(TEXT, seed=1, overrides=overrides))
    longer = aimed(speaks_until(60), BLOCKS).synthesize(
        SpeechRequest(TEXT, seed=1, overrides=overrides)
    )
    x = np.linspace(0, 1, 2205)
    expected = longer[: 37 * HOP][-2205:] * (1 - x) ** 3
    np.testing.assert_allclose(faded[-2205:], expected, atol=1e-5)
    np.testing.assert_allclose(faded[:-2205], longer[: len(faded) - 2205], atol=1e-5)


def test_a_text_that_ends_at_once_gives_no_audio_and_no_error(aimed) -> None:  # type: ignore[no-untyped-def]
    assert len(aimed(speaks_until(0), BLOCKS).synthesize(SpeechRequest(TEXT, seed=1))) == 0


VAD = ("vad.enabled=true", "vad.silence_threshold_ms=300", "preset.block_sizes=[20,20,40]")
ALWAYS = speaks_until(1000)


def test_a_silent_block_is_made_again_with_the_next_seed(aimed) -> None:  # type: ignore[no-untyped-def]
    plain = aimed(ALWAYS, VAD[2]).synthesize(SpeechRequest(TEXT, seed=4))
    engine = aimed(ALWAYS, *VAD, silences_ms=[500, 100, 100, 100])
    stream = engine.stream(SpeechRequest(TEXT, seed=4))
    rerolled = stream.read()
    assert stream.stats.rerolls == 1
    assert [block.attempts for block in stream.stats.blocks] == [2, 1, 1]
    first = slice(0, 20 * HOP)
    other_seed = aimed(ALWAYS, VAD[2]).synthesize(SpeechRequest(TEXT, seed=5))
    np.testing.assert_array_equal(rerolled[first], other_seed[first])
    assert not np.array_equal(rerolled[first], plain[first])


def test_a_reroll_leaves_the_random_stream_of_later_blocks_alone(aimed) -> None:  # type: ignore[no-untyped-def]
    seen: dict[int, torch.Tensor] = {}

    def watch(start: int, x: torch.Tensor) -> torch.Tensor:
        seen[start] = x[:1].clone()
        return x

    aimed(watch, VAD[2]).synthesize(SpeechRequest(TEXT, seed=4))
    plain = dict(seen)
    silences = [100, 500, 100, 100]  # the second block is rolled again
    aimed(watch, *VAD, silences_ms=silences).synthesize(SpeechRequest(TEXT, seed=4))
    assert not torch.equal(seen[20], plain[20])
    assert torch.equal(seen[40], plain[40])


def test_when_no_attempt_passes_the_least_silent_one_is_used(aimed) -> None:  # type: ignore[no-untyped-def]
    engine = aimed(ALWAYS, *VAD, "vad.max_rerolls=2", silences_ms=[900, 400, 700, 100, 100])
    stream = engine.stream(SpeechRequest(TEXT, seed=4))
    audio = stream.read()
    assert stream.stats.blocks[0].attempts == 3
    assert stream.stats.blocks[0].longest_silence_ms == pytest.approx(400, abs=1)
    second_try = aimed(ALWAYS, VAD[2]).synthesize(SpeechRequest(TEXT, seed=5))
    np.testing.assert_array_equal(audio[: 20 * HOP], second_try[: 20 * HOP])


def test_a_reroll_continues_the_decoder_from_before_the_block(aimed) -> None:  # type: ignore[no-untyped-def]
    same_noise = aimed(lambda start, x: torch.ones_like(x), *VAD, silences_ms=[100, 500, 100, 100])
    untried = aimed(lambda start, x: torch.ones_like(x), VAD[2])
    np.testing.assert_allclose(
        same_noise.synthesize(SpeechRequest(TEXT, seed=4)),
        untried.synthesize(SpeechRequest(TEXT, seed=4)),
        atol=1e-4,
    )


def test_a_block_shorter_than_the_threshold_is_not_judged(aimed) -> None:  # type: ignore[no-untyped-def]
    engine = aimed(
        ALWAYS,
        "vad.enabled=true",
        "vad.silence_threshold_ms=1000",
        "preset.block_sizes=[20,20,40]",
        silences_ms=[100],
    )
    stream = engine.stream(SpeechRequest(TEXT, seed=4))
    stream.read()
    assert [block.longest_silence_ms is None for block in stream.stats.blocks] == [
        True,
        True,
        False,
    ]


def test_a_request_turns_the_reroll_on_and_off_for_itself(aimed) -> None:  # type: ignore[no-untyped-def]
    wanted = {"vad_enabled": True, "vad_silence_threshold_ms": 300, "vad_max_rerolls": 1}
    engine = aimed(ALWAYS, VAD[2], silences_ms=[900, 400, 100, 100])
    plain = engine.stream(SpeechRequest(TEXT, seed=4))
    plain.read()
    assert [block.attempts for block in plain.stats.blocks] == [1, 1, 1]
    rerolled = engine.stream(SpeechRequest(TEXT, seed=4, overrides=wanted))
    rerolled.read()
    assert [block.attempts for block in rerolled.stats.blocks] == [2, 1, 1]

    engine = aimed(ALWAYS, *VAD, silences_ms=[900, 900, 900, 900])
    off = engine.stream(SpeechRequest(TEXT, seed=4, overrides={"vad_enabled": False}))
    off.read()
    assert [block.longest_silence_ms for block in off.stats.blocks] == [None, None, None]


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("vad_enabled", 1, "vad_enabled is 1; it must be true or false"),
        ("vad_max_rerolls", 21, "vad_max_rerolls is 21; the highest allowed value is 20"),
        ("vad_silence_threshold_ms", 0, "vad_silence_threshold_ms is 0.0; the lowest allowed"),
    ],
)
def test_an_impossible_reroll_names_the_requests_own_setting(aimed, key, value, problem) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        aimed(ALWAYS).stream(SpeechRequest(TEXT, overrides={key: value}))
    assert caught.value.param == key


def test_the_detector_is_loaded_only_when_a_request_wants_it(aimed, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    engine = aimed(ALWAYS)
    engine.synthesize(SpeechRequest(TEXT, seed=1))
    with pytest.raises(ImportError):
        engine.stream(SpeechRequest(TEXT, seed=1, overrides={"vad_enabled": True}))


def test_a_model_for_the_first_block_takes_five_steps_without_guidance(
    toy_components: Components, toy_config: Callable[..., EchoConfig]
) -> None:
    first, rest = (aiming(toy_components, lambda start, x: x).model for _ in range(2))
    components = Components.from_parts(rest, toy_components.codec, toy_components.pca, first)
    with Engine(toy_config(), components) as engine:
        stream = engine.stream(SpeechRequest(TEXT, seed=1))
        stream.read()
    assert first.seen == [(0, 1)] * 5  # type: ignore[comparison-overlap]
    assert {start for start, _ in rest.seen} == {8, 20}  # type: ignore[union-attr]
    assert [block.steps for block in stream.stats.blocks] == [5, 3, 3]
    assert stream.progress is not None
    assert stream.progress.steps_done == stream.progress.steps_planned == 11


def test_a_failing_generation_harms_no_other(aimed) -> None:  # type: ignore[no-untyped-def]
    broken = {"now": True}

    def aim(start: int, x: torch.Tensor) -> torch.Tensor:
        if broken["now"] and start == 20:
            raise ZeroDivisionError("a planted fault")
        return x

    engine = aimed(aim, BLOCKS)
    stream = engine.stream(SpeechRequest(TEXT, seed=1))
    assert len(next(stream)) == 20 * HOP  # what came before the fault stands
    with pytest.raises(GenerationError, match="a planted fault"):
        next(stream)
    broken["now"] = False
    assert len(engine.synthesize(SpeechRequest(TEXT, seed=1))) == 120 * HOP
