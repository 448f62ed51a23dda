"""The speakers: espeak-ng voices that a recogniser understands, apart in pitch and speed.

Chosen among the English variants by measurement: pocketsphinx on the slot grammar gets 0 to 0.05
of their words wrong (of Andy, Annie, Jacky, Lee, Michael, ian, boris: 0.2 to 0.8). The accent is
the same for all, so that a spelling has one sound.
"""

from __future__ import annotations

from echo.training.espeak import EspeakVoice

VOICES: tuple[EspeakVoice, ...] = (
    EspeakVoice("clara", "en-us+f5", rate=170, pitch=35, pitch_range=30),
    EspeakVoice("oscar", "en-us+edward", rate=165, pitch=48, pitch_range=30),
    EspeakVoice("iris", "en-us+f2", rate=190, pitch=64, pitch_range=30),
    EspeakVoice("bruno", "en-us+adam", rate=170, pitch=28, pitch_range=30),
    EspeakVoice("nora", "en-us+f2", rate=145, pitch=53, pitch_range=30),
    EspeakVoice("felix", "en-us+adam", rate=195, pitch=84, pitch_range=30),
)

# Never shipped: speakers in between, so that a reference is listened to and not just recognised.
PASSERS_BY: tuple[EspeakVoice, ...] = tuple(
    EspeakVoice(f"{base.removeprefix('en-us+')}-{pitch}", base, rate, pitch, pitch_range=30)
    for base, pitches in (
        ("en-us+adam", (40, 56, 70, 77, 98)),
        ("en-us+edward", (30, 60, 74, 88)),
        ("en-us+f5", (4, 16, 26, 44, 54)),
        ("en-us+f2", (8, 20, 32, 43, 72)),
    )
    for pitch, rate in zip(pitches, (150, 180, 165, 195, 172), strict=False)
)
