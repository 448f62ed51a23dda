"""The shipped voices: the catalogue's speakers, each reading a text of its own, as FLAC.

``python -m echo.training.voices [FOLDER]`` writes them, and their licence, to ``audio_prompts``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from echo.audio.encode import encode_file
from echo.spec import SAMPLE_RATE
from echo.text.normalize import normalize
from echo.training.catalogue import VOICES
from echo.training.corpus import say

DEFAULT_VOICE = VOICES[0].name

# One clip is a file, several are a folder.
CLIPS: dict[str, tuple[str, ...]] = {
    "clara": (
        "Good morning. The bakery on the corner opens at seven, and the first loaves are still "
        "warm. If you come early, you can watch the bakers at work behind the long window.",
    ),
    "oscar": (
        "My boat is forty years old, and I have painted it every spring. The harbor is quiet in "
        "winter. Then I sit in the cabin, read the newspaper and listen to the wind.",
    ),
    "iris": (
        "Quick, put on your boots! The river has frozen over, and everybody is already there with "
        "their skates. Bring some gloves, a hot drink, and your camera if it still works.",
    ),
    "bruno": (
        "The museum was built three hundred years ago. On the ground floor you will find maps and "
        "old clocks, and upstairs there is a room with nothing but giant butterflies.",
    ),
    "nora": (
        "There was once a garden where nobody was allowed to hurry. Even the snails were patient.",
        "Every visitor got a chair, a cup of hot tea, and as much time as they needed.",
    ),
    "felix": (
        "Welcome to the evening show. We have music from five countries, a lawyer who juggles, and "
        "a quiz with twelve questions. The winner gets a bicycle, and the others get cake.",
    ),
}

LICENCE = """\
The recordings in this folder
=============================

They were made for Echo with the speech synthesiser espeak-ng, from texts written for Echo. No
human voice was recorded, and none is imitated. "python -m echo.training.voices" makes them again.

Free for any use: you may copy, change, publish and sell them, with or without naming the source,
without asking. They come without warranty of any kind.
"""


@dataclass(frozen=True)
class VoiceFile:
    """A clip that was written."""

    path: Path
    voice: str
    seconds: float


def build_voices(out_dir: Path) -> list[VoiceFile]:
    """Write every voice of :data:`CLIPS` and ``LICENSE`` into ``out_dir``; 44.1 kHz mono FLAC.

    A voice with several clips becomes a folder of them. What is there under the same names is
    replaced; the same espeak-ng gives the same files.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    names = [voice.name for voice in VOICES]
    written = []
    for voice, texts in CLIPS.items():
        for number, text in enumerate(texts, 1):
            path = out_dir / f"{voice}.flac"
            if len(texts) > 1:
                path = out_dir / voice / f"{number:02d}.flac"
                path.parent.mkdir(exist_ok=True)
            samples = say(normalize(text, exclamation=True).text, names.index(voice)).samples
            path.write_bytes(encode_file(samples, SAMPLE_RATE, "flac"))
            written.append(VoiceFile(path, voice, samples.size / SAMPLE_RATE))
    (out_dir / "LICENSE").write_text(LICENCE, encoding="utf-8")
    return written


def main(arguments: list[str]) -> int:
    """Write the voices and list them."""
    for file in build_voices(Path(arguments[0] if arguments else "audio_prompts")):
        sys.stdout.write(f"{file.path}  {file.seconds:.1f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
