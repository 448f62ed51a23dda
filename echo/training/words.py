"""The word lists with the forms of each noun and verb. The lists are in ``data/words.txt``."""

from __future__ import annotations

import functools
import re
from importlib.resources import files

_IRREGULAR_PLURALS = dict(
    pair.split()
    for pair in """
    calf calves/child children/foot feet/goose geese/knife knives/leaf leaves/man men/mouse mice
    person people/policeman policemen/salesman salesmen/bowman bowmen/shelf shelves/thief thieves
    tooth teeth/wife wives/wolf wolves/woman women/fish fish/deer deer/potato potatoes
    tomato tomatoes/hero heroes/mosquito mosquitoes/volcano volcanoes/trousers trousers
    """.strip()
    .replace("\n", "/")
    .split("/")
)
_SHORT_VOWEL = re.compile(r"[^aeiou]*[aeiou][bdgmnpt]")  # cut, run, swim: cutting


@functools.cache
def word_lists() -> dict[str, tuple[str, ...]]:
    """Words by grammar symbol: ``n`` nouns, ``ns`` their plurals, ``base``, ``past`` and so on."""
    raw = read_sections("words.txt")
    lists = {name: tuple(" ".join(lines).split()) for name, lines in raw.items()}
    verbs = [_regular(entry) for entry in lists["verbs"]]
    verbs += [_irregular(*entry.split()) for entry in _entries(raw["irregular_verbs"])]
    motion = [entry.split() for entry in _entries(raw["motion_verbs"])]
    base, third, past, participle, ing = map(tuple, zip(*verbs, strict=True))
    return {
        "n": lists["nouns"],
        "ns": tuple(map(_plural, lists["nouns"])),
        "mass": lists["mass_nouns"],
        "person": lists["people"],
        "adj": lists["adjectives"],
        "adv": lists["adverbs"],
        "name": lists["names"],
        "placename": lists["places"],
        "weekday": lists["weekdays"],
        "month": lists["months"],
        "number": lists["numbers"],
        "function": lists["function_words"],
        "spelling": lists["spellings"],
        "base": base,
        "third": third,
        "past": past,
        "part": participle,
        "ing": ing,
        "move": tuple(entry[0] for entry in motion),
        "went": tuple(e[1] if len(e) > 1 else _with_ed(e[0], double=False) for e in motion),
    }


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """Every word in every form, once, sorted."""
    return tuple(sorted({word for words in word_lists().values() for word in words}))


def read_sections(file: str) -> dict[str, list[str]]:
    """Lines of a data file by the ``[heading]`` above them; blank ones and comments left out."""
    sections: dict[str, list[str]] = {}
    text = files("echo.training").joinpath("data", file).read_text(encoding="utf-8")
    current: list[str] = []
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            current = sections.setdefault(line.strip("[]"), [])
        elif line:
            current.append(line)
    return sections


def _entries(lines: list[str]) -> list[str]:
    return [entry.strip() for entry in " ".join(lines).split(",") if entry.strip()]


def _regular(entry: str) -> tuple[str, str, str, str, str]:
    verb, double = entry.rstrip("-"), entry.endswith("-")
    past = _with_ed(verb, double=double)
    return verb, _with_s(verb), past, past, _with_ing(verb, double=double)


def _irregular(base: str, past: str, participle: str) -> tuple[str, str, str, str, str]:
    double = _SHORT_VOWEL.fullmatch(base) is not None
    third = "has" if base == "have" else _with_s(base)
    return base, third, past, participle, _with_ing(base, double=double)


def _plural(noun: str) -> str:
    return _IRREGULAR_PLURALS.get(noun) or _with_s(noun)


def _with_s(word: str) -> str:
    if word.endswith(("quiz", "whiz")):
        return f"{word}zes"
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
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
