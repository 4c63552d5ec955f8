"""Reading a JSON body into its schema."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from headrace.api.disconnect import CallerGone
from headrace.api.errors import MalformedBody, malformed
from headrace.core.errors import CallerError

B = TypeVar("B", bound=BaseModel)
T = TypeVar("T")

LARGEST = 64 * 1024 * 1024
"""Most bytes of a body: a full batch of 1024 prompts at 16k tokens each, written as ids."""

_PARSED_IN_PLACE = 100_000


class BodyTooLarge(CallerError):
    """More bytes than a request may have."""

    status = 413


async def read_body(http: Request, schema: type[B]) -> B:
    """Raises `MalformedBody`, `BodyTooLarge` or `CallerGone`."""
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MalformedBody(f"Unsupported Media Type: Only 'application/json' is allowed, got {media_type!r}.")
    return await parsed(await read_bytes(http, LARGEST), partial(_parse, schema=schema))


async def parsed(raw: bytes, parse: Callable[[bytes], T]) -> T:
    """What `parse` makes of a body; of a large one in a thread, off the event loop."""
    return parse(raw) if len(raw) <= _PARSED_IN_PLACE else await asyncio.to_thread(parse, raw)


async def read_bytes(http: Request, most: int) -> bytes:
    """The whole body. Raises `BodyTooLarge` beyond `most` bytes, and `CallerGone` if it never comes to its end."""
    declared = http.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > most:
        raise _too_large(most)
    chunks, size = [], 0
    try:
        async for chunk in http.stream():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                raise _too_large(most)
    except ClientDisconnect:
        raise CallerGone from None
    return b"".join(chunks)


def _too_large(most: int) -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {most} bytes.")


def _parse(raw: bytes, schema: type[B]) -> B:
    try:
        data = from_json(raw, allow_inf_nan=False)
    except ValueError as error:
        failure = {"type": "json_invalid", "loc": (_offset(raw),), "msg": f"Invalid JSON: {error}"}
        raise malformed([failure]) from None
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise malformed(error.errors(include_url=False, include_context=False, include_input=False)) from None


def _offset(raw: bytes) -> int:
    """Where the JSON breaks, in characters from the start."""
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        return error.pos
    except UnicodeDecodeError as error:
        return error.start
    except (ValueError, RecursionError):
        pass
    return 0
