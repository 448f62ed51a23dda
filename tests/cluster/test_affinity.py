from __future__ import annotations

import json
from collections import Counter

import pytest

from echo.cluster.affinity import in_order, voice_key

REPLICAS = [f"replica{number}" for number in range(8)]


def key(**fields: object) -> str | None:
    return voice_key(json.dumps(fields).encode())


@pytest.mark.parametrize(
    "fields",
    [
        {"voice": "my voice"},
        {"voice": "My Voice.WAV"},
        {"voice": {"id": "myvoice"}},
        {"voiceId": " myvoice "},
        {"voice_id": "MYVOICE"},
        {"voice": None, "voiceId": "myvoice"},
    ],
)
def test_spellings_of_one_voice_have_one_key(fields):
    assert key(**fields) == key(voice="myvoice")


def test_other_voices_have_other_keys_and_no_voice_is_one_too():
    assert len({key(voice="anna"), key(voice="otto"), key(), key(voice="UklGR" * 100)}) == 4
    assert key(input="a") == key(input="b", seed=7)


def test_a_key_tells_nothing_of_what_was_sent_and_fits_into_a_header():
    sent = key(voice="Zoë\r\nx-evil: 1")
    assert sent is not None
    assert len(sent) == 16
    assert sent.isalnum()


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b'{"voice": 7}', b"[" * 100_000])
def test_what_cannot_be_read_has_no_key(body):
    assert voice_key(body) is None


def test_a_voice_has_one_home_whatever_the_order_of_the_replicas():
    first = in_order("voice", REPLICAS, {}, 1.25)
    assert sorted(first) == REPLICAS
    assert in_order("voice", REPLICAS[::-1], {}, 1.25) == first


def test_voices_are_dealt_over_all_replicas():
    homes = Counter(in_order(f"voice {n}", REPLICAS, {}, 1.25)[0] for n in range(800))
    assert set(homes) == set(REPLICAS)
    assert max(homes.values()) < 150


def test_a_replica_more_takes_its_share_of_the_voices_and_moves_no_other():
    voices = [f"voice {number}" for number in range(800)]
    before = {voice: in_order(voice, REPLICAS, {}, 1.25)[0] for voice in voices}
    after = {voice: in_order(voice, [*REPLICAS, "new"], {}, 1.25)[0] for voice in voices}
    moved = [voice for voice in voices if before[voice] != after[voice]]
    assert {after[voice] for voice in moved} == {"new"}
    assert 50 < len(moved) < 130


def test_a_replica_with_its_share_leaves_the_voice_to_the_next():
    home, second, *_ = in_order("voice", REPLICAS, {}, 1.25)
    loads = dict.fromkeys(REPLICAS, 4)
    assert in_order("voice", REPLICAS, loads, 1.25)[0] == home
    assert in_order("voice", REPLICAS, loads | {home: 6}, 1.25)[0] == second
    assert in_order("voice", REPLICAS, loads | {home: 6}, 2.0)[0] == home
    assert in_order("voice", REPLICAS, loads | {home: 6}, 1.25)[-1] == home


def test_a_voice_that_all_want_spreads_and_gives_nobody_more_than_the_share():
    loads = dict.fromkeys(REPLICAS, 0)
    for _ in range(80):
        loads[in_order("voice", REPLICAS, loads, 1.25)[0]] += 1
    assert sum(load > 0 for load in loads.values()) >= 7
    assert max(loads.values()) == 13  # 1.25 times the mean


def test_without_replicas_there_is_no_order():
    assert in_order("voice", [], {}, 1.25) == []
