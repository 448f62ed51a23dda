"""``echo-tts doctor``: what would keep this machine from speaking, and what to do about it."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch

from echo import __version__
from echo.api.access import Keys
from echo.api.server import bind
from echo.api.traces import NO_SDK, has_sdk
from echo.audio.encode import FORMATS, encode_file
from echo.cluster.checks import check_clones
from echo.config import EchoConfig, ServerConfig, compose, unknown_flags
from echo.config.hosts import is_loopback
from echo.errors import CheckpointError, ConfigError, EchoError
from echo.models.checkpoint import describe, open_safetensors
from echo.models.devices import parse_dtype, pick_device
from echo.models.hub import local_folder
from echo.models.load import CODEC_FILE, DIT_FILE, PCA_FILE, WEIGHTS_FILE
from echo.models.quantize import bytes_per_weight, quantizer
from echo.spec import SAMPLE_RATE
from echo.ui.launch import page_beside_api
from echo.voices.shelf import open_shelf
from echo.voices.store import VoiceStore

Level = Literal["ok", "note", "wrong"]

_GIB = 2**30
# Free memory of the GPU that conf/card/NAME.yaml needs, the largest first, and what a generation
# without one may take beside the weights: benchmarks.footprint.
CARDS = {"8gb": round(6.4 * _GIB), "6gb": round(5.2 * _GIB)}
ROOM = round(3.7 * _GIB)
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # NVIDIA's on Linux, and in Windows' WSL
_COMPILERS = {"cpu": ("c++", "g++", "clang++"), "cuda": ("cc", "gcc", "clang")}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``note``: works, but not as well as it could; ``wrong``: fails."""

    level: Level
    topic: str
    message: str  # with what to do, where there is something to do


