"""Files of a model: in a local folder, among the shipped models, or on the Hugging Face hub.

``repo`` is a hub id (``jordand/echo-tts-base``), a folder, or ``shipped:NAME``. A folder wins
over a hub id of the same name.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Literal, overload

from echo.errors import CheckpointError

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SHIPPED = "shipped:"

_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
_FLAGS = {
    "model.repo": "ECHO_MODEL_REPO",
    "model.codec_repo": "ECHO_FISH_REPO",
    "model.pca_repo": "ECHO_PCA_REPO",
    "model.lora.repo": "ECHO_LORA_REPO",
}

_log = logging.getLogger(__name__)


@overload
def resolve_file(
    repo: str,
    filename: str,
    *,
    required: Literal[True],
    token: str | None = None,
    param: str = "model.repo",
) -> Path: ...


@overload
def resolve_file(
    repo: str,
    filename: str,
    *,
    required: bool,
    token: str | None = None,
    param: str = "model.repo",
) -> Path | None: ...


def resolve_file(
    repo: str,
    filename: str,
    *,
    required: bool,
    token: str | None = None,
    param: str = "model.repo",
) -> Path | None:
    """The path of ``filename`` in ``repo``, downloaded if need be (with progress bars).

    Args:
        required: if not, a repository without that file gives None. So does one that cannot be
            asked while other files of it are already in the cache.
        token: of the hub; None: the one of ``hf auth login`` or HF_TOKEN.
        param: the configuration key that ``repo`` comes from, for messages.

    Raises:
        CheckpointError: no such folder, shipped model, repository or (if required) file;
            not downloaded and no network; access refused. The message says what to do.
    """
    folder = local_folder(repo, param=param)
    if folder is None:
        return _download(repo, filename, required, token, param)
    path = folder / filename
    if path.is_file():
        return path
    if not required:
        return None
    raise CheckpointError(
        f"{_folder_name(repo, folder)} has no file {filename}; it holds {_contents(folder)}",
        param=param,
    )


def local_folder(repo: str, *, param: str = "model.repo") -> Path | None:
    """The folder of a local or shipped ``repo``; None for a hub id.

    Raises :class:`CheckpointError` for a shipped model or a folder that does not exist.
    """
    if repo.startswith(SHIPPED):
        shipped = {f"{SHIPPED}{path.name}": path for path in ASSETS.iterdir() if path.is_dir()}
        if repo in shipped:
            return shipped[repo]
        raise CheckpointError(
            f"{repo} does not ship with Echo; there are: {', '.join(sorted(shipped))}", param=param
        )
    folder = Path(repo).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise CheckpointError(f"{repo} is a file; give the folder it lies in", param=param)
    if _HUB_ID.fullmatch(repo) is None:
        raise CheckpointError(
            f"{repo} is neither a folder that exists nor a hub id like jordand/echo-tts-base",
            param=param,
        )
    return None


def only_safetensors(repo: str, *, token: str | None = None, param: str = "model.repo") -> str:
    """The name of the one .safetensors file in ``repo``.

    Raises :class:`CheckpointError` if there is none, if there are several (the message lists
    them), or if the repository cannot be asked and is not in the cache.
    """
    folder = local_folder(repo, param=param)
    names = _hub_files(repo, token, param) if folder is None else _files(folder)
    found = [name for name in names if name.endswith(".safetensors")]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(f"{repo} has no .safetensors file", param=param)
    raise CheckpointError(
        f"{repo} has {len(found)} .safetensors files; name one of {', '.join(found)}", param=param
    )


def _download(
    repo: str, filename: str, required: bool, token: str | None, param: str
) -> Path | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    if not required and _known_absent(repo, filename):
        return None
    try:
        _ask_once(repo, filename, token)
        return Path(hf_hub_download(repo, filename, token=token))
    except LocalEntryNotFoundError as error:
        if not required and _cached_snapshot(repo) is not None:
            _log.info("%s: cannot ask the hub for %s; going on without it", repo, filename)
            return None
        raise _unavailable(repo, filename, error, param) from error
    except EntryNotFoundError as error:
        if not required:
            return None
        raise CheckpointError(
            f"the hub repository {repo} has no file {filename}; {_advice(repo, param)}",
            param=param,
        ) from error
    except _failures() as error:
        raise _unavailable(repo, filename, error, param) from error


def _ask_once(repo: str, filename: str, token: str | None) -> None:
    """Raise LocalEntryNotFoundError if a file is not in the cache and the hub does not answer.

    huggingface_hub itself would try again for half a minute before it says so.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    if try_to_load_from_cache(repo, filename) is not None:
        return
    try:
        get_hf_file_metadata(hf_hub_url(repo, filename), token=token)
    except HfHubHTTPError:
        return  # an answer, if a bad one; the download that follows raises it
    except (HTTPError, OSError) as error:
        raise LocalEntryNotFoundError(f"no answer from the hub: {error}") from error


