"""Values in the query of a URL."""

from __future__ import annotations

from collections.abc import Collection

from fastapi import Request

from headrace.core.errors import BadRequest

SHORTEST_WAIT = 1_000
LONGEST_WAIT = 300_000


def wait_seconds(http: Request) -> float | None:
    """`?wait=`, which is in milliseconds. Raises `BadRequest`."""
    wait = integer(http, "wait", SHORTEST_WAIT, LONGEST_WAIT)
    return None if wait is None else wait / 1000


def integer(http: Request, name: str, low: int, high: int) -> int | None:
    """None if it is not there. Raises `BadRequest`."""
    text = http.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > len(str(high)) or not low <= int(text) <= high:
        raise BadRequest(f"{name} must be an integer from {low} to {high}.", parameter=name, value=text)
    return int(text)


def word(http: Request, name: str, words: Collection[str]) -> str | None:
    """None if it is not there. Raises `BadRequest`."""
    text = http.query_params.get(name)
    if text is not None and text not in words:
        raise BadRequest(f"{name} must be one of {', '.join(words)}.", parameter=name, value=text)
    return text
