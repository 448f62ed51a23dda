"""Judging speech by machine: is it understood, in whose voice, does it end, is the end silent?

The same trials are put to anything that speaks (the teacher, the codec, the finished engine), and
each figure stands beside the teacher's on the same sentences and beside chance.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from echo.audio.resample import Samples
from echo.audio.vad import SpeechDetector
from echo.spec import SAMPLE_RATE
from echo.text.normalize import normalize
from echo.training.catalogue import VOICES
from echo.training.corpus import say
from echo.training.heldout import GENERAL_SENTENCES
from echo.training.measure import longest_pause_ms, median_f0, speech_end_seconds, tail_dbfs
from echo.training.recognise import Recogniser, WordErrors, nearest, word_errors
from echo.training.slots import slot_sentence

Kind = Literal["slots", "choice"]
Split = Literal["tuning", "final"]
Speak = Callable[[str, str], Samples]  # text, voice name -> [T] float32 at 44.1 kHz

CHOICES = 20  # sentences to tell apart
END_TOLERANCE_SECONDS = 0.3
F0_TOLERANCE = 0.15
LONGEST_FACTOR = 1.5  # of the expected length, and half a second: more than its text could take


@dataclass(frozen=True)
class Trial:
    """One sentence for one voice."""

    text: str  # with [S1], as the engine would tokenise it
    voice: str
    kind: Kind


@dataclass(frozen=True)
class Verdict:
    """What was heard and measured in one recording."""

    heard: str
    errors: WordErrors
    understood: bool  # all words; for a choice, that sentence and no other
    f0_hz: float
    seconds: float  # length of the audio
    end_seconds: float  # of the last sound
    tail_dbfs: float
    pause_ms: float  # the longest


@dataclass(frozen=True)
class WordErrorReport:
    """Word error rate with what it must be compared with."""

    sentences: int
    words: int
    rate: float
    chance: float  # of what was heard against another trial's sentence
    teacher: float | None  # of the synthesiser on the same sentences


@dataclass(frozen=True)
class VoiceReport:
    """One voice, or all of them together, on all trials."""

    voice: str
    slots: WordErrorReport
    choice_accuracy: float
    choice_sentences: int
    f0_hz: float  # median over the trials
    reference_f0_hz: float
    ends_on_time: float  # share within END_TOLERANCE_SECONDS of the teacher's
    too_long: int  # outputs longer than their text could take
    loudest_tail_dbfs: float
    longest_pause_ms: float

    @property
    def f0_ratio(self) -> float:
        """Output over reference."""
        return self.f0_hz / self.reference_f0_hz if self.reference_f0_hz else 0.0


@dataclass(frozen=True)
class JudgeReport:
    """``total`` over all ``voices``. F0 of the total is the one farthest off."""

    total: VoiceReport
    voices: tuple[VoiceReport, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def table(self) -> str:
        """A Markdown table, one line per voice and one for all."""
        head = (
            "| voice | word error (slots) | teacher | chance | closed choice | F0 out / ref Hz "
            "| end within 0.3 s | too long | loudest tail dBFS |\n" + "| --- " * 9 + "|\n"
        )
        return head + "".join(_line(report) for report in (*self.voices, self.total))


def held_out_trials(
    voices: Sequence[str],
    *,
    slot_sentences: int,
    split: Split = "final",
    choices: int = CHOICES,
    seed: int = 0,
) -> list[Trial]:
    """Trials for each of ``voices``: its share of ``slot_sentences``, then ``choices`` sentences.

    None of the sentences is in a corpus. The splits share no general sentence and draw their slot
    sentences apart: tune on one, report the other.
    """
    rng = random.Random(f"judge/{split}/{seed}")
    general = _choices(split)[:choices]
    trials: list[Trial] = []
    for index, voice in enumerate(voices):
        share = len(range(index, slot_sentences, len(voices)))
        texts: dict[str, None] = {}
        while len(texts) < share:
            texts[slot_sentence(rng, held_out=True)] = None
        trials += [Trial(_tokenised(text), voice, "slots") for text in texts]
        trials += [Trial(_tokenised(text), voice, "choice") for text in general]
    return trials


def judge_audio(samples: Samples, sample_rate: int, expected: str, kind: Kind) -> Verdict:
    """Listen to [T] float32 at ``sample_rate`` Hz that should say ``expected``.

    ``kind``: ``slots`` for a sentence of the slot grammar, ``choice`` for one of
    :data:`GENERAL_SENTENCES`, to be told from the nineteen others of its split.
    """
    text = expected.removeprefix("[S1] ")
    if kind == "slots":
        heard = _slot_recogniser().transcribe(samples, sample_rate)
        errors = word_errors(text, heard)
        understood = errors.errors == 0
    else:
        split: Split = "tuning" if text in map(_plain, _choices("tuning")) else "final"
        transcript = _choice_recogniser(split).transcribe(samples, sample_rate)
        heard = nearest(_choices(split), transcript) or ""
        errors = word_errors(text, transcript)
        understood = word_errors(text, heard).errors == 0
    return Verdict(
        heard=heard,
        errors=errors,
        understood=understood,
        f0_hz=median_f0(samples, sample_rate),
        seconds=samples.size / sample_rate,
        end_seconds=speech_end_seconds(samples, sample_rate),
        tail_dbfs=tail_dbfs(samples, sample_rate),
        pause_ms=longest_pause_ms(samples, sample_rate, _detector()),
    )


def judge_speaker(
    speak: Speak,
    trials: Sequence[Trial],
    *,
    reference_f0: dict[str, float] | None = None,
    progress: Callable[[str], None] | None = None,
) -> JudgeReport:
    """Have ``speak`` say all ``trials`` and report, by voice and in total.

    ``reference_f0`` in Hz by voice; without it the teacher's own. The teacher says every trial
    too, so voices must be of the catalogue.
    """
    outcomes = []
    for number, trial in enumerate(trials, 1):
        verdict = judge_audio(speak(trial.text, trial.voice), SAMPLE_RATE, trial.text, trial.kind)
        outcomes.append(_Outcome(trial, verdict, teacher_verdict(trial)))
        if progress and (number % 20 == 0 or number == len(trials)):
            progress(f"{number}/{len(trials)} trials, {_word_errors(outcomes).rate:.3f} word error")
    voices = tuple(
        _report(voice, [o for o in outcomes if o.trial.voice == voice], reference_f0)
        for voice in dict.fromkeys(trial.voice for trial in trials)
    )
    return JudgeReport(_total(outcomes, voices), voices)


def teach(text: str, voice: str) -> Samples:
    """The teacher as a :data:`Speak`; voices by their names in the catalogue."""
    return say(text, [known.name for known in VOICES].index(voice)).samples


@functools.lru_cache(maxsize=4096)
def teacher_verdict(trial: Trial) -> Verdict:
    """The teacher's own verdict on a trial, remembered: all stages are judged by the same ones."""
    return judge_audio(teach(trial.text, trial.voice), SAMPLE_RATE, trial.text, trial.kind)


