from __future__ import annotations

from pathlib import Path

import pytest

from echo.voices.store import VoiceStore


@pytest.fixture
def store(make_cfg, roots: tuple[Path, Path]):
    def make(*names: str, **aliases: str | None) -> VoiceStore:
        for name in names:
            (roots[0] / f"{name}.wav").write_bytes(b"sound")
        return VoiceStore(make_cfg(aliases=aliases))

    return make


def ids(store: VoiceStore, *names: str) -> list[str | None]:
    found = [store.get(name) for name in names]
    return [voice.id if voice else None for voice in found]


def test_aliases_are_dealt_out_over_the_voices_in_order(store):
    names = {"one": None, "two": None, "three": None, "four": None}
    assert ids(store("b", "a", "C", **names), *names) == ["a", "b", "C", "a"]


def test_an_alias_with_a_target_stands_for_it_and_leaves_the_others_turns(store):
    voices = store("a", "b", one=None, fixed="B", two=None)
    assert ids(voices, "one", "fixed", "two") == ["a", "b", "b"]


def test_a_voice_of_that_name_comes_before_an_alias(store):
    assert ids(store("a", "Alloy", alloy="a"), "alloy") == ["Alloy"]


def test_cloned_voices_do_not_shift_the_aliases(store):
    names = {"one": None, "two": None}
    before = ids(store("m", "n", **names), *names)
    assert ids(store("default__a", **names), *names) == before == ["m", "n"]


def test_an_alias_of_nothing_is_no_voice(store):
    assert ids(store("a", alloy="gone"), "alloy", "other") == [None, None]


def test_without_voices_there_is_none_to_stand_for(store):
    assert ids(store(alloy=None), "alloy") == [None]
