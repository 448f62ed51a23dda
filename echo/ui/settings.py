"""The settings of a request as fields of the page, and as the query of a link to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from echo.config import EchoConfig
from echo.errors import InvalidRequestError

NUMBER, WHOLE, FLAG, LIST, CHOICE = "number", "whole", "flag", "list", "choice"
OPTIONAL = "optional"  # a number or nothing: typed as a text, as fields for numbers show 0 for that
AS_TEXT = (LIST, OPTIONAL)

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Guidance": {
        "cfg_scale_text": ("Follow the text", NUMBER),
        "cfg_scale_speaker": ("Follow the voice", NUMBER),
        "cfg_min_t": ("Until time", NUMBER),
        "cfg_max_t": ("From time", NUMBER),
        "guidance_mode": ("Mode", CHOICE),
    },
    "Blocks and steps": {
        "block_sizes": ("Block sizes", LIST),
        "num_steps": ("Steps", LIST),
    },
    "Noise and rescaling": {
        "truncation_factor": ("Truncation", LIST),
        "init_scale": ("Initial scale", LIST),
        "rescale_k": ("Rescale k", OPTIONAL),
        "rescale_sigma": ("Rescale σ", OPTIONAL),
    },
    "Force the voice": {
        "speaker_kv_scale": ("Scale", OPTIONAL),
        "speaker_kv_min_t": ("Until time", OPTIONAL),
        "speaker_kv_max_layers": ("Layers", OPTIONAL),
    },
    "Early stop": {
        "early_stop_on_zero": ("Stop in silence", FLAG),
        "zero_eps": ("Silent up to", NUMBER),
        "zero_tail_frames": ("Latents looked at", WHOLE),
        "zero_tail_min_frac": ("Share of them", NUMBER),
        "zero_tail_absmax": ("None above", NUMBER),
    },
    "Text and chunks": {
        "chunking_enabled": ("Cut long texts", FLAG),
        "chunk_target_seconds": ("Target", NUMBER),
        "chunk_min_seconds": ("Minimum", NUMBER),
        "chunk_max_seconds": ("Maximum", NUMBER),
        "chunk_chars_per_second": ("Characters per second", NUMBER),
        "chunk_words_per_second": ("Words per second", NUMBER),
        "max_text_length": ("Bytes at once", WHOLE),
        "normalize_exclamation": ("Calm exclamations", FLAG),
    },
    "Reroll": {
        "vad_enabled": ("Reroll silences", FLAG),
        "vad_silence_threshold_ms": ("Silent for", NUMBER),
        "vad_max_rerolls": ("At most", WHOLE),
    },
}
SIMPLE = ("cfg_scale_text", "cfg_scale_speaker")  # shown without asking for more
STYLES: dict[str, dict[str, Any]] = {
    "As configured": {},
    "Close to the voice": {"cfg_scale_text": 3.0, "cfg_scale_speaker": 8.0},
    "Close to both": {"cfg_scale_text": 8.0, "cfg_scale_speaker": 8.0},
    "Loose": {"cfg_scale_text": 3.0, "cfg_scale_speaker": 3.0},
}
FLAT: dict[str, Any] = {"truncation_factor": 0.8, "rescale_k": 1.2, "rescale_sigma": 3.0}
FORCED: dict[str, Any] = {
    "speaker_kv_scale": 1.5,
    "speaker_kv_min_t": 0.9,
    "speaker_kv_max_layers": 24,
}
MODES = ("independent",)


@dataclass(frozen=True)
class Control:
    """One setting: its name in requests and in ``conf/``, and what kind of field it takes."""

    key: str
    label: str
    kind: str  # one of NUMBER, WHOLE, FLAG, LIST, CHOICE, OPTIONAL
    group: str

    @property
    def path(self) -> str:
        """Its key in the configuration: ``sampler.cfg_scale_text``."""
        if self.group == "Reroll":
            return "vad." + self.key.removeprefix("vad_")
        if self.group == "Text and chunks":
            if not self.key.startswith("chunk"):
                return f"text.{self.key}"
            return "chunking." + self.key.removeprefix("chunking_").removeprefix("chunk_")
        return f"preset.{self.key}" if self.group == "Blocks and steps" else f"sampler.{self.key}"

    def default(self, config: EchoConfig) -> Any:
        """What the field shows at first; None for what the preset says."""
        section, _, name = self.path.partition(".")
        if section == "preset":
            return None
        value = getattr(getattr(config, section), name)
        return as_text(value) if self.kind in AS_TEXT else value

    def read(self, value: Any) -> Any:
        """The field's content as a request's value; None where it is empty.

        Raises InvalidRequestError for what is no number or, of a LIST, no numbers.
        """
        if self.kind in AS_TEXT:
            numbers = _numbers(self.key, value)
            if self.kind == OPTIONAL and isinstance(numbers, list):
                raise InvalidRequestError(f"{self.key} takes one number", param=self.key)
            return numbers
        if value is None or value == "":
            return None
        return int(value) if self.kind == WHOLE and float(value).is_integer() else value


CONTROLS = tuple(
    Control(key, label, kind, group)
    for group, fields in _GROUPS.items()
    for key, (label, kind) in fields.items()
)
GROUPS = tuple(_GROUPS)


def overrides(config: EchoConfig, values: Sequence[Any]) -> dict[str, Any]:
    """Of the fields' contents, in the order of CONTROLS, those that differ from ``config``.

    Raises InvalidRequestError; ``param`` is the setting.
    """
    found = {}
    for control, value in zip(CONTROLS, values, strict=True):
        given = control.read(value)
        if given != control.read(control.default(config)):
            found[control.key] = given
    return found


def fields(config: EchoConfig, given: Mapping[str, Any]) -> list[Any]:
    """The opposite of :func:`overrides`: contents of the fields, in the order of CONTROLS."""
    return [
        (as_text(given[c.key]) if c.kind in AS_TEXT else given[c.key])
        if c.key in given
        else c.default(config)
        for c in CONTROLS
    ]


def as_text(value: Any) -> str | None:
    """A number or several, as people write them; None for None."""
    if value is None:
        return None
    many = value if isinstance(value, list | tuple) else (value,)
    return ", ".join(f"{number:g}" for number in many)


def to_query(given: Mapping[str, Any]) -> str:
    """``text=Hi&cfg_scale_text=4&num_steps=8,15,20``. None: the word ``null``."""
    return urlencode({key: _word(value) for key, value in given.items()})


def from_query(query: str) -> dict[str, Any]:
    """What a link says: text, voice, preset, seed and settings; other keys are ignored.

    Raises InvalidRequestError for a value of the wrong kind; ``param`` is the key.
    """
    kinds: dict[str, Callable[[str], Any]] = {"text": str, "voice": str, "preset": str}
    found: dict[str, Any] = {}
    controls = {control.key: control for control in CONTROLS}
    for key, word in parse_qsl(query, keep_blank_values=True):
        if key in kinds:
            found[key] = word
        elif key == "seed":
            found[key] = _typed(key, word, int)
        elif key in controls:
            found[key] = None if word == "null" else _of_kind(controls[key], word)
    return found


def _of_kind(control: Control, word: str) -> Any:
    if control.kind == FLAG:
        if word not in ("true", "false"):
            raise InvalidRequestError(
                f"{control.key} is {word[:40]!r} in the link; it must be true or false",
                param=control.key,
            )
        return word == "true"
    if control.kind in (NUMBER, WHOLE):
        return _typed(control.key, word, float if control.kind == NUMBER else int)
    return control.read(word)


def _typed(key: str, word: str, kind: Callable[[str], Any]) -> Any:
    try:
        return kind(word)
    except ValueError:
        raise InvalidRequestError(
            f"{key} is {word[:40]!r} in the link; it must be a number", param=key
        ) from None


def _word(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return str(as_text(value)).replace(" ", "") if not isinstance(value, str) else value


def _numbers(key: str, value: Any) -> Any:
    """None, a number, or a list of several; whole ones as int."""
    words = str(value if value is not None else "").replace(",", " ").split()
    try:
        numbers = [int(word) if word.lstrip("+-").isdecimal() else float(word) for word in words]
    except ValueError:
        raise InvalidRequestError(
            f"{key} is {str(value)[:40]!r}; write a number, or several with commas between",
            param=key,
        ) from None
    if key == "block_sizes" and numbers:
        return numbers
    return None if not numbers else numbers[0] if len(numbers) == 1 else numbers
