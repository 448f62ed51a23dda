"""Texts of the corpus: varied, seeded, tokenised like the engine's, and apart from the judges'."""

import itertools
import random
import re

import pytest

from echo.text.normalize import normalize
from echo.training.heldout import GENERAL_SENTENCES
from echo.training.slots import SLOTS, slot_sentence
from echo.training.texts import MAX_WORDS, TextMix, bare, draw_text
from echo.training.words import read_sections, vocabulary, word_lists

MIX = TextMix(sentences=0.45, slots=0.2, word_runs=0.2, short=0.15)


def draw(count: int, *, held_out: bool = False, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [draw_text(rng, MIX, held_out=held_out) for _ in range(count)]


def test_texts_are_as_the_engine_would_tokenise_them() -> None:
    texts = draw(2000)
    assert [normalize(text, exclamation=True).text for text in texts] == texts
    assert all(text.startswith("[S1] ") and text.isascii() for text in texts)
    assert max(len(text.split()) - 1 for text in texts) <= MAX_WORDS


def test_no_symbol_of_the_grammar_is_left_in_a_text() -> None:
    assert not [text for text in draw(3000) if re.search(r"[{}|/]|A/AN", text)]


def test_every_symbol_of_the_grammar_has_a_rule() -> None:
    rules = read_sections("grammar.txt")
    used = set(re.findall(r"\{(\w+)\}", " ".join(itertools.chain(*rules.values()))))
    assert used <= rules.keys() | word_lists().keys() | {"num", "hour"}


def test_the_same_seed_draws_the_same_texts_and_another_seed_others() -> None:
    assert draw(50) == draw(50)
    assert draw(50) != draw(50, seed=1)


def test_texts_use_thousands_of_words_and_hardly_repeat() -> None:
    texts = draw(5000)
    words = set(" ".join(map(bare, texts)).split())
    assert len(vocabulary()) > 4000
    assert len(words) > 3500
    assert len(set(texts)) > 0.9 * len(texts)


def test_every_letter_and_most_pairs_of_letters_occur() -> None:
    pairs = {a + b for word in vocabulary() for a, b in itertools.pairwise(word.lower())}
    assert {letter for pair in pairs for letter in pair} >= set("abcdefghijklmnopqrstuvwxyz")
    assert len(pairs) > 400


def test_held_out_sentences_are_never_drawn_for_training() -> None:
    held_out = {bare(text) for text in GENERAL_SENTENCES}
    assert not held_out & {bare(text) for text in draw(3000)}
    assert held_out & {bare(text) for text in draw(300, held_out=True)}


def test_general_sentences_are_long_enough_to_be_told_apart() -> None:
    assert len(set(map(bare, GENERAL_SENTENCES))) == 40
    assert all(len(bare(text).split()) >= 8 for text in GENERAL_SENTENCES)


def test_slot_sentences_for_judging_share_no_combination_with_training() -> None:
    rng = random.Random(0)
    kept = {tuple(bare(slot_sentence(rng, held_out=True)).split()[:3]) for _ in range(3000)}
    trained = {tuple(bare(slot_sentence(rng, held_out=False)).split()[:3]) for _ in range(3000)}
    assert not kept & trained
    assert {word for combination in kept for word in combination} == set(
        itertools.chain(*SLOTS[:3])
    )


@pytest.mark.parametrize(
    ("symbol", "form"),
    [
        ("ns", "cities"),
        ("ns", "boxes"),
        ("ns", "children"),
        ("past", "stopped"),
        ("past", "carried"),
        ("ing", "cutting"),
        ("ing", "making"),
        ("third", "catches"),
        ("went", "fell"),
    ],
)
def test_forms_are_spelt_as_english_spells_them(symbol: str, form: str) -> None:
    assert form in word_lists()[symbol]
