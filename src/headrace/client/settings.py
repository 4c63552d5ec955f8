"""Where a client gets what it is not told: the address and the key from the environment, the time-outs from here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from headrace import __version__

DEFAULT_BASE_URL = "http://127.0.0.1:8000"

DEFAULT_TIMEOUT = httpx.Timeout(600.0, connect=5.0, write=60.0, pool=None)
"""Seconds: 5 to connect, 60 to send, 600 without a byte of the answer."""

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100)
"""How many requests run at a time is the caller's to say, not the pool's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What does not change in the life of a client. `base_url` has no `/v1` at its end."""

    base_url: str
    api_key: str | None = field(repr=False)
    model: str | None
    headers: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(
        cls, base_url: str | None, api_key: str | None, model: str | None, headers: Mapping[str, str] | None
    ) -> Settings:
        """Raises `ValueError` for an address or a key that makes no sense."""
        environment = os.environ
        url = base_url or environment.get("HEADRACE_BASE_URL") or DEFAULT_BASE_URL
        if api_key is None:
            api_key = environment.get("HEADRACE_API_KEY") or environment.get("OPENAI_API_KEY")
        return cls(base_url=_checked_url(url), api_key=_checked_key(api_key), model=model, headers=dict(headers or {}))

    def http_headers(self) -> dict[str, str]:
        headers = {"User-Agent": f"headrace-client/{__version__}", **self.headers}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return headers


def _checked_url(url: str) -> str:
    """Addresses that end in `/v1`, as OpenAI's clients want them, are the same server."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"The base URL {url!r} makes no sense: {error}.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"The base URL must begin with http:// or https:// and name a host, got {url!r}.")
    return url.rstrip("/").removesuffix("/v1")


def _checked_key(key: str | None) -> str | None:
    """Never shows the key."""
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError("The API key holds characters that no HTTP header can carry.")
    return key or None
