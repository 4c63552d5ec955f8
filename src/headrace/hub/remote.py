"""Downloads from the Hugging Face Hub, with `huggingface_hub`'s own cache, token and endpoint settings."""

from __future__ import annotations

import glob
import logging
import re
import sys
from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint, ModelNotFound, StartupError
from headrace.hub.local import choose_gguf, weights_path

logger = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 10.0
_WANTED = re.compile(
    r"[^/]+\.safetensors|[^/]+\.json|[^/]+\.jinja|additional_chat_templates/[^/]+\.jinja"
    r"|tokenizer\.model|vocab\.txt|merges\.txt|\d+_[^/]+/config\.json"
)
_UNWANTED = re.compile(r"consolidated.*\.safetensors")  # a second copy of the weights, in the authors' own layout


def download_from_hub(name: str, revision: str | None = None, *, progress: bool) -> Path:
    """Fetch what serving needs of the repository `name` and return its folder, or its .gguf file.

    `name` is OWNER/NAME; OWNER/NAME:FILE picks one GGUF file, by its name or by a part of it such as `Q4_K_M`. What
    the Hub's cache holds is not fetched again, and serves alone when the Hub cannot be reached. With `progress`, bars
    are drawn if standard error is a terminal. Raises `ModelNotFound` if it can neither be fetched nor found there, and
    `BadCheckpoint` if it holds no weights we can read.
    """
    from huggingface_hub import errors  # imported here: it takes a while, and most starts need no Hub

    repository, _, gguf = name.partition(":")
    try:
        return _download(repository, revision, gguf, draw_bars=progress and sys.stderr.isatty())
    except StartupError:
        raise
    except errors.GatedRepoError as error:
        raise ModelNotFound(
            f"{repository} is gated: accept its terms at https://huggingface.co/{repository}, then run `hf auth login` "
            "or set HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"no repository {repository} on the Hub; if it is private, run `hf auth login` or set HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFound(f"{repository} has no branch, tag or commit {revision!r}") from error
    except Exception as error:  # the errors of its HTTP library, which is another one in every other version
        return _cached(repository, revision, gguf, because=error)


def choose_files(files: list[str], gguf: str) -> list[str]:
    """Which of a repository's `files` to fetch: one GGUF file, or the safetensors weights and all that goes with them.

    `gguf` is the GGUF file asked for, or "". Raises `BadCheckpoint` if there is nothing to choose or too much.
    """
    if not gguf and any(file.endswith(".safetensors") and "/" not in file for file in files):
        return [file for file in files if _WANTED.fullmatch(file) and not _UNWANTED.fullmatch(file)]
    return [choose_gguf([file for file in files if file.endswith(".gguf")], gguf)]


def _download(repository: str, revision: str | None, gguf: str, *, draw_bars: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **settings: Any) -> None:
            super().__init__(*args, **settings | {"disable": not draw_bars})

    listing = HfApi().model_info(repository, revision=revision, timeout=_TIMEOUT_SECONDS)
    try:
        files = choose_files([sibling.rfilename for sibling in listing.siblings or ()], gguf)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{repository}: {error}") from None
    logger.info("Fetching %s from the Hub, or from its cache: %s", repository, ", ".join(files))
    folder = Path(
        snapshot_download(
            repository,
            revision=revision,
            allow_patterns=[glob.escape(file) for file in files],
            etag_timeout=_TIMEOUT_SECONDS,
            tqdm_class=Bar,
        )
    )
    return folder / files[0] if files[0].endswith(".gguf") else folder


def _cached(repository: str, revision: str | None, gguf: str, because: Exception) -> Path:
    from huggingface_hub import errors, snapshot_download

    unreachable = f"{repository} cannot be fetched ({type(because).__name__}: {because})"
    hint = (
        "Check the network (HTTPS_PROXY, HF_ENDPOINT, HF_HUB_OFFLINE), or name a local folder or a .gguf file instead"
    )
    try:
        # No patterns: that files we never asked for are missing does not make the snapshot incomplete.
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[]))
        return weights_path(folder, gguf)
    except errors.LocalEntryNotFoundError:
        raise ModelNotFound(f"{unreachable}, and the Hub's cache on this machine does not hold it. {hint}") from because
    except BadCheckpoint as error:
        raise ModelNotFound(
            f"{unreachable}, and its copy in the Hub's cache does not serve: {error}. {hint}"
        ) from because