def _hub_files(repo: str, token: str | None, param: str) -> list[str]:
    from huggingface_hub import HfApi

    try:
        return HfApi().list_repo_files(repo, token=token)
    except _failures() as error:
        cached = _cached_snapshot(repo)
        if cached is None:
            raise _unavailable(repo, "its list of files", error, param) from error
        return _files(cached)


def _known_absent(repo: str, filename: str) -> bool:
    """Whether the cache knows that the revision last seen has no such file: no need to ask."""
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return try_to_load_from_cache(repo, filename) is _CACHED_NO_EXIST
    except HFValidationError:
        return False  # the download that follows says what is wrong with the id


def _cached_snapshot(repo: str) -> Path | None:
    """The folder of what is in the cache of ``repo``, complete or not."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, local_files_only=True))
    except LocalEntryNotFoundError as error:
        partial = getattr(error, "snapshot_path", None)  # huggingface_hub >= 2
        return None if partial is None else Path(partial)


def _failures() -> tuple[type[Exception], ...]:
    """What a download may raise, whichever HTTP library huggingface_hub uses."""
    from huggingface_hub import errors

    # errors.HTTPError is the base class of that library: requests < 1, httpx < 2, httpx2.
    # RuntimeError: from the native transfer library.
    xet = getattr(errors, "XetDownloadError", RuntimeError)
    return (OSError, errors.HTTPError, errors.HFValidationError, RuntimeError, xet)


def _unavailable(repo: str, wanted: str, error: Exception, param: str) -> CheckpointError:
    return CheckpointError(
        f"cannot get {wanted} of {repo}: {_reason(repo, error)}; {_advice(repo, param)}",
        param=param,
    )


def _reason(repo: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"access is gated. Accept its terms on https://huggingface.co/{repo} and log in "
            "(`hf auth login`, or set HF_TOKEN)"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return "no such repository, or a private one: check the name or log in (`hf auth login`)"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if isinstance(error.__cause__ or error, errors.OfflineModeIsEnabled):
            return "it is not downloaded yet, and HF_HUB_OFFLINE is set"
        return "it is not downloaded yet, and the hub cannot be reached"
    return (str(error) or type(error).__name__).strip().partition("\n")[0].rstrip(".")


def _advice(repo: str, param: str) -> str:
    ways = [f"download it where there is a network (`hf download {repo}`)"]
    if param in _FLAGS:
        ways.append(f"set {_FLAGS[param]} to a local folder")
    if not param.startswith("model.lora"):
        ways.append("choose the shipped model (model=tiny)")
    return f"{', '.join(ways[:-1])} or {ways[-1]}"


def _folder_name(repo: str, folder: Path) -> str:
    return repo if repo.startswith(SHIPPED) else f"the folder {folder}"


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def _contents(folder: Path, shown: int = 8) -> str:
    names = _files(folder)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more if names else "no files"