class Machine(Protocol):
    """What is asked of the machine; tests have others than this one."""

    environ: Mapping[str, str]
    offline: bool  # the hub is not to be asked

    def versions(self) -> str: ...

    def device(self, name: str, param: str) -> torch.device:
        """Raises ConfigError if there is no such device."""

    def has_gpu_driver(self) -> bool: ...

    def free_bytes(self, device: torch.device) -> int | None:
        """Memory that weights could take; None: not known."""

    def file(self, repo: str, name: str, param: str) -> Path | None:
        """A model's file if it is here, without asking the network.

        Raises CheckpointError for a folder or shipped model that does not exist.
        """

    def quantize(self, kind: str, device: torch.device, dtype: torch.dtype) -> None:
        """Raises ConfigError if ``model.quantize`` cannot be ``kind`` here."""

    def elements(self, path: Path) -> int:
        """Numbers in a file of weights. Raises CheckpointError if it is none."""

    def encode(self, name: str) -> None:
        """Make a short file of a format. Raises what the codec raises."""

    def listen(self, config: ServerConfig) -> None:
        """Take the port and give it back. Raises EchoError if that fails."""

    def writable(self, folder: Path) -> bool: ...

    def can_compile(self, device: torch.device) -> bool: ...

    def can_trace(self) -> bool:
        """Whether OpenTelemetry's SDK is installed."""


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit status: 1 if anything is wrong."""
    parser = argparse.ArgumentParser(
        "echo-tts doctor", description="Look whether this machine can speak with these settings."
    )
    parser.add_argument("settings", nargs="*", metavar="SETTING=VALUE", help="as for serve")
    overrides = parser.parse_args(list(arguments)).settings
    findings = []
    for finding in examine(overrides, ThisMachine()):
        findings.append(finding)
        sys.stdout.write(line_of(finding) + "\n")
        sys.stdout.flush()
    wrong = sum(finding.level == "wrong" for finding in findings)
    end = f"{wrong} to be put right" if wrong else "ready: echo-tts serve"
    sys.stdout.write(end + "\n")
    return 1 if wrong else 0


def examine(overrides: Sequence[str], machine: Machine) -> Iterator[Finding]:
    """Everything, one finding after the other; without a valid configuration, only that."""
    yield Finding("ok", "versions", machine.versions())
    for name, nearest in unknown_flags(machine.environ).items():
        hint = f"did you mean {nearest}?" if nearest else "echo-tts serve --help lists the flags"
        yield Finding("note", "flags", f"{name} is no flag of Echo; {hint}")
    try:
        config = compose(overrides)
    except ConfigError as error:
        yield Finding("wrong", "settings", error.message)
        return
    m = config.model
    chosen = f"model {m.name} ({m.repo}), preset {config.preset.name}"
    yield Finding("ok", "settings", chosen)
    for check in (
        _devices,
        _quantization,
        _weights,
        _compiler,
        _codecs,
        _voices,
        _cloning,
        _server,
    ):
        yield from check(config, machine)


def line_of(finding: Finding) -> str:
    """For people: ``wrong  port  ...``."""
    return f"{finding.level:<6} {finding.topic:<9} {' '.join(finding.message.split())}"


class ThisMachine:
    """The one that this runs on."""

    def __init__(self) -> None:
        from huggingface_hub import constants

        self.environ: Mapping[str, str] = os.environ
        self.offline = constants.HF_HUB_OFFLINE

    def versions(self) -> str:
        system = f"{platform.system()} {platform.machine()}"
        return (
            f"echo-tts {__version__}, Python {platform.python_version()}, "
            f"PyTorch {torch.__version__}, {system}, {os.cpu_count()} CPUs"
        )

    def device(self, name: str, param: str) -> torch.device:
        return pick_device(name, param=param)

    def has_gpu_driver(self) -> bool:
        return any(Path(driver).exists() for driver in _DRIVERS)

    def free_bytes(self, device: torch.device) -> int | None:
        if device.type == "cuda":
            return torch.cuda.mem_get_info(device)[0]
        known = (_available(Path("/proc/meminfo")), _limit(Path("/sys/fs/cgroup/memory.max")))
        return min((size for size in known if size is not None), default=None)

    def file(self, repo: str, name: str, param: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        folder = local_folder(repo, param=param)
        if folder is not None:
            return folder / name if (folder / name).is_file() else None
        found = try_to_load_from_cache(repo, name)
        return Path(found) if isinstance(found, str) else None

    def quantize(self, kind: str, device: torch.device, dtype: torch.dtype) -> None:
        quantizer(kind, device, dtype)

    def elements(self, path: Path) -> int:
        with open_safetensors(path) as file:
            return sum(math.prod(shape) for shape, _ in describe(file).values())

    def encode(self, name: str) -> None:
        encode_file(np.zeros(SAMPLE_RATE // 10, np.float32), SAMPLE_RATE, name)

    def listen(self, config: ServerConfig) -> None:
        with bind(config) as listener:
            listener.listen()

    def writable(self, folder: Path) -> bool:
        there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        return there.is_dir() and os.access(there, os.W_OK | os.X_OK)

    def can_compile(self, device: torch.device) -> bool:
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return False
        return any(shutil.which(name) for name in _COMPILERS[device.type])

    def can_trace(self) -> bool:
        return has_sdk()


def _devices(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    m = config.model
    for key, name in (("model.device", m.device), ("model.codec_device", m.codec_device)):
        try:
            device = machine.device(name, key)
        except ConfigError as error:
            yield Finding("wrong", "device", error.message)
            continue
        yield Finding("ok", "device", f"{key} is {device}")
        if device.type == "cpu" and name == "auto" and machine.has_gpu_driver():
            yield Finding(
                "note",
                "device",
                "there is a GPU, but this PyTorch does not see it: install one built for it, see "
                "https://pytorch.org/get-started/locally",
            )
            return


def _device(machine: Machine, name: str, param: str) -> torch.device | None:
    try:
        return machine.device(name, param)
    except ConfigError:  # told by _devices
        return None


def _quantization(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    m = config.model
    if m.quantize is None or (device := _device(machine, m.device, "model.device")) is None:
        return
    try:
        machine.quantize(m.quantize, device, parse_dtype(m.dtype))
    except ConfigError as error:
        yield Finding("wrong", "quantize", error.message)
    else:
        yield Finding("ok", "quantize", f"the model's weights in {m.quantize}")


def _weights(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    m = config.model
    if m.weights == "random":
        yield Finding("note", "weights", "random: it makes noise; good for speed work only")
        return
    wanted = [
        ("model.repo", m.repo, (DIT_FILE, WEIGHTS_FILE)),
        ("model.codec_repo", m.codec_repo, (CODEC_FILE, WEIGHTS_FILE)),
        ("model.pca_repo", m.pca_repo, (PCA_FILE,)),
    ]
    if m.lora.repo is not None and m.lora.filename is not None:
        wanted.append(("model.lora.repo", m.lora.repo, (m.lora.filename,)))
    paths: dict[str, Path] = {}
    for key, repo, names in wanted:
        try:
            here = [path for name in names if (path := machine.file(repo, name, key))]
            is_local = local_folder(repo, param=key) is not None
            for path in here[:1]:
                machine.elements(path)  # that it can be read
        except CheckpointError as error:
            yield Finding("wrong", "weights", error.message)
            continue
        if here:
            paths[key] = here[0]
            yield Finding("ok", "weights", f"{key}: {here[0]}")
        else:
            yield _missing(key, repo, names, is_local, machine.offline)
    yield from _memory(config, machine, paths)


def _missing(key: str, repo: str, names: Sequence[str], is_local: bool, offline: bool) -> Finding:
    if is_local:
        return Finding("wrong", "weights", f"{key}: {repo} has no {' and no '.join(names)}")
    get = f"hf download {repo}"
    if offline:
        never = f"{key}: {repo} is not downloaded and HF_HUB_OFFLINE is set; unset it, or {get}"
        return Finding("wrong", "weights", never)
    later = f"{key}: {repo} is downloaded at the first start; or now: {get}"
    return Finding("note", "weights", later)


def _memory(config: EchoConfig, machine: Machine, paths: Mapping[str, Path]) -> Iterator[Finding]:
    """Of the weights, and on a GPU whether a generation of the real model fits beside them."""
    for device, size in _needed(config, machine, paths).items():
        free = machine.free_bytes(device)
        if free is None:
            continue
        told = f"weights take {_gib(size)} of {_gib(free)} free on {device}"
        fits, has_room = size < free, device.type != "cuda" or size + ROOM <= free
        card = _card_for(free) if device.type == "cuda" else None
        if fits and (has_room or config.model.quantize is not None or card is None):
            yield Finding("ok", "memory", told)
            continue
        advice = "stop what else is there, or choose another device or model (model=tiny)"
        if card is not None:
            advice = f"set card={card} (ECHO_CARD), which holds the real model in it"
        if fits:
            told = f"{told}, which leaves too little for long references and many listeners"
        yield Finding("note" if fits else "wrong", "memory", f"{told}; {advice}")


def _needed(
    config: EchoConfig, machine: Machine, paths: Mapping[str, Path]
) -> dict[torch.device, int]:
    """Bytes of the weights on each device."""
    m, needed = config.model, dict[torch.device, int]()
    for key, device_key, name, dtype, quantize in (
        ("model.repo", "model.device", m.device, m.dtype, m.quantize),
        ("model.codec_repo", "model.codec_device", m.codec_device, m.codec_dtype, None),
    ):
        if key not in paths or (device := _device(machine, name, device_key)) is None:
            continue
        numbers = machine.elements(paths[key])
        size = numbers * bytes_per_weight(parse_dtype(dtype), quantize)
        if key == "model.codec_repo" and config.voices.encode_device == "cpu":
            cpu = torch.device("cpu")  # half of them, in float32
            needed[cpu] = needed.get(cpu, 0) + numbers // 2 * 4
            size /= 2
        needed[device] = needed.get(device, 0) + round(size)
    return needed


def _card_for(free: int) -> str | None:
    """The largest profile that ``free`` bytes of a GPU are enough for."""
    return next((card for card, needs in CARDS.items() if needs <= free), None)


def _compiler(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    m, c, compiles = config.model, config.compile, False
    for wanted, name, key, what in (
        (c.model, m.device, "model.device", "compile.model"),
        (c.codec, m.codec_device, "model.codec_device", "compile.codec"),
    ):
        if (device := _device(machine, name, key)) is None:
            continue
        if what == "compile.codec" and wanted is None:
            wanted = device.type == "cuda"
        if not wanted:
            continue
        compiles = True
        if machine.can_compile(device):
            yield Finding("ok", "compile", what)
        else:
            tool = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
            advice = f"install {tool}, or set {what}=false"
            yield Finding("note", "compile", f"{what} has no effect without {tool}: {advice}")
    folder = Path(c.cache_dir or tempfile.gettempdir())
    if compiles and not machine.writable(folder):
        yield Finding("note", "compile", f"{folder} cannot be written; see compile.cache_dir")


def _codecs(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    works = []
    for name in FORMATS:
        try:
            machine.encode(name)
        except Exception as error:  # whatever FFmpeg's build says
            advice = (
                "install PyAV's own wheel: pip install --force-reinstall --only-binary=:all: av"
            )
            yield Finding("note", "codecs", f"no {name} ({error}); {advice}")
        else:
            works.append(name)
    yield Finding("ok" if works else "wrong", "codecs", ", ".join(works) or "none works")


def _voices(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    store, v = VoiceStore(config.voices), config.voices
    voices = store.list()
    if not voices:
        folders = ", ".join(v.roots)
        yield Finding("note", "voices", f"none in {folders}; put clips of 5 to 30 s there")
        return
    unreadable = []
    for voice in voices:
        try:
            store.clips(voice)
        except EchoError as error:
            unreadable.append(error.message)
    told = f"{len(voices)} in {', '.join(sorted({each.source for each in voices}))}"
    yield Finding("ok", "voices", told)
    for message in unreadable:
        yield Finding("wrong", "voices", f"{message}; mend or remove it")
    if v.default is not None and store.get(v.default) is None:
        first = f"there is no {v.default}; requests without a voice get {voices[0].id}"
        yield Finding("note", "voices", f"{first}; set voices.default")


def _cloning(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    if config.cluster.enabled and config.cluster.address is not None:
        try:
            check_clones(config)
        except ConfigError as error:
            yield Finding("wrong", "cloning", error.message)
            return
    if config.voices.shared is not None:
        try:
            there = open_shelf(config.voices.shared).list()
        except EchoError as error:
            yield Finding("wrong", "cloning", f"{error.message}; see voices.shared")
        else:
            yield Finding("ok", "cloning", f"{len(there)} files of shared voices can be reached")
        return
    folder = Path(config.voices.clone_root)
    if config.inworld.clone_enabled and not machine.writable(folder):
        advice = "let this user write there, or set voices.clone_root"
        yield Finding("wrong", "cloning", f"{folder} cannot be written; {advice}")


def _server(config: EchoConfig, machine: Machine) -> Iterator[Finding]:
    s = config.server
    try:
        keyed = bool(Keys.of(s))
        if not keyed and not is_loopback(s.host):
            open_to_all = f"{s.host} is open to other machines without keys"
            advice = "set ECHO_API_KEYS or server.api_keys_file"
            yield Finding("note", "keys", f"{open_to_all}; {advice}")
        page_beside_api(config, keyed=keyed)
    except ConfigError as error:
        topic = "page" if error.param == "ui.on_server" else "keys"
        yield Finding("wrong", topic, error.message)
    if s.traces and not machine.can_trace():
        yield Finding("wrong", "traces", f"{NO_SDK}, or set server.traces=false")
    try:
        machine.listen(s)
    except EchoError as error:
        yield Finding("wrong", "port", f"{error.message}, or stop the other program")
    else:
        yield Finding("ok", "port", f"{s.port} on {s.host} is free" if s.port else "any free one")


def _available(meminfo: Path) -> int | None:
    """Bytes, by Linux; None elsewhere."""
    if not meminfo.is_file():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
    available = fields.get("MemAvailable")
    return None if available is None else int(available.split()[0]) * 1024


def _limit(cgroup: Path) -> int | None:
    """Bytes that a container may have; None: no limit, or no container."""
    if not cgroup.is_file():
        return None
    text = cgroup.read_text().strip()
    return int(text) if text.isdecimal() else None


def _gib(size: int) -> str:
    return f"{size / _GIB:.2f} GiB"
