"""Texts to train on, endless and seeded: sentences from a grammar, word runs, short replies.

Own words and own sentences. Varied on purpose: a model that only sees a few hundred words learns
those words, not how English is spelt.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from echo.text.normalize import normalize
from echo.training import words as w
from echo.training.heldout import GENERAL_SENTENCES
from echo.training.slots import slot_sentence

MAX_WORDS = 16


@dataclass(frozen=True)
class TextMix:
    """How often each kind of text is drawn; the weights need not add up to anything."""

    sentences: float  # of the grammar below
    slots: float  # three or four common words, see .slots
    word_runs: float  # unrelated words: the only way to say them is to read them
    short: float  # one to three words, replies, counting


def draw_text(rng: random.Random, mix: TextMix, *, held_out: bool) -> str:
    """One text as the engine would tokenise it: ASCII, ``[S1] `` in front, up to 16 words.

    With ``held_out`` there are no short texts, which could not differ from trained ones, but
    :data:`GENERAL_SENTENCES` and combinations of slots that are never trained on.
    """
    kinds = ("sentences", "slots", "word_runs", "short")
    weights = [mix.sentences, mix.slots, mix.word_runs, 0.0 if held_out else mix.short]
    while True:
        kind = rng.choices(kinds, weights)[0]
        if kind == "slots":
            text = slot_sentence(rng, held_out=held_out)
        elif kind == "sentences" and held_out and rng.random() < 0.5:
            text = rng.choice(GENERAL_SENTENCES)
        else:
            text = {"sentences": _sentence, "word_runs": _word_run, "short": _short}[kind](rng)
        too_short = held_out and len(text.split()) < 3
        if held_out or bare(text) not in _KEPT_APART:
            if len(text.split()) <= MAX_WORDS and not too_short:
                return normalize(text, exclamation=True).text


def bare(text: str) -> str:
    """Lower case, words only, single spaces: what two texts that sound alike have in common."""
    return " ".join(re.findall(r"[a-z0-9']+", re.sub(r"\[S\d\]", "", text).lower()))


_KEPT_APART = frozenset(bare(sentence) for sentence in GENERAL_SENTENCES)


def vocabulary() -> list[str]:
    """Every word with its forms, sorted; capitalised where names are."""
    return list(_VOCABULARY)


# The grammar. {symbol} is expanded at random; "a|an" is settled afterwards.
_GRAMMAR: dict[str, list[str]] = {
    "S": [
        "{C}.",
        "{C}.",
        "{C}.",
        "{C}.",
        "{C}, {conj} {C}.",
        "{C} {sub} {C}.",
        "{Sub} {C}, {C}.",
        "{When}, {C}.",
        "{Q}?",
        "{Q}?",
        "{I}.",
        "{I}!",
        "{C}. {C}.",
        "{Lead}, {C}.",
        "There {was} {a} {nom} {where}.",
        "There were {num} {adj} {ns} {where}.",
        "It was {adj} {when}.",
        "{NP} said that {C}.",
        "{C}, didn't {pron}?",
        "Not {every} {n} is {adj}.",
        "{NP} and {NP} {past} {NP}.",
        "{ns}, {ns} and {ns} are {adj}.",
    ],
    "C": [
        "{NP} {past} {OP}",
        "{NP} {past} {OP}",
        "{NP} {past} {OP} {tail}",
        "{NP} {went} {tail}",
        "{NP} {adv} {past} {OP}",
        "{NP} {modal} {base} {OP}",
        "{NP} {modal} {move} {tail}",
        "{NPs} {adv} {third} {OP}",
        "{NPp} {base} {OP}",
        "{NPp} {move} {tail}",
        "{NPs} is {ing} {OP}",
        "{NPp} are {ing} {OP}",
        "{NPs} was {adj}",
        "{NPs} is {adv} {adj}",
        "{NPp} are {adj} and {adj}",
        "{NPs} has {part} {OP}",
        "{NPp} have {adv} {part} {OP}",
        "{NPs} didn't {base} {OP}",
        "{NPp} don't {base} {OP}",
        "{NPs} was {part} by {NP}",
        "{NPs} wants to {base} {OP}",
        "{NPs} is {adj} enough to {base} {OP}",
        "{NPs} {past} {num} {ns}",
        "I'm {ing} {OP}",
        "you're {adv} {adj}",
        "we'll {base} {OP} {when}",
        "it's {adj} to {base} {OP}",
        "that's {a} {nom}",
        "{mass} is {adj} {when}",
    ],
    "Q": [
        "What did {NP} {base} {when}",
        "Where did {NP} {base} {OP}",
        "Why is {NPs} {adv} {adj}",
        "Who {past} {OP}",
        "How many {ns} did {NP} {base}",
        "Did {NP} {base} {OP}",
        "Can {NP} {base} {OP}",
        "Do {NPp} {base} {OP}",
        "Would you {base} {OP}, please",
        "When will {NP} {base} {OP}",
        "Is {NPs} {adj} or {adj}",
        "Have you {part} {OP}",
        "Which {n} is {adj}",
        "Isn't {NPs} {adj}",
    ],
    "I": [
        "Please {base} {OP}",
        "{base} {OP}",
        "Don't {base} {OP}",
        "Let's {base} {OP} {when}",
        "Never {base} {a} {nom}",
        "{base} {OP} {where}, please",
    ],
    "NP": ["{NPs}", "{NPs}", "{NPp}", "{pron}"],
    "NPs": [
        "the {n}", "the {person}", "{poss} {person}", "{poss} {n}", "the {nom}", "{a} {nom}",
        "{name}", "{name}", "{name}'s {n}", "the {n} {where}", "that {nom}", "{every} {n}",
        "he", "she", "nobody", "everyone", "{a} {person} from {placename}",
    ],
    "NPp": [
        "the {ns}", "{num} {ns}", "{some} {ns}", "{adj} {ns}", "these {ns}", "we", "they", "you",
        "{poss} {adj} {ns}", "{name} and {name}", "{ns} and {ns}",
    ],
    "OP": [
        "the {n}", "the {n}", "{a} {n}", "{a} {nom}", "the {nom}", "{poss} {n}", "{some} {ns}",
        "{num} {ns}", "the {ns}", "{mass}", "{some} {mass}", "it", "them", "him", "her", "{name}",
        "the {n} of {NPs}", "{poss} {person}'s {n}", "everything", "something {adj}",
    ],
    "nom": ["{adj} {n}", "{adj} {n}", "{adj} {adj} {n}", "{adj} {person}", "{n}"],
    "tail": ["{when}", "{where}", "{adv}", "{where} {when}", "with {OP}", "without {OP}"],
    "when": [
        "today", "yesterday", "tomorrow", "last night", "this morning", "in the evening",
        "on {weekday}", "in {month}", "every {time}", "after {meal}", "before {meal}", "again",
        "at {hour} o'clock", "{num} {time}s ago", "next {time}", "all {time} long", "for {num} {time}s",
    ],
    "When": [
        "yesterday", "last {time}", "on {weekday}", "in {month}", "one {time}", "after {meal}",
        "at {hour} o'clock", "every {time}", "{num} {time}s later", "in the end", "at last",
    ],
    "where": [
        "{prep} the {n}", "{prep} the {n}", "{prep} {poss} {n}", "in {placename}", "at home",
        "outside", "upstairs", "at school", "{prep} {a} {nom}", "{prep} the {adj} {n}",
    ],
    "prep": [
        "in", "on", "under", "behind", "near", "beside", "above", "below", "between", "inside",
        "across", "through", "around", "against", "over", "by", "towards", "from", "into", "without",
    ],
    "time": ["day", "week", "month", "year", "night", "morning", "hour", "minute", "summer", "winter"],
    "meal": ["breakfast", "lunch", "dinner", "school", "work", "the {n}"],
    "conj": ["and", "but", "so", "or", "yet"],
    "sub": ["because", "when", "while", "after", "before", "if", "although", "until", "unless"],
    "Sub": ["because", "when", "while", "after", "before", "if", "although", "since"],
    "Lead": [
        "yes", "no", "well", "oh", "of course", "perhaps", "{name}", "sorry", "in fact", "for example",
        "however", "{adv}", "first", "then", "thank you", "listen", "my friend",
    ],
    "pron": ["I", "you", "he", "she", "it", "we", "they"],
    "poss": ["my", "your", "his", "her", "its", "our", "their"],
    "some": ["some", "many", "few", "several", "all", "more", "most", "no", "enough", "other"],
    "every": ["every", "each", "this", "that", "any", "another", "one", "no"],
    "modal": [
        "can", "could", "will", "would", "should", "must", "might", "may", "can't", "won't",
        "couldn't", "shouldn't", "had to", "used to", "wants to", "tried to", "began to",
    ],
    "was": ["was", "is", "was never", "is always"],
    "a": ["a|an"],
}

_REPLIES = """
Yes.|No.|Okay.|Thank you.|Thanks a lot.|Hello.|Hello there.|Hi.|Good morning.|Good evening.|Good night.|
Goodbye.|See you soon.|See you tomorrow.|Of course.|Not at all.|Never mind.|Well done.|Come in.|Sit down.|
Really?|Why not?|Who is it?|What time is it?|How are you?|I am fine.|Excuse me.|I'm sorry.|Help me.|Wait.|
Stop.|Go on.|Be careful.|Look out.|Not yet.|I don't know.|I think so.|Maybe later.|That's right.|
You're welcome.|Nice to meet you.|Where are you?|Let's go.|Hurry up.|Look at that.|Listen to me.|Not now.|
Me too.|So do I.|Good luck.|Happy birthday.|Take care.|What a day.|How nice.|No problem.|Are you ready?|
I love you.|Please sit down.|Say it again.|This way, please.|What is your name?|My name is {name}.|
I am from {placename}.|Hello, {name}.|Good morning, {name}.|Thank you, {name}.|Is that you, {name}?
""".replace("\n", "").split("|")

_VOWEL_SOUND = re.compile(r"(?i)(?:[aeio]|u(?!ni|se|su))(?!ne\b|nce\b)|hon[eo]|hour|heir")
_ARTICLE = re.compile(r"a\|an (?=(\S+))")


def _sentence(rng: random.Random) -> str:
    text = _expand(rng, rng.choice(_GRAMMAR["S"]))
    roll = rng.random()
    if roll < 0.06:  # people do not always write the full stop
        return text[:-1] if text.endswith(".") else text
    return text.lower() if roll < 0.1 else text


def _word_run(rng: random.Random) -> str:
    picked = [rng.choice(_VOCABULARY) for _ in range(rng.randint(2, 9))]
    if rng.random() < 0.3:  # function words, as often as they are in speech
        picked = [
            rng.choice(w.FUNCTION_WORDS) if rng.random() < 0.4 else word for word in picked
        ]
    joint = ", " if rng.random() < 0.25 else " "
    return _capital(joint.join(picked)) + rng.choice((".", ".", ".", "?", ""))


def _short(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.25:
        return _expand(rng, rng.choice(_REPLIES))
    if roll < 0.45:
        return _counting(rng)
    if roll < 0.55:
        return _capital(_expand(rng, "{NP}")) + "."
    words = [rng.choice(_VOCABULARY) for _ in range(rng.randint(1, 3))]
    return _capital(" ".join(words)) + rng.choice((".", ".", "?", ""))


def _counting(rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.3:
        start, count = rng.randint(0, 17), rng.randint(3, 8)
        return _capital(", ".join(w.NUMBERS[start : start + count])) + "."
    if roll < 0.5:
        return f"{rng.randint(0, 100 if rng.random() < 0.7 else 2100)}."
    if roll < 0.7:
        return _expand(rng, f"{rng.randint(2, 99)} {{ns}}.")
    if roll < 0.85:
        return _expand(rng, f"{{weekday}}, {{month}} {rng.randint(1, 30)}.")
    return _expand(rng, "{num} and {num} is {num}.")


def _expand(rng: random.Random, pattern: str) -> str:
    while "{" in pattern:
        pattern = re.sub(r"\{(\w+)\}", lambda m: _symbol(rng, m[1]), pattern)
    settled = _ARTICLE.sub(lambda m: "an " if _VOWEL_SOUND.match(m[1]) else "a ", pattern)
    return re.sub(r"(?:^|(?<=[.?!] ))[a-z]", lambda m: m[0].upper(), settled)


def _symbol(rng: random.Random, symbol: str) -> str:
    if symbol in _GRAMMAR:
        return rng.choice(_GRAMMAR[symbol])
    if symbol == "num":
        return _number(rng)
    if symbol == "hour":
        return rng.choice(w.NUMBERS[1:13])
    return rng.choice(_WORDS[symbol])


def _number(rng: random.Random) -> str:
    if rng.random() < 0.7:
        return rng.choice(w.NUMBERS[2:13])
    return f"{rng.choice(w.NUMBERS[20:])} {rng.choice(w.NUMBERS[1:10])}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _plural(noun: str) -> str:
    irregular = {
        "calf": "calves", "child": "children", "foot": "feet", "goose": "geese", "half": "halves",
        "knife": "knives", "leaf": "leaves", "man": "men", "mouse": "mice", "person": "people",
        "policeman": "policemen", "salesman": "salesmen", "bowman": "bowmen", "sheep": "sheep",
        "shelf": "shelves", "thief": "thieves", "tooth": "teeth", "wife": "wives",
        "wolf": "wolves", "woman": "women", "fish": "fish", "deer": "deer", "potato": "potatoes",
        "tomato": "tomatoes", "hero": "heroes", "mosquito": "mosquitoes", "volcano": "volcanoes",
        "trousers": "trousers",
    }  # fmt: skip
    return irregular.get(noun) or _with_s(noun)


def _with_s(word: str) -> str:
    if re.search(r"(?:s|x|z|ch|sh)$", word):
        return f"{word}es" if not word.endswith("z") else f"{word}zes"
    return f"{word[:-1]}ies" if re.search(r"[^aeiou]y$", word) else f"{word}s"


def _with_ed(verb: str, *, double: bool) -> str:
    if verb.endswith("e"):
        return f"{verb}d"
    if re.search(r"[^aeiou]y$", verb):
        return f"{verb[:-1]}ied"
    return f"{verb}{verb[-1] if double else ''}ed"


def _with_ing(verb: str, *, double: bool) -> str:
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return f"{verb[:-1]}ing"
    return f"{verb}{verb[-1] if double else ''}ing"


def _entries(text: str) -> list[list[str]]:
    return [entry.split() for entry in text.split("/") if entry.strip()]


def _doubles(base: str, past: str) -> bool:
    """Whether an irregular verb doubles its last letter: one short vowel, one consonant."""
    return re.search(r"^[^aeiou]*[aeiou][bdgmnpt]$", base) is not None and base not in {"lead"}


def _forms() -> dict[str, list[str]]:
    """The word lists by grammar symbol, with the forms of each verb and noun."""
    base, third, past, part, ing = [], [], [], [], []
    for entry in w.VERBS:
        verb = entry.rstrip("-")
        double = entry.endswith("-")
        base.append(verb)
        third.append(_with_s(verb))
        past.append(_with_ed(verb, double=double))
        part.append(past[-1])
        ing.append(_with_ing(verb, double=double))
    for first, second, last in _entries(w.IRREGULAR_VERBS):
        base.append(first)
        third.append("has" if first == "have" else _with_s(first))
        past.append(second)
        part.append(last)
        ing.append(_with_ing(first, double=_doubles(first, second)))
    motion = _entries(w.MOTION_VERBS)
    return {
        "n": w.NOUNS,
        "ns": [_plural(noun) for noun in w.NOUNS],
        "mass": w.MASS_NOUNS,
        "person": w.PEOPLE,
        "adj": w.ADJECTIVES,
        "adv": w.ADVERBS,
        "name": w.NAMES,
        "placename": w.PLACES,
        "weekday": w.WEEKDAYS,
        "month": w.MONTHS,
        "base": base,
        "third": third,
        "past": past,
        "part": part,
        "ing": ing,
        "move": [entry[0] for entry in motion],
        "went": [entry[-1] if len(entry) > 1 else _with_ed(entry[0], double=False) for entry in motion],
    }


_WORDS = _forms()
_VOCABULARY = tuple(
    sorted(
        {word for words in _WORDS.values() for word in words}
        | {*w.FUNCTION_WORDS, *w.SPELLINGS, *w.NUMBERS}
    )
)
