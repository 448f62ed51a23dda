"""Texts to try a voice with, by category. All written for this page."""

from __future__ import annotations

TEXTS: dict[str, tuple[str, ...]] = {
    "Everyday": (
        "Good morning! The kettle is on, and the rain has finally stopped.",
        "I left the keys under the blue flowerpot. No, the other blue one.",
        "Could you pick up bread, two lemons and something nice for Sunday?",
    ),
    "Two speakers": (
        "[S1] Did you hear that? [S2] It was only the wind. (laughs) Come in, sit down.",
        "[S1] You said five minutes. [S2] I said about five minutes. [S1] It is nearly dark!",
    ),
    "Feelings": (
        "(sighs) I wrote that letter three times, and then I never sent it.",
        "We won? (laughs) We actually won! Somebody pinch me, I do not believe it.",
        "(whispers) Quiet now. She fell asleep at last, right in the middle of the story.",
    ),
    "Numbers and names": (
        "At 7:45 p.m. the last ferry leaves; if we miss it, we wait until tomorrow.",
        "Dr. Lane paid 3.50 for the map, No. 12, and walked 4 km to St. Agnes.",
        "Your code is 4 0 7 1. It is valid until March 3rd, 2031.",
    ),
    "Announcements": (
        "Platform two: the train to the coast is delayed by ten minutes. Mind the gap.",
        "This is a test of the evening broadcast. If you can hear it, no action is needed.",
    ),
    "Hard to say": (
        "Six sleek swans swam swiftly southwards past the thistle patch.",
        "A rural brewer rarely hires a squirrel, particularly a statistically literate one.",
    ),
    "A story": (
        "Once there was a lighthouse keeper who read the weather aloud every evening. Nobody had "
        "asked her to. But the fishermen left their windows open, and in winter, when no boat "
        "went out, they listened all the same. One night the lamp failed. She read on, louder "
        "than before, and three boats found the harbour by the sound of her voice. Since then "
        "the lamp has been repaired twice. The weather is still read aloud.",
    ),
}
SHOWN_CHARS = 48


def text_choices() -> list[tuple[str, str]]:
    """(what is shown, the text) of each, for a drop-down."""
    return [(f"{name} · {_short(text)}", text) for name, texts in TEXTS.items() for text in texts]


def _short(text: str) -> str:
    if len(text) <= SHOWN_CHARS:
        return text
    return text[:SHOWN_CHARS].rsplit(" ", 1)[0].rstrip(",.;:") + " …"
