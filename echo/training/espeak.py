"""The teacher: espeak-ng by way of its C library, with the time of each word and phoneme.

The library and its data come from the package ``espeakng-loader``; nothing is installed.
Functions and structures follow espeak-ng's ``speak_lib.h``.
"""

from __future__ import annotations

import _ctypes
import ctypes
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from echo.audio.resample import Samples
from echo.errors import ConfigError, GenerationError

_SYNCHRONOUS = 2  # espeak_AUDIO_OUTPUT: to the callback, before espeak_Synth returns
_PHONEME_EVENTS = 0x0001
_DONT_EXIT = 0x8000
_UTF8 = 1
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_END_OF_LIST, _WORD, _PHONEME = 0, 1, 7  # espeak_EVENT_TYPE
_OK = 0


@dataclass(frozen=True)
class EspeakVoice:
    """One speaker: an espeak-ng voice (``en-us+f3``) and how it is spoken."""

    name: str
    espeak: str
    rate: int  # words per minute, 80 to 450
    pitch: int  # 0 to 99, 50 is the voice's own
    pitch_range: int  # 0 (monotone) to 99, 50 is the voice's own


@dataclass(frozen=True)
class PhoneEvent:
    """A phoneme's start and end in seconds, and the character of the text it was read from."""

    start: float
    end: float
    char: int


@dataclass(frozen=True)
class Utterance:
    """``samples``: [T] float32 in -1..1 at ``sample_rate`` Hz; ``phones`` in order of time."""

    samples: Samples
    sample_rate: int
    phones: tuple[PhoneEvent, ...]


def speak(text: str, voice: EspeakVoice) -> Utterance:
    """``text`` (ASCII) in ``voice``, with the pauses that espeak-ng puts around it.

    The same text and voice give the same samples. Not for several threads at once: the library
    keeps its state in globals; separate processes are fine. Raises :class:`ConfigError` for an
    unknown voice or a missing package, :class:`GenerationError` where there is no sound.
    """
    with _Synthesiser() as synthesiser:
        synthesiser.select(voice)
        return synthesiser.speak(text)


class _Synthesiser:
    """A fresh copy of the library, unloaded again at the end.

    It takes a millisecond. A copy that has spoken before goes on with the phase of its voice's
    flutter, which nothing in its interface resets, and says the same text a little differently.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise ConfigError(
                "the corpus needs espeak-ng; install the extra: pip install 'echo-tts[train]'"
            ) from error
        self._library = _typed(ctypes.CDLL(espeakng_loader.get_library_path()))
        data = espeakng_loader.get_data_path().encode()
        options = _PHONEME_EVENTS | _DONT_EXIT
        self._rate: int = self._library.espeak_Initialize(_SYNCHRONOUS, 200, data, options)
        if self._rate <= 0:
            raise ConfigError(f"espeak-ng does not start with the data in {data.decode()}")
        self._parts: list[npt.NDArray[np.int16]] = []
        self._marks: list[_Mark] = []
        # Kept: the library calls it for as long as it lives.
        self._callback = _CALLBACK(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def __enter__(self) -> _Synthesiser:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)

    def select(self, voice: EspeakVoice) -> None:
        if self._library.espeak_SetVoiceByName(voice.espeak.encode()) != _OK:
            raise ConfigError(f"espeak-ng has no voice {voice.espeak!r}", param="voices")
        for parameter, value in (
            (_RATE, voice.rate),
            (_PITCH, voice.pitch),
            (_RANGE, voice.pitch_range),
        ):
            self._library.espeak_SetParameter(parameter, value, 0)

    def speak(self, text: str) -> Utterance:
        self._library.espeak_ng_SetRandSeed(1)  # of breath and noise; by default the clock's
        data = text.encode("ascii")
        status = self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        if status != _OK or not self._parts:
            raise GenerationError(f"espeak-ng said nothing for {text!r} (status {status})")
        samples = np.concatenate(self._parts).astype(np.float32) / 32768.0
        return Utterance(samples, self._rate, tuple(_phones(self._marks, self._rate, text)))

    def _receive(self, wave: Any, count: int, events: Any) -> int:
        if wave and count > 0:
            pointer = ctypes.cast(wave, ctypes.POINTER(ctypes.c_int16))
            self._parts.append(np.ctypeslib.as_array(pointer, (count,)).copy())
        index = 0
        while events[index].type != _END_OF_LIST:
            event = events[index]
            mark = _Mark(event.type, event.sample, event.text_position - 1, event.length)
            self._marks.append(mark)
            index += 1
        return 0


class _Mark(NamedTuple):
    kind: int
    sample: int
    char: int  # of a word: its first; of a phoneme: its word's first, or where the clause ends
    length: int  # of a word, in characters


def _phones(marks: list[_Mark], sample_rate: int, text: str) -> list[PhoneEvent]:
    """The sounds of each word, spread evenly over its letters; pauses go to the punctuation."""
    phones: list[PhoneEvent] = []
    sounding = [mark for mark in marks if mark.kind in (_WORD, _PHONEME)]
    words = [index for index, mark in enumerate(sounding) if mark.kind == _WORD]
    for start, stop in zip(words, [*words[1:], len(sounding)], strict=True):
        word, sounds = sounding[start], sounding[start + 1 : stop]
        spoken = sum(mark.char <= word.char for mark in sounds)
        times = [mark.sample / sample_rate for mark in sounds]
        times.append(sounding[stop].sample / sample_rate if stop < len(sounding) else times[-1])
        for index, mark in enumerate(sounds):
            if index < spoken:
                char = word.char + index * word.length // spoken
            else:
                char = len(text[: mark.char + 1].rstrip()) - 1
            if times[index + 1] > times[index]:
                char = min(max(char, 0), len(text) - 1)
                phones.append(PhoneEvent(times[index], times[index + 1], char))
    return phones


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    integer, text, pointer = ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p
    library.espeak_Initialize.argtypes = [integer, integer, text, integer]
    library.espeak_SetSynthCallback.argtypes = [_CALLBACK]
    library.espeak_SetSynthCallback.restype = None
    library.espeak_SetVoiceByName.argtypes = [text]
    library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
    library.espeak_SetParameter.argtypes = [integer, integer, integer]
    library.espeak_Synth.argtypes = [
        text,
        ctypes.c_size_t,
        ctypes.c_uint,
        integer,
        ctypes.c_uint,
        ctypes.c_uint,
        pointer,
        pointer,
    ]
    return library
