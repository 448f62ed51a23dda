"""Check this implementation against a folder of golden values, item by item.

    python tests/parity.py FOLDER

The folder is in the format of ``tests/data/parity`` (see its README.md), of any sizes. Prints
one line per item with its worst relative error (largest difference over the largest golden
value) and the tolerance; exits 1 if an item is over it, or if the folder holds nothing to check.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from echo import inference
from echo.config.schema import ChunkingConfig, SamplerConfig
from echo.models.codec import S1DAC, CodecConfig
from echo.models.dit import DiTConfig, EchoDiT
from echo.models.load import load_codec, load_dit
from echo.models.pca import PCAState
from echo.sampling.block import BlockShape, Conditions, draw_noise, sample_block
from echo.sampling.packing import velocities
from echo.sampling.schedule import StepTables

ONE_PASS = 1e-4
SAMPLER_RUN = 1e-3
EXACT = 0.0
SAMPLERS = (
    "sample_euler_cfg_independent_guidances",
    "sample_blockwise_euler_cfg_independent_guidances",
)


@dataclass(frozen=True)
class Item:
    """One line of the report; ``error`` is relative, or 0 / 1 for things that agree or don't."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.ok else "FAIL"
        return f"{verdict} {self.error:9.2e} (<= {self.tolerance:g})  {self.name}"


def check_folder(folder: Path) -> Iterator[Item]:
    """Every item of the folder, as it is checked."""
    sections = {
        "dit_config.json": check_dit,
        "codec_config.json": check_codec,
        "tail_points.json": check_tails,
        "text_cases.json": check_texts,
        "checkpoint_tensors.json": check_tensor_names,
    }
    for file, check in sections.items():
        if not (folder / file).exists():
            continue
        try:
            with torch.inference_mode():
                yield from check(folder)
        except Exception as error:  # one broken section must not hide the others
            yield Item(f"{file}: {type(error).__name__}: {error}", float("inf"), EXACT)


class Golden(dict[str, Tensor]):
    """Tensors of a file that remember which of them were looked at."""

    def __init__(self, path: Path) -> None:
        super().__init__(load_file(path))
        self._path = path
        self._used: set[str] = set()

    def __getitem__(self, name: str) -> Tensor:
        self._used.add(name)
        return super().__getitem__(name)

    def leftovers(self) -> Iterator[Item]:
        """A failure for each tensor that nothing was compared with."""
        for name in sorted(set(self) - self._used):
            yield Item(f"{self._path.name}: {name} is unknown", float("inf"), EXACT)


def check_dit(folder: Path) -> Iterator[Item]:
    model = load_toy_dit(folder)
    io = Golden(folder / "dit_io.safetensors")
    text = model.encode_text(io["text_ids"], io["text_mask"])
    speaker = model.encode_speaker(io["speaker_latent"])
    prefix = model.encode_prefix(io["prefix_latent"])
    for kind, layers in (("text", text), ("speaker", speaker), ("latent", prefix)):
        for i, (k, v) in enumerate(layers):
            yield compare(f"dit kv_{kind}.{i}.k", k, io[f"kv_{kind}.{i}.k"], ONE_PASS)
            yield compare(f"dit kv_{kind}.{i}.v", v, io[f"kv_{kind}.{i}.v"], ONE_PASS)
    given = {"text": text, "speaker": speaker}
    masks = {"text_mask": io["text_mask"], "speaker_mask": io["speaker_mask"]}
    blind = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    passes: dict[str, dict[str, Any]] = {
        "v_plain": masks,
        "v_no_text_no_speaker": blind,
        **{
            name: {**masks, "prefix": prefix, "start_pos": start_position(name)}
            for name in io
            if name.startswith("v_at_position_")
        },
    }
    for name, arguments in passes.items():
        yield compare(
            f"dit {name}", model(io["x"], io["t"], **given, **arguments), io[name], ONE_PASS
        )
    yield from check_runs(folder, model, io)
    yield from io.leftovers()


