"""A small grammar of common words: what the judge can recognise, and what is kept for it.

One word for each slot, twenty for each of four, the adverb optional. A guess gets one word in
twenty right, so the chance level of the word error rate is near 1.
"""

from __future__ import annotations

import random

SLOTS: tuple[tuple[str, ...], ...] = tuple(
    tuple(words.split())
    for words in (
        """teachers farmers doctors children students scientists painters neighbors soldiers dancers
        women drivers robots monkeys lawyers singers brothers elephants visitors grandparents""",
        """carried painted followed opened borrowed remembered collected delivered discovered
        forgot noticed repaired purchased ordered avoided described protected welcomed finished
        imagined""",
        """windows bottles flowers blankets baskets hammers candles rivers apples vegetables letters
        gardens bicycles mirrors kitchens umbrellas buttons chickens mountains newspapers""",
        """yesterday quickly again together sometimes carefully outside tomorrow happily everywhere
        tonight already slowly suddenly secretly afterwards forever upstairs politely anyway""",
    )
)
_HELD_OUT_OF = 4  # one in four combinations of subject, verb and object is never trained on


def slot_sentence(rng: random.Random, *, held_out: bool) -> str:
    """A sentence of three or four slots, e.g. ``Farmers opened bottles again.``

    Sentences with ``held_out`` and without never share subject, verb and object; each word and
    each pair of words occurs in both.
    """
    while True:
        picks = [rng.randrange(len(slot)) for slot in SLOTS]
        if (sum(picks[:3]) % _HELD_OUT_OF == 0) == held_out:
            break
    count = 3 if rng.random() < 0.25 else 4
    words = [slot[pick] for slot, pick in zip(SLOTS, picks, strict=True)][:count]
    return " ".join(words).capitalize() + "."


def jsgf() -> str:
    """The grammar in the format of speech recognisers (JSpeech Grammar Format)."""
    subject, verb, object_, adverb = ("(" + " | ".join(slot) + ")" for slot in SLOTS)
    return (
        "#JSGF V1.0;\ngrammar slots;\n"
        f"public <sentence> = {subject} {verb} {object_} [ {adverb} ];\n"
    )
