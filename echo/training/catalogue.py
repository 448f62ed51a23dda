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
# Who sounds much like a shipped voice speaks about as fast.
PASSERS_BY: tuple[EspeakVoice, ...] = tuple(
    EspeakVoice(f"{base.removeprefix('en-us+')}-{pitch}", base, rate, pitch, pitch_range=30)
    for base, speakers in (
        ("en-us+adam", ((40, 170), (56, 180), (70, 180), (77, 190), (98, 172))),
        ("en-us+edward", ((30, 168), (60, 168), (74, 165), (88, 195))),
        ("en-us+f5", ((4, 150), (16, 180), (26, 172), (44, 172), (54, 172))),
        ("en-us+f2", ((8, 150), (20, 180), (32, 165), (43, 150), (72, 190))),
    )
    for pitch, rate in speakers
)
