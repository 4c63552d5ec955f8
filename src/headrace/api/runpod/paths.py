"""Which paths belong to this family, for those that stand in front of the routes."""

from __future__ import annotations

import re

BARE_ROUTES = ("/run", "/runsync", "/status", "/status-sync", "/stream", "/cancel", "/retry", "/purge-queue", "/jobs")
"""First steps of the paths that belong to the default endpoint. Bare `/health` is the OpenAI family's."""

OPENAI = "/openai"
"""Under it are the OpenAI routes, which answer in their own shape."""

_UNDER_ENDPOINT = re.compile(r"/v2/[^/]+/openai(?:/|$)")

_OF_OTHERS = ("/v2/rerank",)
"""Cohere's clients call there; no endpoint has a path of so few steps."""


def is_runpod_path(path: str) -> bool:
    """Whether a path is one of this family's, the OpenAI routes under it included."""
    if path in _OF_OTHERS:
        return False
    return path.startswith("/v2/") or _first_step(path) in (*BARE_ROUTES, OPENAI)


def is_job_path(path: str) -> bool:
    """Whether errors at this path have the shape of the job API."""
    return is_runpod_path(path) and _first_step(path) != OPENAI and not _UNDER_ENDPOINT.match(path)


def _first_step(path: str) -> str:
    return "/" + path[1:].partition("/")[0]
