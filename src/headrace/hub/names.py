"""What a model argument can be, told by its form alone."""

from __future__ import annotations

import difflib
import re

from headrace.core.errors import ModelNotFound
from headrace.hub.known import KNOWN

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME, or OWNER/NAME:FILE for one GGUF file of the repository."""
    return _HUB_ID.fullmatch(name) is not None


def is_path(name: str) -> bool:
    """Whether `name` can only mean a file or folder."""
    return name.startswith(("/", "./", "../", "~")) or name.endswith(".gguf") or name.count("/") > 1


def unknown_name(name: str) -> ModelNotFound:
    """The error for a name that is nothing we know, with the known names that come close."""
    close = difflib.get_close_matches(name.lower(), KNOWN, n=2, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"Known names: {', '.join(KNOWN)}."
    return ModelNotFound(
        f"no model {name!r}: not a known name, a folder, a .gguf file or a Hub id (OWNER/NAME) on this machine. {hint}"
    )
