from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echo.api.inworld.timestamps import (
    SpeechFinder,
    TimedWord,
    WordClock,
    character_info,
    word_info,
    words_of,
)

from .conftest import audio_of, lines_of

WORD = ("words", "wordStartTimeSeconds", "wordEndTimeSeconds")
PCM = {"audioEncoding": "PCM", "sampleRateHertz": 44_100}
SECONDS = 8 * 2048 / 44_100


def test_words_fill_the_speech_in_proportion_to_their_letters():
    timed = WordClock(["one", "seven77"]).take([(1.0, 2.0), (3.0, 5.0)], last=True)
    assert timed == [TimedWord("one", 1.0, 2.0), TimedWord("seven77", 3.0, 5.0)]


def test_a_part_that_is_not_the_last_takes_what_fits_at_the_usual_pace():
    clock = WordClock(["word"] * 20)
    first = clock.take([(0.0, 1.5)], last=False)
    assert len(first) == 4  # 21 characters, 5 a word
    assert first[-1].end <= 1.5
    rest = clock.take([(1.5, 4.0)], last=True)
    assert len(rest) == 16
    assert rest[0].start == 1.5
    assert rest[-1].end == pytest.approx(4.0)
    assert clock.take([(4.0, 5.0)], last=True) == []


SPANS = st.lists(st.floats(0.01, 3), max_size=8).map(
    lambda lengths: [
        (sum(lengths[: 2 * i + 1]), sum(lengths[: 2 * i + 2])) for i in range(len(lengths) // 2)
    ]
)


@given(st.lists(st.text("abc", min_size=1, max_size=9), max_size=12), SPANS, st.booleans())
def test_times_are_ordered_and_in_the_speech(words, spans, last):
    timed = WordClock(words).take(spans, last=last)
    assert [t.word for t in timed] == (words if last else words[: len(timed)])
    times = [time for t in timed for time in (t.start, t.end)]
    assert times == pytest.approx(sorted(times))
    if spans and times:
        assert spans[0][0] - 1e-6 <= times[0]
        assert times[-1] <= spans[-1][1] + 1e-6


def test_words_are_told_as_they_were_written():
    chunks = ["[S1] hello there, [S2] you.", "[S2] Good bye."]
    written = "HELLO there: [S2] “you”. - Good bye!"
    assert words_of(written, chunks) == [["HELLO", "there:", "“you”."], ["Good", "bye!"]]
    assert words_of("3*4 is it", ["[S1] 3 times 4 is it"]) == [["3", "times", "4", "is", "it"]]


def test_characters_and_spaces_follow_each_other():
    words = [TimedWord("ab", 0.0, 1.0), TimedWord("c", 2.0, 3.0)]
    assert character_info(words, first=True)["characterAlignment"] == {
        "characters": ["a", "b", " ", "c"],
        "characterStartTimeSeconds": [0.0, 0.5, 1.0, 2.0],
        "characterEndTimeSeconds": [0.5, 1.0, 2.0, 3.0],
    }
    assert character_info(words, first=False)["characterAlignment"]["characters"][0] == " "
    assert word_info([])["wordAlignment"] == {name: [] for name in WORD}


class Fake:
    """Hears speech in the middle half, and in which thread it was asked."""

    def __init__(self) -> None:
        self.threads: set[str] = {threading.current_thread().name}

    def speech_spans(self, samples, sample_rate):
        self.threads.add(threading.current_thread().name)
        length = len(samples) / sample_rate
        return [(length / 4, 3 * length / 4)] if samples.any() else []


def test_the_detector_lives_in_one_thread_and_silence_counts_whole():
    import asyncio

    fakes: list[Fake] = []

    def make() -> Fake:
        fakes.append(Fake())
        return fakes[-1]

    async def ask() -> list[list[tuple[float, float]]]:
        finder = SpeechFinder(make)
        loud, quiet = np.ones(8000, np.float32), np.zeros(8000, np.float32)
        return await asyncio.gather(*(finder.spans(s, 8000) for s in (loud, quiet, loud)))

    spans = asyncio.run(ask())
    assert spans == [[(0.25, 0.75)], [(0.0, 1.0)], [(0.25, 0.75)]]
    assert len(fakes) == 1
    assert len(fakes[0].threads) == 1
    assert threading.current_thread().name not in fakes[0].threads


def told(running, path="/tts/v1/voice", **fields):
    body = {"text": "Hello there, you.", "voiceId": "anna", "audioConfig": PCM, **fields}
    return running.client.post(path, json=body)


def test_a_whole_reply_times_every_word(running):
    info = told(running, timestampType="WORD").json()["timestampInfo"]["wordAlignment"]
    assert info["words"] == ["Hello", "there,", "you."]
    assert len({len(info[name]) for name in WORD}) == 1
    assert info["wordStartTimeSeconds"][0] >= 0
    assert info["wordEndTimeSeconds"][-1] <= SECONDS + 0.01
    assert set(told(running, timestampType="WORD").json()["timestampInfo"]) == {"wordAlignment"}


def test_a_whole_reply_times_every_character(running):
    info = told(running, timestampType="CHARACTER").json()["timestampInfo"]
    arrays = info["characterAlignment"]
    assert "".join(arrays["characters"]) == "Hello there, you."
    assert len({len(values) for values in arrays.values()}) == 1


def test_times_are_told_only_when_asked_for(running):
    for kind in (None, "TIMESTAMP_TYPE_UNSPECIFIED"):
        assert "timestampInfo" not in told(running, timestampType=kind).json()
        lines = lines_of(told(running, "/tts/v1/voice:stream", timestampType=kind))
        assert all("timestampInfo" not in line["result"] for line in lines)


def test_pauses_and_speed_move_the_words(running):
    text = 'Hello. <break time="2s"/> There.'
    config = {**PCM, "speakingRate": 0.5}
    reply = told(running, text=text, audioConfig=config, timestampType="WORD").json()
    starts = reply["timestampInfo"]["wordAlignment"]["wordStartTimeSeconds"]
    assert starts[1] >= 2 + 2 * SECONDS - 0.05
    ends = reply["timestampInfo"]["wordAlignment"]["wordEndTimeSeconds"]
    assert ends[1] <= len(audio_of(reply)) / 2 / 44_100 + 0.1


@pytest.mark.parametrize("strategy", ["SYNC", "ASYNC"])
def test_a_stream_tells_all_words_once_in_order(run, strategy):
    text = "Hello there, this is a longer text of quite a few words."
    shape = ("preset.block_sizes=[32,32,32]", "preset.num_steps=[1,1,1]")
    with run(*shape) as running:
        reply = told(
            running,
            "/tts/v1/voice:stream",
            text=text,
            timestampType="WORD",
            timestampTransportStrategy=strategy,
        )
        lines = [json.loads(line)["result"] for line in reply.text.splitlines()]
    at, words, ends = 0.0, [], []
    for line in lines:
        info = line.get("timestampInfo", {}).get("wordAlignment")
        begin, at = at, at + len(audio_of(line)) / 2 / 44_100
        if info is None:
            continue
        words += info["words"]
        ends += info["wordEndTimeSeconds"]
        if strategy == "SYNC" and info["words"]:
            assert begin - 0.01 <= info["wordStartTimeSeconds"][0]
        else:
            assert strategy == "SYNC" or line["audioContent"] == ""
        # A word that begins in a part may end in the next.
        assert all(start <= at + 0.01 for start in info["wordStartTimeSeconds"])
    assert " ".join(words) == text
    assert ends == sorted(ends)
    assert ends[-1] <= at + 0.01
