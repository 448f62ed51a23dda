from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from echo.errors import CheckpointError
from echo.models.hub import local_folder, only_safetensors, resolve_file

Client = Callable[..., Any]

NOWHERE = "http://127.0.0.1:9"  # the discard port: refused

RESOLVE = """
from echo.models.hub import resolve_file
path = resolve_file({repo!r}, {name!r}, required={required})
result = path and path.read_text()
"""

LOAD_ALL = """
import torch
from echo.models.load import load_codec, load_dit, load_pca
cpu = torch.device("cpu")
dit = load_dit("someone/toy", device=cpu, dtype=torch.float32)
codec = load_codec("someone/toy", device=cpu, dtype=torch.float32)
pca = load_pca("someone/toy", device=cpu, dit=dit.config, codec=codec.config)
result = [dit.config.model_size, codec.config.latent_dim, list(pca.components.shape)]
"""


def resolve(repo: str, name: str, *, required: bool = True) -> str:
    return RESOLVE.format(repo=repo, name=name, required=required)


def test_a_file_of_a_local_folder_is_found_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    assert resolve_file(str(tmp_path), "a.txt", required=True) == tmp_path / "a.txt"
    assert resolve_file(str(tmp_path), "b.txt", required=False) is None


def test_a_missing_file_of_a_local_folder_is_named_with_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").touch()
    with pytest.raises(CheckpointError, match=r"no file dit\.safetensors.*weights\.bin") as error:
        resolve_file(str(tmp_path), "dit.safetensors", required=True, param="model.pca_repo")
    assert error.value.param == "model.pca_repo"


def test_the_shipped_model_lies_in_the_package() -> None:
    path = resolve_file("shipped:tiny", "config.json", required=True)
    assert path.is_file()
    assert path.parent.name == "tiny"


@pytest.mark.parametrize("repo", ["shipped:huge", "shipped:", "shipped:..", "shipped:tiny/.."])
def test_an_unknown_shipped_model_is_an_error_that_lists_those_there_are(repo: str) -> None:
    with pytest.raises(CheckpointError, match="shipped:tiny"):
        local_folder(repo)


@pytest.mark.parametrize(
    "repo", ["/no/such/folder", "./gone", "a/b/c", "~/gone", "C:\\gone", "a b"]
)
def test_a_folder_that_does_not_exist_is_not_looked_for_on_the_hub(repo: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder that exists nor a hub id"):
        resolve_file(repo, "config.json", required=True)


def test_a_file_given_as_repository_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="give the folder"):
        resolve_file(str(path), "config.json", required=True)


def test_the_only_safetensors_file_of_a_folder_needs_no_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no \.safetensors file"):
        only_safetensors(str(tmp_path))
    (tmp_path / "voice.safetensors").touch()
    (tmp_path / "README.md").touch()
    assert only_safetensors(str(tmp_path)) == "voice.safetensors"
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"other\.safetensors, voice\.safetensors"):
        only_safetensors(str(tmp_path))


@pytest.fixture
def toy_repo(hub: Any, toy_folder: Path) -> Path:
    """The toy folder as the hub's repository someone/toy."""
    (hub.root / "someone").mkdir()
    return toy_folder.rename(hub.root / "someone" / "toy")


