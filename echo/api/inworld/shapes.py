"""The replies of Inworld's protocol, as the OpenAPI description tells of them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from echo.api.errors import FlatError


class WordAlignment(BaseModel):
    """Arrays of equal length."""

    words: list[str]
    wordStartTimeSeconds: list[float]  # noqa: N815 - the protocol's names
    wordEndTimeSeconds: list[float]  # noqa: N815


class CharacterAlignment(BaseModel):
    """Arrays of equal length."""

    characters: list[str]
    characterStartTimeSeconds: list[float]  # noqa: N815
    characterEndTimeSeconds: list[float]  # noqa: N815


class TimestampInfo(BaseModel):
    """Approximate times, in seconds from the start of the audio: of words or of characters."""

    wordAlignment: WordAlignment | None = None  # noqa: N815
    characterAlignment: CharacterAlignment | None = None  # noqa: N815


class Usage(BaseModel):
    processedCharactersCount: int = Field(ge=0)  # noqa: N815
    modelId: str  # noqa: N815


class Speech(BaseModel):
    """``timestampInfo``: only if ``timestampType`` asked for it."""

    audioContent: str = Field(description="Base64.")  # noqa: N815
    timestampInfo: TimestampInfo | None = None  # noqa: N815
    usage: Usage


class SpeechLine(BaseModel):
    """Each line of a stream: ``result``; or ``error``, after which the connection breaks."""

    result: Speech | None = None
    error: FlatError | None = None


class ListedVoice(BaseModel):
    languages: list[str]
    voiceId: str  # noqa: N815
    displayName: str  # noqa: N815
    description: str
    tags: list[str]


class ListedVoices(BaseModel):
    voices: list[ListedVoice]


class VoiceObject(BaseModel):
    name: str = Field(description="workspaces/WORKSPACE/voices/NAME")
    voiceId: str = Field(description="What a speech request names.")  # noqa: N815
    langCode: str  # noqa: N815
    displayName: str  # noqa: N815
    description: str
    tags: list[str]
    source: Literal["SYSTEM", "IVC"] = Field(description="IVC: a clone.")


class VoiceObjects(BaseModel):
    voices: list[VoiceObject]


class SampleValidation(BaseModel):
    langCode: str  # noqa: N815
    warnings: list[Any]
    errors: list[Any]
    transcription: str


class ClonedReply(BaseModel):
    voice: VoiceObject
    audioSamplesValidated: list[SampleValidation]  # noqa: N815


class Nothing(BaseModel):
    """``{}``"""


SPEECH = {
    "audioContent": "SUQzBAAAAAAAI1RTU0UAAAAPAAADTGF2",
    "timestampInfo": {
        "wordAlignment": {
            "words": ["Hello,", "Echo."],
            "wordStartTimeSeconds": [0.05, 0.41],
            "wordEndTimeSeconds": [0.41, 0.9],
        }
    },
    "usage": {"processedCharactersCount": 12, "modelId": "tiny"},
}
LISTED_VOICES = {
    "voices": [
        {
            "languages": ["en"],
            "voiceId": "anna",
            "displayName": "anna",
            "description": "Built-in voice",
            "tags": ["built-in"],
        }
    ]
}
CLONE = {
    "name": "workspaces/default/voices/Anna",
    "voiceId": "default__Anna",
    "langCode": "EN_US",
    "displayName": "Anna",
    "description": "Calm and low",
    "tags": ["warm"],
    "source": "IVC",
}
CLONED = {
    "voice": CLONE,
    "audioSamplesValidated": [
        {"langCode": "EN_US", "warnings": [], "errors": [], "transcription": "Hello."}
    ],
}
