"""What each setting of a request does, in a sentence or two, for whoever shows it to people.

The page's fields and the API's description read the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

HELP: Mapping[str, str] = MappingProxyType(
    {
        "input": "What to say. [S1], [S2] switch speakers; (laughs) and the like are styles.",
        "voice": "A voice's name, with or without extension; or base64 audio, plain or as a data "
        "URL. Absent: the configured default.",
        "seed": "The same seed gives the same audio. Absent or -1: random.",
        "preset": "The shape of a generation: how long its blocks are and how many steps each "
        "takes. Short first blocks are heard sooner.",
        "block_sizes": "Latents of 46.4 ms per block, at most 640 together. Absent: the preset's.",
        "num_steps": "Sampling steps, for all blocks or one number for each: more is slower and "
        "often cleaner. Absent: the preset's.",
        "guidance_mode": "independent: text and voice are guided apart, in three passes a step.",
        "cfg_scale_text": "How closely the text is followed, -100 to 100. Higher: clearer words; "
        "too high sounds strained.",
        "cfg_scale_speaker": "How closely the voice is followed, -100 to 100. Higher: more alike; "
        "too high brings the recording's noise along.",
        "cfg_min_t": "Guidance ends when the time t falls below this; t runs from 1, noise, to 0.",
        "cfg_max_t": "Guidance begins when the time t is at or below this, 0 to 1.",
        "truncation_factor": "Factor of the starting noise, above 0, one or one per block. Below "
        "1, as 0.8: calmer and flatter speech. null: 1.",
        "init_scale": "Where the schedule starts, above 0 to 1, one or one per block.",
        "rescale_k": "Strength of temporal score rescaling, above 0; needs rescale_sigma, too. "
        "Above 1: steadier; below: livelier. null: off.",
        "rescale_sigma": "Width of temporal score rescaling, above 0, as 3; needs rescale_k, too. "
        "null: off.",
        "speaker_kv_scale": "Forces the voice where speech drifts to another one: factor of its "
        "keys and values, as 1.5. null: off.",
        "speaker_kv_min_t": "The voice is forced until the time t falls below this, 0 to 1. "
        "null: throughout.",
        "speaker_kv_max_layers": "The voice is forced in so many first layers. null: in all.",
        "early_stop_on_zero": "Skip the remaining blocks after one that ends in silence.",
        "zero_eps": "A latent value counts as silent up to this, from 0.",
        "zero_tail_frames": "So many latents of 46.4 ms at a block's end are looked at, from 1.",
        "zero_tail_min_frac": "Share of their values that must be silent, 0 to 1.",
        "zero_tail_absmax": "And none of them may exceed this, from 0.",
        "max_text_length": "Bytes of text of one generation, 16 to 768; more is split further.",
        "normalize_exclamation": "A single ! is read as a full stop, a run of them as one !.",
        "chunking_enabled": "Cut a long text at sentence ends into generations of their own.",
        "chunk_target_seconds": "A chunk ends before a sentence that would make it longer than "
        "this, in estimated seconds, once it has the minimum.",
        "chunk_min_seconds": "A chunk goes on until it has this, in estimated seconds.",
        "chunk_max_seconds": "No sentence is added that makes a chunk longer than this, in "
        "estimated seconds.",
        "chunk_chars_per_second": "Speaking rate of the estimate: characters per second.",
        "chunk_words_per_second": "Speaking rate of the estimate: words per second; the slower "
        "of the two counts.",
        "vad_enabled": "A block with a long silence is made again with other noise. Takes longer "
        "where that happens.",
        "vad_silence_threshold_ms": "From this on a silence is too long, 50 to 60000 ms; shorter "
        "blocks are not looked at.",
        "vad_max_rerolls": "So often a block is made again, 0 to 20; then the least silent one is "
        "taken.",
    }
)
"""By the names that requests use: every key of a request's overrides, and the first three."""