def test_everything_loads_from_a_hub_and_then_without_network_from_its_cache(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    expected = [64, 64, [80, 64]]
    assert client(LOAD_ALL, HF_ENDPOINT=hub.url) == expected
    assert len(hub.downloads()) == 4  # each file once, whoever asks
    assert client(LOAD_ALL, HF_ENDPOINT=NOWHERE) == expected


def test_what_was_downloaded_is_not_downloaded_again(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    sizes = resolve("someone/toy", "config.json")
    first = client(sizes, HF_ENDPOINT=hub.url)
    assert first == (toy_repo / "config.json").read_text()
    assert client(sizes, HF_ENDPOINT=hub.url) == first
    assert len(hub.downloads()) == 1
    hub.requests.clear()
    assert client(sizes, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == first
    assert not hub.requests


def test_a_repo_under_the_public_names_loads_and_its_missing_files_are_remembered(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    (toy_repo / "dit.safetensors").rename(toy_repo / "pytorch_model.safetensors")
    code = """
import torch
from echo.models.load import load_dit
result = load_dit("someone/toy", device="cpu", dtype=torch.bfloat16).config.num_layers
"""
    assert client(code, HF_ENDPOINT=hub.url) == 3
    assert client(code, HF_ENDPOINT=NOWHERE) == 3


def test_sizes_come_with_the_network_down_when_only_the_weights_were_fetched(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    (toy_repo / "config.json").unlink()
    fetch = resolve("someone/toy", "pca_state.safetensors").replace("path.read_text()", "1")
    assert client(fetch, HF_ENDPOINT=hub.url) == 1
    sizes = """
from echo.models.sizes import dit_config
result = dit_config("someone/toy").model_size
"""
    assert client(sizes, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == 2048


def test_a_config_of_somebody_else_on_the_hub_leaves_the_real_sizes(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    (toy_repo / "config.json").write_text('{"model_type": "tts"}')
    code = """
from echo.models.sizes import codec_config, dit_config
result = [dit_config("someone/toy").model_size, codec_config("someone/toy").latent_dim]
"""
    assert client(code, HF_ENDPOINT=hub.url) == [2048, 1024]


def test_a_repository_that_does_not_exist_is_named_with_ways_out(hub: Any, client: Client) -> None:
    message = client(resolve("someone/gone", "x.safetensors"), HF_ENDPOINT=hub.url)
    for part in (
        "cannot get x.safetensors of someone/gone",
        "no such repository",
        "hf download someone/gone",
        "ECHO_MODEL_REPO",
        "model=tiny",
    ):
        assert part in message
    optional = resolve("someone/gone", "x.safetensors", required=False)
    assert "no such repository" in client(optional, HF_ENDPOINT=hub.url)


def test_a_gated_repository_says_how_to_get_in(hub: Any, client: Client, toy_repo: Path) -> None:
    hub.gated.add("someone/toy")
    message = client(resolve("someone/toy", "config.json"), HF_ENDPOINT=hub.url)
    assert "gated" in message
    assert "hf auth login" in message


def test_a_file_that_the_repository_lacks_is_named_or_none(
    hub: Any, client: Client, toy_repo: Path
) -> None:
    message = client(resolve("someone/toy", "x.safetensors"), HF_ENDPOINT=hub.url)
    assert "someone/toy has no file x.safetensors" in message
    optional = resolve("someone/toy", "x.safetensors", required=False)
    assert client(optional, HF_ENDPOINT=hub.url) is None


@pytest.mark.parametrize("required", [True, False])
def test_offline_and_not_downloaded_says_so_at_once(
    hub: Any, client: Client, required: bool
) -> None:
    code = resolve("someone/toy", "x.safetensors", required=required)
    message = client(code, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert "not downloaded yet, and HF_HUB_OFFLINE is set" in message
    assert "hf download someone/toy" in message
    assert not hub.requests


def test_no_network_and_not_downloaded_says_so(client: Client) -> None:
    message = client(resolve("someone/toy", "x.safetensors"), HF_ENDPOINT=NOWHERE)
    assert "not downloaded yet, and the hub cannot be reached" in message
    assert "hf download someone/toy" in message


def test_a_hub_that_answers_with_an_error_is_quoted(hub: Any, client: Client) -> None:
    hub.broken = True
    message = client(resolve("someone/toy", "x.safetensors"), HF_ENDPOINT=hub.url)
    assert "cannot get x.safetensors of someone/toy" in message


def test_the_only_safetensors_file_of_a_hub_repo_needs_no_name(hub: Any, client: Client) -> None:
    folder = hub.root / "someone" / "voice-lora"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("a LoRA")
    (folder / "voice.safetensors").write_text("x")
    code = """
from echo.models.hub import only_safetensors, resolve_file
name = only_safetensors("someone/voice-lora", param="model.lora.repo")
result = [name, resolve_file("someone/voice-lora", name, required=True).read_text()]
"""
    assert client(code, HF_ENDPOINT=hub.url) == ["voice.safetensors", "x"]
    assert client(code, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1") == ["voice.safetensors", "x"]
    other = code.replace("voice-lora", "other-lora")
    message = client(other, HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
    assert "ECHO_LORA_REPO" in message
    assert "tiny" not in message
