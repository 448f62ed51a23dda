"""The doctor over machines that are made up, and once over this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from echo import cli
from echo.config import ServerConfig
from echo.doctor import Finding, ThisMachine, examine, line_of, main
from echo.errors import CheckpointError, ConfigError, EchoError

GIB = 2**30


@dataclass
class Made:
    """A machine with everything, but for what a test takes away."""

    environ: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    gpus: int = 0
    driver: bool = False
    free: int | None = 24 * GIB
    downloaded: bool = True
    broken: tuple[str, ...] = ()
    no_encoder: tuple[str, ...] = ()
    port_taken: bool = False
    read_only: bool = False
    compiler: bool = True
    quantizer: str | None = None  # what is wrong with it
    numbers: Mapping[str, int] = field(default_factory=dict)  # in files of weights
    sdk: bool = True

    def versions(self) -> str:
        return "made up"

    def device(self, name: str, param: str) -> torch.device:
        if name == "auto":
            return torch.device("cuda" if self.gpus else "cpu")
        if name.startswith("cuda") and not self.gpus:
            raise ConfigError(f"{param}: no CUDA", param=param)
        return torch.device(name)

    def has_gpu_driver(self) -> bool:
        return self.driver

    def free_bytes(self, device: torch.device) -> int | None:
        return self.free

    def file(self, repo: str, name: str, param: str) -> Path | None:
        return Path(repo) / name if self.downloaded else None

    def quantize(self, kind: str, device: torch.device, dtype: torch.dtype) -> None:
        if self.quantizer is not None:
            raise ConfigError(self.quantizer, param="model.quantize")

    def elements(self, path: Path) -> int:
        if path.name in self.broken:
            raise CheckpointError(f"{path} is not complete")
        return self.numbers.get(path.name, 2_400_000_000)

    def encode(self, name: str) -> None:
        if name in self.no_encoder:
            raise ValueError(f"no encoder for {name}")

    def listen(self, config: ServerConfig) -> None:
        if self.port_taken:
            raise EchoError("cannot listen on it; choose others")

    def writable(self, folder: Path) -> bool:
        return not self.read_only

    def can_compile(self, device: torch.device) -> bool:
        return self.compiler

    def can_trace(self) -> bool:
        return self.sdk


def looked(machine: Made, *overrides: str) -> list[Finding]:
    return list(examine(["model=base", *overrides], machine))


def wrong(machine: Made, *overrides: str) -> list[str]:
    return [each.topic for each in looked(machine, *overrides) if each.level == "wrong"]


def notes(machine: Made, *overrides: str) -> list[str]:
    return [each.topic for each in looked(machine, *overrides) if each.level == "note"]


def told(machine: Made, topic: str, *overrides: str) -> str:
    return "\n".join(line_of(each) for each in looked(machine, *overrides) if each.topic == topic)


def test_a_machine_with_everything_has_nothing_to_hear():
    found = looked(Made(gpus=1))
    assert {each.level for each in found} == {"ok"}
    topics = {each.topic for each in found}
    assert topics >= {"settings", "device", "weights", "memory", "codecs", "voices", "port"}


def test_a_wrong_setting_is_told_and_ends_the_visit():
    found = looked(Made(), "server.prot=1")
    assert [each.topic for each in found if each.level == "wrong"] == ["settings"]
    assert "server.port" in found[-1].message


def test_a_flag_that_is_none_is_told_with_the_nearest():
    assert "ECHO_CHUNKING" in told(Made(environ={"ECHO_CHUNKNIG": "1"}), "flags")


def test_a_gpu_that_is_asked_for_must_be_there():
    assert wrong(Made(), "model.device=cuda") == ["device"]
    assert wrong(Made(gpus=1), "model.device=cuda") == []


def test_a_gpu_that_pytorch_does_not_see_is_told_once():
    assert notes(Made(driver=True)) == ["device"]
    assert notes(Made(driver=True), "model.device=cpu", "model.codec_device=cpu") == []


def test_weights_to_be_downloaded_are_a_note_and_offline_an_error():
    assert set(notes(Made(downloaded=False))) == {"weights"}
    assert "hf download jordand/fish-s1-dac-min" in told(Made(downloaded=False), "weights")
    assert wrong(Made(downloaded=False, offline=True)) == ["weights"] * 3


def test_a_folder_without_the_files_is_wrong(tmp_path):
    repos = [f"model.{key}={tmp_path}" for key in ("repo", "codec_repo", "pca_repo")]
    assert wrong(Made(downloaded=False), *repos) == ["weights"] * 3
    assert "dit.safetensors" in told(Made(downloaded=False), "weights", *repos)


def test_half_a_download_is_wrong():
    assert wrong(Made(broken=("pca_state.safetensors",))) == ["weights"]


def test_weights_must_fit_into_the_memory_that_is_free():
    # 2.4 G numbers each: the DiT in bfloat16 and the codec in float32 are 13.4 GiB.
    assert wrong(Made(free=14 * GIB)) == []
    assert wrong(Made(free=13 * GIB)) == ["memory"]
    assert wrong(Made(free=13 * GIB), "model.codec_dtype=bf16") == []
    assert "13.41 GiB of 13.00 GiB" in told(Made(free=13 * GIB), "memory")
    assert "memory" not in {each.topic for each in looked(Made(free=None))}


REAL = {"dit.safetensors": 2_800_742_736, "codec.safetensors": 391_430_530}


def small_gpu(gib: float) -> Made:
    """A GPU with so much free, and the real checkpoints."""
    return Made(gpus=1, free=round(gib * GIB), numbers=REAL)


def test_a_gpu_too_small_for_the_real_model_is_told_the_card_to_set():
    roomy = small_gpu(10.5)
    assert (wrong(roomy), notes(roomy)) == ([], [])
    assert notes(small_gpu(7.5)) == ["memory"]
    assert "set card=8gb" in told(small_gpu(7.5), "memory")
    assert "6.67 GiB of 6.50 GiB" in told(small_gpu(6.5), "memory")
    assert (wrong(small_gpu(6.5)), wrong(small_gpu(5.5))) == (["memory"], ["memory"])
    assert "set card=8gb" in told(small_gpu(6.5), "memory")
    assert "set card=6gb" in told(small_gpu(5.5), "memory")
    assert "model=tiny" in told(small_gpu(3.0), "memory")


def test_with_its_card_the_real_model_fits():
    # Half of the codec and all samples of voices are the CPU's.
    for free, card in ((7.5, "8gb"), (5.5, "6gb")):
        machine = small_gpu(free)
        assert (wrong(machine, f"card={card}"), notes(machine, f"card={card}")) == ([], [])
        assert f"3.13 GiB of {free:.2f} GiB free on cuda" in told(machine, "memory", f"card={card}")
        assert "0.73 GiB" in told(machine, "memory", f"card={card}")
    assert "set card=" not in told(small_gpu(3.0), "memory", "card=6gb")


def test_a_machine_that_cannot_quantise_is_told_what_to_do():
    assert "weights in int8" in told(Made(gpus=1), "quantize", "model.quantize=int8")
    machine = Made(gpus=1, quantizer="install torchao")
    assert wrong(machine, "card=8gb") == ["quantize"]
    assert "install torchao" in told(machine, "quantize", "card=8gb")
    assert told(machine, "quantize") == ""


def test_formats_without_an_encoder_are_notes_until_there_are_none():
    assert notes(Made(no_encoder=("mp3",))) == ["codecs"]
    every = ("pcm", "wav", "mp3", "flac", "opus", "ogg", "aac", "m4a")
    assert wrong(Made(no_encoder=every)) == ["codecs"]


def test_compiling_without_a_compiler_is_told():
    assert notes(Made(compiler=False)) == []
    assert notes(Made(compiler=False, gpus=1)) == ["compile"]
    assert notes(Made(compiler=False), "compile=full") == ["compile", "compile"]


def test_what_is_compiled_wants_a_folder_also_where_only_cuda_asks_for_it():
    assert notes(Made(read_only=True)) == []
    assert notes(Made(read_only=True, gpus=1)) == ["compile"]
    assert notes(Made(read_only=True, gpus=1), "compile=off") == []
    assert notes(Made(read_only=True), "compile=codec") == ["compile"]


def test_voices_must_be_there_and_readable(tmp_path):
    root = f"voices.roots=[{tmp_path}]"
    empty = [root, f"voices.clone_root={tmp_path}"]
    assert notes(Made(), *empty) == ["voices"]
    (tmp_path / "ann.wav").write_bytes(b"RIFF" * 100)
    assert "requests without a voice get ann" in told(Made(), "voices", *empty)
    assert wrong(Made(), *empty) == []
    assert wrong(Made(), *empty, "voices.max_file_bytes=10") == ["voices"]


def test_shared_clones_need_one_that_can_be_reached(tmp_path):
    (tmp_path / "shared").mkdir()
    assert wrong(Made(read_only=True), f"voices.shared={tmp_path / 'shared'}") == []
    (tmp_path / "file").write_text("")
    assert wrong(Made(), f"voices.shared={tmp_path / 'file'}") == ["cloning"]


def test_clones_need_a_place():
    assert wrong(Made(read_only=True)) == []
    assert wrong(Made(read_only=True), "inworld.clone_enabled=true") == ["cloning"]


def test_clones_of_a_cluster_need_a_place_that_all_its_machines_have(tmp_path):
    cluster = ("cluster=ray", "cluster.address=auto", "inworld.clone_enabled=true")
    assert wrong(Made(), *cluster) == ["cloning"]
    assert "voices.shared" in told(Made(), "cloning", *cluster)
    assert wrong(Made(), *cluster, f"voices.shared={tmp_path}") == []
    assert wrong(Made(), *cluster, "cluster.address=null") == []


def test_the_server_needs_its_port_and_its_keys(tmp_path):
    assert wrong(Made(port_taken=True)) == ["port"]
    assert notes(Made(), "server.host=0.0.0.0") == ["keys"]
    assert notes(Made(), "server.host=0.0.0.0", "server.api_keys=secret") == []
    assert wrong(Made(), f"server.api_keys_file={tmp_path / 'none'}") == ["keys"]
    page = ("server.api_keys=secret", "ui.on_server=true")
    assert wrong(Made(), *page) == ["page"]
    assert wrong(Made(), *page, "ui.password=open") == []


def test_this_machine_is_fit_for_the_shipped_model(capsys: pytest.CaptureFixture[str]):
    settings = ["model=tiny", "model.device=cpu", "model.codec_device=cpu", "server.port=0"]
    assert cli.main(["doctor", *settings]) == 0
    said = capsys.readouterr().out
    assert said.endswith("ready: echo-tts serve\n")
    assert "pcm, wav, mp3, flac, opus, ogg, aac, m4a" in said
    assert "wrong" not in said


def test_what_is_wrong_is_the_exit_status(capsys: pytest.CaptureFixture[str]):
    assert main(["model=tiny", "server.port=-1"]) == 1
    assert capsys.readouterr().out.endswith("1 to be put right\n")


def test_this_machine_sees_a_taken_port_and_a_file_that_is_no_checkpoint(tmp_path):
    import socket

    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError):
        ThisMachine().elements(tmp_path / "x.safetensors")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = examine(["model=tiny", f"server.port={taken.getsockname()[1]}"], ThisMachine())
        assert [each.topic for each in found if each.level == "wrong"] == ["port"]


def test_traces_need_their_sdk() -> None:
    assert wrong(Made(), "server.traces=true") == []
    assert wrong(Made(sdk=False)) == []
    assert wrong(Made(sdk=False), "server.traces=true") == ["traces"]
