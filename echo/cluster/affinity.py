"""Which replica a voice is at home at, so that it need not be encoded everywhere.

Rendezvous hashing with bounded loads: every proxy comes to the same order of replicas for a voice
without talking to the others, a replica more or less moves only its share of the voices, and a
voice that many ask for spreads to its next replicas as soon as the first has its share of the work
(Thaler and Ravishankar 1998; Mirrokni, Thorup and Zadimoghaddam 2018).
"""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence

SPEECH_PATHS = ("/v1/audio/speech", "/tts/v1/voice", "/tts/v1/voice:stream")

_FIELDS = ("voice", "voiceId", "voice_id")
_EXTENSIONS = (".wav", ".mp3", ".flac", ".m4a", ".ogg", ".opus")


def voice_key(body: bytes) -> str | None:
    """What stands for the voice that a speech request asks for; None if it can't be read.

    Equal for spellings that name one voice, and no word of it: it is sent as a header.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    voice = next((fields[name] for name in _FIELDS if fields.get(name) is not None), "")
    if isinstance(voice, Mapping):
        voice = voice.get("id")
    if not isinstance(voice, str):
        return None
    plain = "".join(unicodedata.normalize("NFC", voice).casefold().split())
    for extension in _EXTENSIONS:
        plain = plain.removesuffix(extension)
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def in_order(
    key: str, replicas: Sequence[str], loads: Mapping[str, int], slack: float
) -> list[str]:
    """``replicas`` (ids) in the order in which a request of the voice ``key`` tries them.

    ``loads``: requests in work at each. ``slack``: a replica takes so many times the mean; those
    that have as much come last.
    """
    if not replicas:
        return []
    mean = (sum(loads.get(replica, 0) for replica in replicas) + 1) / len(replicas)
    share = math.ceil(slack * mean)
    return sorted(replicas, key=lambda r: (loads.get(r, 0) >= share, _weight(key, r)))


def _weight(key: str, replica: str) -> bytes:
    return hashlib.blake2b(f"{key} {replica}".encode(), digest_size=8).digest()