def start_position(name: str) -> int:
    """v_at_position_8_of_20 starts at 8."""
    return int(name.removeprefix("v_at_position_").split("_")[0])


def check_runs(folder: Path, model: EchoDiT, io: Golden) -> Iterator[Item]:
    runs = json.loads((folder / "dit_runs.json").read_text())
    ids, mask, normalized = inference.get_text_input_ids_and_mask(  # type: ignore[misc]
        runs["texts"],
        max_length=io["text_ids"].shape[1],
        return_normalized_text=True,
    )
    yield agree("text normalized", normalized, runs["normalized"])
    yield agree("text ids", ids.tolist(), io["text_ids"].tolist())
    yield agree("text mask", mask.tolist(), io["text_mask"].tolist())
    for name, run in runs["runs"].items():
        golden = io[f"latent.{name}"]
        yield compare(f"plain {name}", plain_run(model, io, run), golden, SAMPLER_RUN)
        if run["batch"] == 1:
            yield compare(f"engine {name}", engine_run(model, io, run), golden, SAMPLER_RUN)


def plain_run(model: EchoDiT, io: Golden, run: dict[str, Any]) -> Tensor:
    """A golden run by ``echo.inference``."""
    arguments = dict(run)
    batch = arguments.pop("batch")
    sampler = arguments.pop("sampler")
    if sampler not in SAMPLERS:
        raise ValueError(f"unknown sampler {sampler!r}")
    if "continuation_latent" in arguments:
        arguments["continuation_latent"] = continuation(io, run)
    conditions = ("speaker_latent", "speaker_mask", "text_ids", "text_mask")
    return getattr(inference, sampler)(model, *(io[n][:batch] for n in conditions), **arguments)


def engine_run(model: EchoDiT, io: Golden, run: dict[str, Any]) -> Tensor:
    """The same run by the engine's block sampler, which drops masked keys instead."""
    mask = io["text_mask"][0]
    visible = int(io["speaker_mask"][0, :: model.patch].sum())  # patches
    voice = io["speaker_latent"][:1, : visible * model.patch]
    conditions = Conditions(
        text=model.encode_text(io["text_ids"][:1, : int(mask.sum())]),
        speaker=model.encode_speaker(voice) if voice.shape[1] else None,
    )
    settings = replace(
        DEFAULTS, **{k: v for k, v in run.items() if k in SamplerConfig.__dataclass_fields__}
    )
    done = new = continuation(io, run)
    state = None
    generator = torch.Generator().manual_seed(run["rng_seed"])
    tables = StepTables(model)
    sizes = run.get("block_sizes") or [run["sequence_length"]]
    counts = run["num_steps"]
    counts = counts if isinstance(counts, list) else [counts] * len(sizes)
    for size, steps in zip(sizes, counts, strict=True):
        shape = BlockShape(size, steps, 0.999, run["truncation_factor"])
        noise = draw_noise(generator, size, model.config.latent_size, shape.truncation_factor)
        if done is not None:
            state, prefix = model.extend_prefix(state, new)
            conditions = replace(conditions, prefix=prefix, start=done.shape[1])
        new = exhaust(sample_block(model, tables, conditions, noise, shape, settings))
        done = new if done is None else torch.cat((done, new), dim=1)
    return done


def continuation(io: Golden, run: dict[str, Any]) -> Tensor | None:
    """The prefix that a run names as a slice, such as ``prefix_latent[:1, :18]``."""
    named = run.get("continuation_latent")
    if named is None:
        return None
    match = re.fullmatch(r"(\w+)\[:(\d*), :(\d*)\]", named)
    if match is None:
        raise ValueError(f"cannot read the slice {named!r}")
    name, batch, length = match.groups()
    return io[name][: int(batch or run["batch"]), : int(length) if length else None]


def exhaust(steps: Any) -> Tensor:
    """Run a block's generator to its end, each step alone, and return its result."""
    rows = None
    while True:
        try:
            rows = velocities([steps.send(rows)])[0]
        except StopIteration as end:
            return end.value


