"""How cloned voices may be called, and what is told about them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from echo.errors import InvalidRequestError, LimitExceededError

SEPARATOR = "__"
MAX_NAME_CHARS = 100  # of a workspace and of a voice's name
MAX_ID_BYTES = 190  # of both together: a file name may have 255 bytes, the voice store reads 200
MAX_DETAIL_CHARS = 2_000  # of a description
MAX_TAGS = 50

_NAME = re.compile(r"[\w\- ]+")  # letters, digits, _, -, space


@dataclass(frozen=True)
class VoiceDetails:
    """What its maker says about a voice; None and empty: nothing."""

    display_name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    lang_code: str | None = None


def clone_id(workspace: str, name: str) -> str:
    """``workspace__name``, both checked. Raises InvalidRequestError naming the one at fault."""
    workspace = check_name(workspace, "workspace")
    name = check_name(name, "displayName")
    if SEPARATOR in workspace or workspace.endswith("_"):
        message = f"workspace {workspace!r} may not hold {SEPARATOR!r} nor end in '_'"
        raise InvalidRequestError(message, param="workspace")
    voice_id = f"{workspace}{SEPARATOR}{name}"
    if len(voice_id.encode()) > MAX_ID_BYTES:
        message = f"workspace and name together may have {MAX_ID_BYTES - 2} bytes; shorten them"
        raise LimitExceededError(message, param="displayName")
    return voice_id


def split_id(voice_id: str) -> tuple[str, str] | None:
    """(workspace, name) of a cloned voice's id; None for what can be none."""
    workspace, separator, name = voice_id.partition(SEPARATOR)
    try:
        whole = clone_id(workspace, name) if separator else None
    except InvalidRequestError:
        return None
    return (workspace, name) if whole == voice_id else None


def check_name(name: str, param: str) -> str:
    """``name`` as it is used in an id: in one Unicode form, no spaces at the ends.

    Raises InvalidRequestError for other characters and LimitExceededError for too many.
    """
    clean = unicodedata.normalize("NFC", name).strip()
    if len(clean) > MAX_NAME_CHARS:
        message = f"{param} has {len(clean)} characters; at most {MAX_NAME_CHARS} are taken"
        raise LimitExceededError(message, param=param)
    if not _NAME.fullmatch(clean) or not any(char.isalnum() for char in clean):
        raise InvalidRequestError(
            f"{param} may hold letters, digits, '_', '-' and spaces, at least one letter or digit",
            param=param,
        )
    return clean


def check_details(details: VoiceDetails) -> None:
    """Raise LimitExceededError or InvalidRequestError for too much, or a name that is none."""
    if details.display_name is not None:
        check_name(details.display_name, "displayName")
    if len(details.description or "") > MAX_DETAIL_CHARS:
        message = f"description may have {MAX_DETAIL_CHARS} characters"
        raise LimitExceededError(message, param="description")
    if len(details.tags) > MAX_TAGS or any(len(tag) > MAX_NAME_CHARS for tag in details.tags):
        message = f"tags may be {MAX_TAGS}, of {MAX_NAME_CHARS} characters each"
        raise LimitExceededError(message, param="tags")
    if len(details.lang_code or "") > MAX_NAME_CHARS:
        raise LimitExceededError("langCode is too long; send for example EN_US", param="langCode")


def as_json(details: VoiceDetails) -> dict[str, Any]:
    """What is stored of ``details``."""
    return {
        "displayName": details.display_name,
        "description": details.description,
        "tags": list(details.tags),
        "langCode": details.lang_code,
    }


def details_from(raw: Mapping[str, Any]) -> VoiceDetails:
    """The opposite of :func:`as_json`; skips what has another type: people edit files."""

    def text(key: str) -> str | None:
        return raw[key] if isinstance(raw.get(key), str) else None

    tags = raw.get("tags")
    known = tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else ()
    return VoiceDetails(text("displayName"), text("description"), known, text("langCode"))
