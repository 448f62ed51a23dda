"""Seeded hostile input: values, JSON texts, audio files and WebSocket frames."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from echo.audio.encode import encode_file

STRINGS: tuple[str, ...] = (
    *("", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\u202e", "\ufeff", "\x1b[2J", "\r\n\r\n"),
    *("e" + "\u0301" * 500, "\U0001f600" * 40, "ﷺ" * 30, "𝔄" * 30, "\u2028", "١٢٣", "½ ⅷ ㎏"),
    *("[S1]" * 60, "[S2]", "[S9] x", "(laughs)" * 20, "((((", "[happy", "*" * 300, "*a" * 300),
    *(
        "<break",
        '<break time="1e9s"/>',
        '<break time="-1s"/>',
        '<break time="99999999s"/>',
        "<" * 99,
    ),
    *("." * 400, "?!" * 200, "-" * 400, "…" * 99, "3.14159" * 30, "A.B.C." * 40, "WORD " * 40),
    *(
        "../../etc/passwd",
        "..\\..\\x",
        "%00",
        "%2e%2e",
        "/dev/zero",
        "file:///etc/passwd",
        "con.wav",
    ),
    *(
        "anna",
        "ANNA",
        "letter",
        "pair",
        "x" * 300,
        "default__x",
        "__",
        "a__",
        "workspaces/a/voices/b",
    ),
    *("data:", "data:audio/wav;base64,", "data:;base64,AAAA", "data:audio/wav,RIFF", "=" * 300),
    *("UklGRg==" * 40, "A" * 4001, "!" * 250, "-_" * 150, "AAA" * 101, "é" * 250, "pcm", "MP3"),
    *("Hello there.", "true", "null", "NaN", "1e309", "${jndi:ldap://x}", "{{7*7}}", "%n%s"),
)
NUMBERS: tuple[float, ...] = (
    *(0, -1, 1, 2, 7, 255, 640, 641, 8000, 24_000, 48_000, 2**31, 2**53, 2**63, 2**64, -(2**63)),
    *(10**30, -(10**400), 0.5, -0.0, 1e-320, 1e308, 1.5, 0.1, 4.0, float("nan"), float("inf")),
)


def value(rng: Random, depth: int = 0) -> Any:
    """Anything that JSON can hold, and some that it cannot."""
    kind = rng.randrange(10 if depth < 4 else 7)
    if kind < 3:
        return rng.choice(STRINGS)
    if kind < 5:
        return rng.choice(NUMBERS)
    if kind < 7:
        return rng.choice((True, False, None))
    if kind == 7:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 8:
        return {rng.choice(STRINGS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    return nested(rng.choice((3, 100, 250, 3000)))


class Raw(str):
    """JSON text to be put in as it is."""

    __slots__ = ()


def nested(levels: int) -> Raw:
    return Raw("[" * levels + "]" * levels)


def json_text(rng: Random, body: Any) -> bytes:
    """``body`` as JSON, in one of its spellings; sometimes damaged."""
    raws: list[str] = []

    def plain(item: Any) -> Any:
        if isinstance(item, Raw):
            raws.append(item)
            return f"@raw{len(raws) - 1}@"
        if isinstance(item, dict):
            return {key: plain(each) for key, each in item.items()}
        return [plain(each) for each in item] if isinstance(item, list) else item

    text = json.dumps(plain(body), ensure_ascii=rng.random() < 0.7)
    for index, raw in enumerate(raws):
        text = text.replace(f'"@raw{index}@"', raw)
    data = text.encode("utf-8", "surrogatepass")
    chance = rng.random()
    if chance < 0.1:
        return damaged(rng, data)
    if chance < 0.15:
        return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" " * 5000, b"\0")) + data
    if chance < 0.2:
        return data[:-1] + rng.choice((b',"input":"Hi."}', b',"a":1e999}', b",}", b"}" * 3))
    return data


def body(rng: Random, good: Mapping[str, Any], fields: Sequence[str]) -> dict[str, Any]:
    """``good`` with one to three fields changed, left out or added."""
    changed = dict(good)
    for _ in range(rng.randrange(1, 4)):
        name = rng.choice((*fields, *good, rng.choice(STRINGS)))
        chance = rng.random()
        if chance < 0.1:
            changed.pop(name, None)
        elif chance < 0.3 and isinstance(changed.get(name), dict) and changed[name]:
            inner = rng.choice(list(changed[name]))
            changed[name] = {**changed[name], inner: value(rng)}
        else:
            changed[name] = value(rng)
    return changed


def damaged(rng: Random, data: bytes) -> bytes:
    """With bytes changed, cut out, repeated or cut off."""
    broken = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        if not broken:
            break
        at = rng.randrange(len(broken))
        kind = rng.randrange(5)
        if kind == 0:
            broken[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            broken[at] = rng.choice((0, 0xFF, 0x7F, 0x80))
        elif kind == 2:
            del broken[at : at + rng.randrange(1, 50)]
        elif kind == 3:
            broken[at:at] = broken[at : at + rng.randrange(1, 50)]
        else:
            del broken[rng.randrange(at, len(broken)) :]
    return bytes(broken)


def clips() -> dict[str, bytes]:
    """Half a second in every format that can be sent."""
    t = np.arange(22_050, dtype=np.float32) / 44_100
    tone = 0.3 * np.sin(2 * np.pi * 300 * t)
    return {fmt: encode_file(tone, 44_100, fmt) for fmt in ("wav", "flac", "mp3", "ogg", "m4a")}


def audio(rng: Random, good: Mapping[str, bytes]) -> bytes:
    """One of the ``good`` files with damage, most of it in the header; or a WAV made to deceive."""
    chance = rng.random()
    if chance < 0.3:
        return wav(rng, good["wav"])
    data = good[rng.choice(list(good))]
    if chance < 0.45:
        return data[: rng.randrange(len(data))]
    if chance < 0.5:
        return data + rng.choice(list(good.values()))
    head = rng.choice((16, 64, 200, 1000))
    return damaged(rng, data[:head]) + data[head:]


def wav(rng: Random, good: bytes) -> bytes:
    """A header that lies: sizes, channels, rates, depths, kinds of samples."""
    samples = good[44 : 44 + rng.choice((0, 1, 7, 4000, 40_000))]
    if rng.random() < 0.3:
        samples = struct.pack("<f", rng.choice(NUMBERS[-3:])) * 10_000
    tag = rng.choice((0, 1, 1, 2, 3, 6, 7, 0x11, 0x55, 0xFFFE, 0xFFFF))
    channels = rng.choice((0, 1, 1, 2, 8, 9, 255, 65_535))
    rate = rng.choice((0, 1, 44_100, 44_100, 384_000, 2**31, 2**32 - 1))
    byte_rate = rng.choice((0, 1, 88_200, 2**32 - 1))
    align = rng.choice((0, 1, 2, 4, 65_535))
    bits = rng.choice((0, 1, 8, 16, 16, 24, 32, 64, 65_535))
    fmt = struct.pack("<HHIIHH", tag, channels, rate, byte_rate, align, bits)
    fmt += rng.choice((b"", b"", b"\x16\0" + bytes(22), b"\xff\xff"))
    stated = rng.choice((len(samples), len(samples), 0, 1, 2**31, 2**32 - 1))
    chunks = b"fmt " + struct.pack("<I", rng.choice((len(fmt), 16, 0, 2**32 - 1))) + fmt
    if rng.random() < 0.2:
        chunks += b"LIST" + struct.pack("<I", rng.choice((0, 4, 2**31))) + b"INFO"
    chunks += b"data" + struct.pack("<I", stated) + samples
    riff = rng.choice((b"RIFF", b"RIFF", b"RF64", b"RIFX"))
    return riff + struct.pack("<I", rng.choice((len(chunks) + 4, 0, 2**32 - 1))) + b"WAVE" + chunks


def base64_text(rng: Random, data: bytes) -> str:
    """In one of its spellings; sometimes damaged."""
    text = rng.choice((base64.b64encode, base64.urlsafe_b64encode))(data).decode()
    spell: Callable[[str], str] = rng.choice(
        (
            str,
            lambda t: "data:audio/wav;base64," + t,
            lambda t: t.rstrip("="),
            lambda t: "\n".join(t[i : i + 76] for i in range(0, len(t), 76)),
            lambda t: damaged(rng, t.encode()).decode("latin-1"),
            lambda t: t + rng.choice(STRINGS),
        )
    )
    return spell(text)


def frame(rng: Random, contexts: Sequence[str], good: Mapping[str, Any]) -> Any:
    """A WebSocket frame, more or less as it should be."""
    kinds = ("create", "send_text", "flush_context", "close_context", "cancel_context")
    kind = rng.choice((*kinds, "sendText", rng.choice(STRINGS)))
    inner: Any = {}
    if kind == "create":
        inner = (
            body(rng, good, ("voiceId", "modelId", "timestampType")) if rng.random() < 0.5 else good
        )
    elif "ext" in kind and kind[0] == "s":
        inner = {"text": rng.choice(STRINGS), "flush_context": rng.choice(({}, None, False, 7))}
    if rng.random() < 0.15:
        inner = value(rng)
    told: dict[str, Any] = {kind: inner}
    if rng.random() < 0.9:
        told["context_id"] = rng.choice(contexts) if rng.random() < 0.9 else value(rng)
    if rng.random() < 0.1:
        told[rng.choice(kinds)] = value(rng)
    return told
