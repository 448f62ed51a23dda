"""Voices as Inworld's clients see them: lists, lookup, cloning, changes, deletion."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field

from echo.api.errors import CloneNotFoundError, CloningDisabledError
from echo.api.inworld.body import Body, validated
from echo.audio.decode import sniff_container
from echo.engine import Engine
from echo.errors import AudioDecodeError, InvalidRequestError
from echo.voices.clone_names import VoiceDetails
from echo.voices.clones import ClonedVoice
from echo.voices.source import decode_base64_audio
from echo.voices.store import VoiceInfo

LANGUAGE = "EN_US"  # what the model speaks; of clones, what their maker said
MAX_SAMPLES = 10

_FILTER = re.compile(r"""\s*(language|langCode|lang_code)\s*=\s*["']?([\w\-]+)["']?\s*""")


class VoiceSample(Body):
    audioData: str = Field(description="A WAV or MP3 file in base64.")  # noqa: N815
    transcription: str | None = Field(None, max_length=10_000, description="What is said in it.")


class CloneBody(Body):
    """A voice to be made. Have the speaker's consent."""

    displayName: str = Field(  # noqa: N815
        description="Letters, digits, `_`, `-`, spaces; at most 100."
    )
    langCode: str | None = Field(None, description="Default EN_US.")  # noqa: N815
    voiceSamples: list[VoiceSample] = Field(  # noqa: N815
        min_length=1, max_length=MAX_SAMPLES, description="Joined, with a pause between."
    )
    description: str | None = None
    tags: list[str] | None = None


class ChangeBody(Body):
    displayName: str | None = None  # noqa: N815
    langCode: str | None = None  # noqa: N815
    description: str | None = None
    tags: list[str] | None = None


def listed(engine: Engine, wanted: str | None) -> list[dict[str, Any]]:
    """Entries of ``GET /tts/v1/voices``; ``wanted``: the query's ``filter``."""
    entries = []
    for info, clone in _known(engine):
        details = clone.details if clone else VoiceDetails()
        if not _speaks(details, wanted):
            continue
        kind = "cloned" if clone else "built-in"
        entries.append(
            {
                "languages": [_language(details)],
                "voiceId": info.id,
                "displayName": _display_name(info.id, clone),
                "description": details.description or f"{kind.capitalize()} voice",
                "tags": [kind, *details.tags],
            }
        )
    return entries


def objects(
    engine: Engine, workspace: str | None, wanted: str | None, languages: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Voice objects; of a ``workspace``: its own clones and the built-in ones.

    ``languages``: codes such as EN_US or en, of which a voice must speak one; none: any.
    """
    known = [
        (info, clone, clone.details if clone else VoiceDetails()) for info, clone in _known(engine)
    ]
    return [
        voice_object(engine, info, clone, workspace)
        for info, clone, details in known
        if (clone is None or workspace in (None, clone.workspace))
        and _speaks(details, wanted)
        and (not languages or _language(details) in map(_language_of, languages))
    ]


def found(engine: Engine, workspace: str | None, voice_id: str) -> dict[str, Any]:
    """The voice object of ``voice_id``; a clone ``w__v`` is found before a plain ``v``.

    Raises VoiceNotFoundError.
    """
    clone = _clone(engine, workspace, voice_id)
    if clone is not None:
        return voice_object(engine, None, clone, workspace)
    info = engine.voices.find(voice_id)
    return voice_object(engine, info, engine.clones.of(info), workspace)


def speaking_voice(engine: Engine, voice_id: str) -> str:
    """The name by which the engine knows ``voice_id``: as it is, or of the default workspace."""
    if engine.voices.get(voice_id) is None:
        clone = _clone(engine, None, voice_id)
        return clone.id if clone else voice_id
    return voice_id


def check_cloning(engine: Engine) -> None:
    """Raise CloningDisabledError unless ``inworld.clone_enabled``."""
    if not engine.config.inworld.clone_enabled:
        raise CloningDisabledError(
            "making, changing and deleting voices is turned off; start the server with "
            "inworld.clone_enabled=true or ECHO_INWORLD_CLONE_ENABLED=1"
        )


def cloned(engine: Engine, workspace: str | None, body: Mapping[str, Any]) -> dict[str, Any]:
    """Make a voice; the answer of ``voices:clone``. Raises what :meth:`CloneStore.create` does."""
    fields = validated(CloneBody, body)
    limit = engine.config.inworld.max_sample_size
    samples = []
    for index, sample in enumerate(fields.voiceSamples):
        param = f"voiceSamples[{index}].audioData"
        audio = decode_base64_audio(sample.audioData, max_bytes=limit, param=param)
        if sniff_container(audio) not in ("wav", "mp3"):
            raise AudioDecodeError(f"{param} is neither WAV nor MP3; send one of them", param=param)
        samples.append(audio)
    details = VoiceDetails(
        fields.displayName, fields.description, tuple(fields.tags or ()), fields.langCode
    )
    clone = engine.clones.create(
        workspace or engine.config.inworld.default_workspace,
        fields.displayName,
        samples,
        details,
        max_bytes=limit,
        param="voiceSamples",
    )
    validations = [
        {
            "langCode": fields.langCode or LANGUAGE,
            "warnings": [],
            "errors": [],
            "transcription": sample.transcription or "",
        }
        for sample in fields.voiceSamples
    ]
    return {
        "voice": voice_object(engine, None, clone, workspace),
        "audioSamplesValidated": validations,
    }


def changed(
    engine: Engine, workspace: str | None, voice_id: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    """Change what is told about a clone; fields left out stay. The id stays, too."""
    clone = _own_clone(engine, workspace, voice_id)
    # Some clients wrap the fields, as gRPC's updates do.
    inner = body.get("voice")
    fields = validated(ChangeBody, inner if isinstance(inner, dict) else body)
    given = fields.model_dump(exclude_unset=True)
    details = clone.details
    if "displayName" in given:
        details = replace(details, display_name=given["displayName"])
    if "langCode" in given:
        details = replace(details, lang_code=given["langCode"])
    if "description" in given:
        details = replace(details, description=given["description"])
    if "tags" in given:
        details = replace(details, tags=tuple(given["tags"] or ()))
    return voice_object(engine, None, engine.clones.update(clone, details), workspace)


def deleted(engine: Engine, workspace: str | None, voice_id: str) -> dict[str, Any]:
    """Delete a clone."""
    engine.clones.delete(_own_clone(engine, workspace, voice_id))
    return {}


def voice_object(
    engine: Engine, info: VoiceInfo | None, clone: ClonedVoice | None, workspace: str | None
) -> dict[str, Any]:
    """A voice as the ``/voices/v1`` URLs tell of it; of a clone or of a built-in one."""
    if clone is not None:
        details, voice_id, name = clone.details, clone.id, clone.name
        workspace, source = clone.workspace, "IVC"
    elif info is not None:
        details, voice_id, name, source = VoiceDetails(), info.id, info.id, "SYSTEM"
    kind = "cloned" if clone else "built-in"
    workspace = workspace or engine.config.inworld.default_workspace
    return {
        "name": f"workspaces/{workspace}/voices/{name}",
        "voiceId": voice_id,
        "langCode": details.lang_code or LANGUAGE,
        "displayName": _display_name(name, clone),
        "description": details.description or f"{kind.capitalize()} voice: {name}",
        "tags": list(details.tags) or [kind],
        "source": source,
    }


def _known(engine: Engine) -> list[tuple[VoiceInfo, ClonedVoice | None]]:
    return [(info, engine.clones.of(info)) for info in engine.voices.list()]


def _clone(engine: Engine, workspace: str | None, voice_id: str) -> ClonedVoice | None:
    """By its whole id, if that is of the ``workspace`` asked for, or by its name in it."""
    clone = engine.clones.by_id(voice_id)
    if clone is not None and workspace in (None, clone.workspace):
        return clone
    return engine.clones.get(workspace or engine.config.inworld.default_workspace, voice_id)


def _own_clone(engine: Engine, workspace: str | None, voice_id: str) -> ClonedVoice:
    clone = _clone(engine, workspace, voice_id)
    if clone is not None:
        return clone
    if engine.voices.get(voice_id) is not None:
        raise InvalidRequestError(
            f"{voice_id[:100]!r} is a built-in voice; only cloned ones can be changed or deleted",
            param="voiceId",
        )
    raise CloneNotFoundError(f"no cloned voice {voice_id[:100]!r}", param="voiceId")


def _display_name(name: str, clone: ClonedVoice | None) -> str:
    given = clone.details.display_name if clone else None
    return given or (clone.name if clone else name)


def _language(details: VoiceDetails) -> str:
    return _language_of(details.lang_code or LANGUAGE)


def _language_of(code: str) -> str:
    """``en`` of ``EN_US``."""
    return re.split(r"[_-]", code.strip())[0].lower()


def _speaks(details: VoiceDetails, wanted: str | None) -> bool:
    match = _FILTER.fullmatch(wanted or "")
    return match is None or _language_of(match[2]) == _language(details)
