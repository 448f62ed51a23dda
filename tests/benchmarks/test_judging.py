from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.judging import Judge, Line, seam_values, speak
from benchmarks.speech import reference, write_voice
from echo.audio.load import load_reference
from echo.engine import Engine
from echo.errors import ConfigError

TEXT = "Farmers opened bottles again."


class Parrot:
    """Hears the same words whatever is said."""

    name = "parrot"

    def __init__(self, words: str) -> None:
        self.words = words

    def hear(self, samples, sample_rate: int, sentences: int = 1) -> str:
        return self.words


@pytest.fixture
def engine(make_engine: Callable[..., Engine], voice_root) -> Engine:
    for i, name in enumerate(("one", "two")):
        write_voice(voice_root, name, reference(1.0 + i, i))
    return make_engine("sampler.early_stop_on_zero=false", "chunking=off")


def test_the_plain_path_says_the_same_and_another_shape_does_not(engine: Engine) -> None:
    judge = Judge(engine, [], best_steps=3)
    take = speak(engine, Line(TEXT, "one", 5))
    assert judge.mcd_plain_db(take) < 0.01
    other = speak(engine, Line(TEXT, "one", 5), {"cfg_scale_text": 6.0, "cfg_min_t": 0.0})
    assert judge.mcd_plain_db(other) < 0.01  # with its own settings, too
    assert judge.mcd_plain_db(replace(other, settings=take.settings)) > 0.1
    assert judge.mcd_plain_db(replace(take, line=replace(take.line, seed=6))) > 0.1


@pytest.mark.parametrize("setting", [{"truncation_factor": 0.6}, {"speaker_kv_scale": 1.5}])
def test_the_plain_path_knows_what_a_preset_may_set(engine: Engine, setting) -> None:
    take = speak(engine, Line(TEXT, "one", 5), setting)
    assert Judge(engine, [], best_steps=3).mcd_plain_db(take) < 0.01


def test_what_differs_from_block_to_block_has_no_plain_path(engine: Engine) -> None:
    take = speak(engine, Line(TEXT, "one", 5), {"truncation_factor": [0.6, 0.8, 1.0]})
    with pytest.raises(ConfigError, match="plain_sentences"):
        Judge(engine, [], best_steps=3).mcd_plain_db(take)


def test_the_reading_with_many_steps_is_made_once_for_a_line(engine: Engine) -> None:
    judge = Judge(engine, [], best_steps=3)
    take = speak(engine, Line(TEXT, "one", 5))
    assert judge.mcd_best_db(take) > 0
    (best,) = judge.best.values()
    assert judge.mcd_best_db(replace(take, audio=best)) == pytest.approx(0, abs=1e-6)
    assert list(judge.best) == [take.line]


def test_a_voice_is_nearest_to_its_own_reference(engine: Engine) -> None:
    judge = Judge(engine, [], best_steps=3)
    take = speak(engine, Line(TEXT, "one", 5))
    path = engine.voices.get("one").path
    spoken = load_reference(path, max_bytes=2**24, max_seconds=10)
    found = judge.speaker_similarity(replace(take, audio=spoken), ["one", "two"])
    assert found["speaker_similarity"] == pytest.approx(1.0, abs=1e-4)
    assert found["speaker_margin"] > 0
    noise = np.random.default_rng(0).standard_normal(44_100).astype(np.float32)
    assert (
        judge.speaker_similarity(replace(take, audio=noise), ["one", "two"])["speaker_similarity"]
        < found["speaker_similarity"]
    )
    assert judge.speaker_similarity(replace(take, audio=spoken[:100]), ["one"]) == {}


def test_words_are_held_against_what_was_said_and_what_was_not(engine: Engine) -> None:
    judge = Judge(engine, [Parrot("farmers opened windows again")], best_steps=3)
    take = speak(engine, Line(TEXT, "one", 5))
    found = judge.of_words(take, "Dancers found rivers.")
    assert found == {"word_error_parrot": 0.25, "word_error_chance_parrot": pytest.approx(4 / 3)}
    assert judge.of_words(replace(take, line=replace(take.line, kind="long")), "No.") == {}


def test_seams_lie_where_the_parts_were_joined(engine: Engine) -> None:
    take = speak(engine, Line(TEXT, "one", 5))
    sizes = [block.samples for block in take.stats.blocks]
    assert list(take.seams()) == [("block", sizes[0]), ("block", sizes[0] + sizes[1])]
    assert {(metric, join) for metric, join, _ in seam_values(take)} >= {("seam_click", "block")}
    assert sum(sizes) == take.audio.size
    assert 0 < take.ttfb_s < 60


def test_seams_between_chunks_are_told_apart(engine: Engine) -> None:
    cut = {"chunking_enabled": True, "chunk_target_seconds": 1.5, "chunk_min_seconds": 0.5}
    take = speak(engine, Line(f"{TEXT} {TEXT}", "one", 5), {**cut, "chunk_max_seconds": 3.0})
    assert [join for join, _ in take.seams()] == ["block", "block", "chunk", "block", "block"]