@dataclass(frozen=True)
class _Outcome:
    trial: Trial
    verdict: Verdict
    teacher: Verdict


def _report(
    voice: str, outcomes: Sequence[_Outcome], reference_f0: dict[str, float] | None
) -> VoiceReport:
    choices = [o for o in outcomes if o.trial.kind == "choice"]
    reference = _median([o.teacher.f0_hz for o in outcomes])
    if reference_f0 is not None and voice in reference_f0:
        reference = reference_f0[voice]
    late = [abs(o.verdict.end_seconds - o.teacher.end_seconds) for o in outcomes]
    return VoiceReport(
        voice=voice,
        slots=_word_error_report([o for o in outcomes if o.trial.kind == "slots"]),
        choice_accuracy=sum(o.verdict.understood for o in choices) / max(1, len(choices)),
        choice_sentences=len(choices),
        f0_hz=_median([o.verdict.f0_hz for o in outcomes]),
        reference_f0_hz=reference,
        ends_on_time=sum(s <= END_TOLERANCE_SECONDS for s in late) / max(1, len(late)),
        too_long=sum(
            o.verdict.seconds > LONGEST_FACTOR * o.teacher.seconds + 0.5 for o in outcomes
        ),
        loudest_tail_dbfs=max((o.verdict.tail_dbfs for o in outcomes), default=-100.0),
        longest_pause_ms=max((o.verdict.pause_ms for o in outcomes), default=0.0),
    )


def _total(outcomes: Sequence[_Outcome], voices: Sequence[VoiceReport]) -> VoiceReport:
    total = asdict(_report("all", outcomes, None))
    worst = max(voices, key=lambda report: abs(report.f0_ratio - 1.0))
    total["slots"] = _word_error_report([o for o in outcomes if o.trial.kind == "slots"])
    total |= {"f0_hz": worst.f0_hz, "reference_f0_hz": worst.reference_f0_hz}
    return VoiceReport(**total)


def _word_error_report(outcomes: Sequence[_Outcome]) -> WordErrorReport:
    found = _word_errors(outcomes)
    others = [*outcomes[1:], *outcomes[:1]]
    chance = _sum(
        word_errors(_plain(other.trial.text), o.verdict.heard)
        for o, other in zip(outcomes, others, strict=True)
    )
    return WordErrorReport(
        sentences=len(outcomes),
        words=found.words,
        rate=found.rate,
        chance=chance.rate,
        teacher=_sum(o.teacher.errors for o in outcomes).rate if outcomes else None,
    )


def _word_errors(outcomes: Sequence[_Outcome]) -> WordErrors:
    return _sum(o.verdict.errors for o in outcomes if o.trial.kind == "slots")


def _sum(errors: Any) -> WordErrors:
    return functools.reduce(lambda a, b: a + b, errors, WordErrors(0, 0))


def _median(values: Sequence[float]) -> float:
    voiced = [value for value in values if value > 0.0]
    return float(np.median(voiced)) if voiced else 0.0


def _line(report: VoiceReport) -> str:
    slots = report.slots
    teacher = "" if slots.teacher is None else f"{slots.teacher:.3f}"
    return (
        f"| {report.voice} | {slots.rate:.3f} ({slots.sentences} sentences) | {teacher} "
        f"| {slots.chance:.2f} | {report.choice_accuracy:.2f} "
        f"| {report.f0_hz:.0f} / {report.reference_f0_hz:.0f} | {report.ends_on_time:.0%} "
        f"| {report.too_long} | {report.loudest_tail_dbfs:.0f} |\n"
    )


def _choices(split: Split) -> tuple[str, ...]:
    return GENERAL_SENTENCES[:CHOICES] if split == "final" else GENERAL_SENTENCES[CHOICES:]


def _tokenised(text: str) -> str:
    return normalize(text, exclamation=True).text


def _plain(text: str) -> str:
    return _tokenised(text).removeprefix("[S1] ")


@functools.cache
def _slot_recogniser() -> Recogniser:
    return Recogniser.of_slots()


@functools.cache
def _choice_recogniser(split: Split) -> Recogniser:
    return Recogniser.of_choice(_choices(split))


@functools.cache
def _detector() -> SpeechDetector:
    return SpeechDetector()