def check_codec(folder: Path) -> Iterator[Item]:
    codec = load_toy_codec(folder)
    io = Golden(folder / "codec_io.safetensors")
    pca = PCAState(io["pca_components"], io["pca_mean"], float(io["latent_scale"]))
    hop = codec.config.hop
    audio = torch.nn.functional.pad(io["audio"], (0, -io["audio"].shape[-1] % hop))
    encoded = codec.encoder(audio)
    downsampled = codec.quantizer.downsample(encoded)
    yield compare("codec encoder_output", encoded, io["encoder_output"], ONE_PASS)
    yield compare("codec downsampled", downsampled, io["downsampled"], ONE_PASS)
    pre = codec.quantizer.pre_module(downsampled)
    yield compare("codec pre_module_output", pre, io["pre_module_output"], ONE_PASS)
    z_q, codes = codec.encode(io["audio"])
    lengths = [-(-io["audio"].shape[-1] // hop)] * len(codes)
    yield agree("codec codes", codes.tolist(), io["codes"].tolist())
    yield agree("codec code_lengths", lengths, io["code_lengths"].tolist())
    yield compare("codec z_q", z_q, io["z_q"], ONE_PASS)
    yield compare("codec codes looked up", codec.quantizer.lookup(codes), io["z_q"], ONE_PASS)
    latent = inference.ae_encode(codec, pca, io["audio"])
    yield compare("codec latent", latent, io["latent"], ONE_PASS)
    decoded = codec.decode(io["z_random"])
    yield compare("codec audio_from_z_random", decoded, io["audio_from_z_random"], ONE_PASS)
    streamed = stream(codec, io["z_random"])
    yield compare("codec streamed, blocks of 1 to 7", streamed, io["audio_from_z_random"], ONE_PASS)
    from_latent = inference.ae_decode(codec, pca, io["latent"])
    yield compare("codec audio_from_latent", from_latent, io["audio_from_latent"], ONE_PASS)
    yield from check_voice(codec, pca, io)
    yield from io.leftovers()


def stream(codec: S1DAC, z_q: Tensor) -> Tensor:
    """Decode in blocks of 1, 2, ... 7, 1, 2, ... vectors with carried state."""
    state, parts, start, size = codec.init_state(z_q.shape[0]), [], 0, 1
    while start < z_q.shape[-1]:
        parts.append(codec.decode(z_q[..., start : start + size], state))
        start, size = start + size, size % 7 + 1
    return torch.cat(parts, dim=-1)


def check_voice(codec: S1DAC, pca: PCAState, io: Golden) -> Iterator[Item]:
    piece = 0
    for name in sorted(n for n in io if n.startswith("speaker_latent_")):  # in_ before padded_
        longest, pad = int(name.rsplit("_", 1)[1]), name.startswith("speaker_latent_padded_")
        if not pad:
            piece = int(name.removeprefix("speaker_latent_in_").split("_")[0])
        latent, mask = inference.get_speaker_latent_and_mask(
            codec,
            pca,
            io["long_audio"],
            max_speaker_latent_length=longest,
            audio_chunk_size=piece * codec.config.hop,
            pad_to_max=pad,
        )
        yield compare(f"voice {name}", latent, io[name], ONE_PASS)
        mask_name = name.replace("speaker_latent", "speaker_mask")
        yield agree(f"voice {mask_name}", mask.tolist(), io[mask_name].tolist())


def check_tails(folder: Path) -> Iterator[Item]:
    latents = load_file(folder / "tail_latents.safetensors")
    for name, point in json.loads((folder / "tail_points.json").read_text()).items():
        yield agree(f"tail {name}", inference.find_flattening_point(latents[name]), point)


def check_texts(folder: Path) -> Iterator[Item]:
    from echo.text import chunk, normalize

    for i, case in enumerate(json.loads((folder / "text_cases.json").read_text())):
        params = dict(case["params"])
        exclamation = params.pop("normalize_exclamation", True)
        settings = replace(CHUNKING, **params)
        normalized = normalize(case["input"], exclamation=exclamation).text
        chunks = chunk(normalized, settings, max_tokens=768)
        yield agree(f"text case {i} normalized", normalized, case["normalized"])
        yield agree(f"text case {i} chunks", list(chunks), case["chunks"])


def check_tensor_names(folder: Path) -> Iterator[Item]:
    golden = json.loads((folder / "checkpoint_tensors.json").read_text())
    with torch.device("meta"):
        own = {
            "echo-tts-base/pytorch_model.safetensors": EchoDiT(DiTConfig()),
            "fish-s1-dac-min/pytorch_model.safetensors": S1DAC(CodecConfig()),
        }
    for file, module in own.items():
        shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
        listed = {
            name: shape
            for name, shape in golden[file].items()
            if not name.endswith((".freqs_cis", ".causal_mask"))
        }
        yield agree(f"tensors {file}", shapes, listed)


def load_toy_dit(folder: Path) -> EchoDiT:
    """The folder's DiT through the project's own strict loader."""
    return load_dit(as_checkpoint(folder, "dit"), device=torch.device("cpu"), dtype=torch.float32)


def load_toy_codec(folder: Path) -> S1DAC:
    """The folder's codec through the project's own strict loader."""
    return load_codec(
        as_checkpoint(folder, "codec"), device=torch.device("cpu"), dtype=torch.float32
    )


def as_checkpoint(folder: Path, kind: str) -> str:
    """A temporary checkpoint folder: the golden weights beside their sizes."""
    import atexit
    import tempfile

    target = tempfile.TemporaryDirectory()
    atexit.register(target.cleanup)
    path = Path(target.name)
    (path / "pytorch_model.safetensors").symlink_to(
        (folder / f"{kind}_weights.safetensors").resolve()
    )
    (path / "config.json").symlink_to((folder / f"{kind}_config.json").resolve())
    return str(path)


def compare(name: str, ours: Tensor, golden: Tensor, tolerance: float) -> Item:
    """Worst difference over the largest golden value; another shape is an infinite error."""
    if ours.shape != golden.shape:
        return Item(
            f"{name}: shape {tuple(ours.shape)}, not {tuple(golden.shape)}", float("inf"), tolerance
        )
    golden = golden.double()
    error = float((ours.double() - golden).abs().max() / golden.abs().max().clamp_min(1e-12))
    return Item(name, error if error == error else float("inf"), tolerance)


def agree(name: str, ours: object, golden: object) -> Item:
    """Exactly the same, or not."""
    return Item(name, 0.0 if ours == golden else 1.0, EXACT)


CHUNKING = ChunkingConfig(
    enabled=True,
    target_seconds=30.0,
    min_seconds=20.0,
    max_seconds=40.0,
    chars_per_second=14.0,
    words_per_second=2.7,
)
DEFAULTS = SamplerConfig(
    guidance_mode="independent",
    cfg_scale_text=3.0,
    cfg_scale_speaker=8.0,
    cfg_min_t=0.5,
    cfg_max_t=1.0,
    truncation_factor=None,
    init_scale=0.999,
    rescale_k=None,
    rescale_sigma=None,
    speaker_kv_scale=None,
    speaker_kv_min_t=None,
    speaker_kv_max_layers=None,
    early_stop_on_zero=True,
    zero_eps=0.02,
    zero_tail_frames=16,
    zero_tail_min_frac=0.9,
    zero_tail_absmax=1.0,
    nonstream_block_sizes=(640,),
    nonstream_num_steps=(20,),
)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    checked = failed = 0
    for item in check_folder(Path(arguments[0])):
        print(item, flush=True)
        checked, failed = checked + 1, failed + (not item.ok)
    print(f"{checked} items checked, {failed} over their tolerance")
    return 1 if failed or not checked else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
