"""Audio that plays in the browser while it is being made."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta

AAC_FRAME_SAMPLES = 1024


class _QuietMeta(ComponentMeta):
    """Gradio's own writes a .pyi file beside the source of each new component, at import."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> _QuietMeta:
        return ABCMeta.__new__(cls, name, bases, attrs)


class StreamPlayer(gr.Audio, metaclass=_QuietMeta):
    """A streaming ``gr.Audio`` that is given AAC, bytes of whole ADTS frames, and plays it as is.

    ``gr.Audio`` itself would encode with the ffmpeg program, which need not be installed here.
    """

    is_template = True  # to the browser it is a gr.Audio

    async def stream_output(
        self, value: bytes | None, output_id: str, first_chunk: bool
    ) -> tuple[Any, Any]:
        """The segment to play, if there is one, and the playlist it belongs to."""
        segment = None
        if value:
            segment = {"data": value, "duration": adts_seconds(value), "extension": ".aac"}
        return segment, {
            "path": output_id,
            "is_stream": True,
            "orig_name": "speech.aac",
            "meta": {"_type": "gradio.FileData"},
        }

    async def combine_stream(
        self,
        stream: list[bytes],
        desired_output_format: str | None = None,
        only_file: bool = False,
    ) -> Any:
        """All segments as one file; frames follow frames, so joining them is enough."""
        return await super().combine_stream(stream, None, only_file)


def adts_seconds(data: bytes) -> float:
    """How long whole ADTS frames play, from their headers (ISO/IEC 13818-7, 6.2)."""
    frames, rate, at = 0, 0, 0
    while at + 7 <= len(data):
        rate = _ADTS_RATES[(data[at + 2] >> 2) & 15]
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        frames, at = frames + 1, at + max(length, 7)  # 7: the header alone
    return frames * AAC_FRAME_SAMPLES / rate if frames else 0.0


_ADTS_RATES = (
    *(96000, 88200, 64000, 48000, 44100, 32000, 24000),
    *(22050, 16000, 12000, 11025, 8000, 7350),
)
