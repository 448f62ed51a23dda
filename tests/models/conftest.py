"""A small hub on loopback, toy checkpoints, and a way to run client code in its own process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from echo.models.dit import EchoDiT
from echo.modules.fusing import fuse_
from golden import golden_dit

PARITY = Path(__file__).resolve().parents[1] / "data" / "parity"
ROOT = PARITY.parents[2]


@pytest.fixture
def parity() -> Path:
    """The folder of golden values."""
    return PARITY


def write_toy_folder(folder: Path) -> Path:
    """Toy DiT and codec of the golden values, and a PCA for both, with one config.json."""
    folder.mkdir(parents=True)
    dit = json.loads((PARITY / "dit_config.json").read_text())
    codec = json.loads((PARITY / "codec_config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"dit": dit, "codec": codec}))
    shutil.copy(PARITY / "dit_weights.safetensors", folder / "dit.safetensors")
    shutil.copy(PARITY / "codec_weights.safetensors", folder / "codec.safetensors")
    pca = {
        "pca_components": torch.eye(dit["latent_size"], codec["latent_dim"]),
        "pca_mean": torch.zeros(codec["latent_dim"]),
        "latent_scale": torch.tensor(0.5),
    }
    save_file(pca, folder / "pca_state.safetensors")
    return folder


@pytest.fixture
def model() -> EchoDiT:
    """With the golden weights; of the test that asks for it."""
    model = deepcopy(golden_dit())
    fuse_(model)
    return model


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    return write_toy_folder(tmp_path / "toy")


class Hub:
    """Serves the folders under ``root`` as repositories ``owner/name``, as the real hub does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gated: set[str] = set()
        self.broken = False
        self.requests: list[str] = []
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _handler(hub) -> type[BaseHTTPRequestHandler]:  # noqa: N805 (self is the handler's)
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        return Handler

    def downloads(self) -> list[str]:
        return [r for r in self.requests if r.startswith("GET") and "/resolve/" in r]

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        self.requests.append(f"{request.command} {request.path}")
        parts = request.path.partition("?")[0].strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if is_api else parts[:2])
        folder = self.root / repo
        if self.broken:
            return self._send(request, 418, {}, b"", body)
        if repo in self.gated:
            return self._send(request, 403, {"X-Error-Code": "GatedRepo"}, b"", body)
        if not folder.is_dir():
            return self._send(request, 404, {"X-Error-Code": "RepoNotFound"}, b"", body)
        commit = {"X-Repo-Commit": hashlib.sha1(repo.encode()).hexdigest()}
        if is_api:
            content = json.dumps(
                [
                    {"type": "file", "path": p.name, "size": p.stat().st_size, "oid": "0" * 40}
                    for p in folder.iterdir()
                ]
            ).encode()
            headers = commit | {"Content-Type": "application/json"}
            return self._send(request, 200, headers, content, body)
        path = folder / parts[-1]
        if not path.is_file():
            headers = commit | {"X-Error-Code": "EntryNotFound"}
            return self._send(request, 404, headers, b"", body)
        content = path.read_bytes()
        etag = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        return self._send(request, 200, commit | etag, content, body)

    @staticmethod
    def _send(
        request: BaseHTTPRequestHandler,
        status: int,
        headers: dict[str, str],
        content: bytes,
        body: bool,
    ) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if body:
            request.wfile.write(content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(tmp_path / "hub")
    hub.root.mkdir()
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()
    thread.join()


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., Any]:
    """Runs Python code in a new process (the hub's address is read at import), its own cache.

    The code puts what it found out into ``result``; an Echo error becomes its message.
    """

    def run(code: str, **env: str) -> Any:
        lines = "\n".join(f"    {line}" for line in code.strip().splitlines())
        program = (
            "import json\nfrom echo.errors import CheckpointError\n"
            f"try:\n{lines}\n"
            "except CheckpointError as error:\n    result = error.message\n"
            "print('RESULT', json.dumps(result))\n"
        )
        kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and k[:3] != "HF_"}
        home = {"HF_HOME": str(tmp_path / "hf-home"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env=kept | home | {"OMP_NUM_THREADS": "1"} | env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("RESULT ")[2])

    return run
