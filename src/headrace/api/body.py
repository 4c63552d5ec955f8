"""Reading a JSON body into its schema."""

from __future__ import annotations

import asyncio
import json
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from headrace.api.errors import MalformedBody, malformed
from headrace.core.errors import CallerError

B = TypeVar("B", bound=BaseModel)

LARGEST = 64 * 1024 * 1024
"""Most bytes of a body: a full batch of 1024 prompts at 16k tokens each, written as ids."""

_PARSED_IN_PLACE = 100_000


class BodyTooLarge(CallerError):
    """More bytes than a request may have."""

    status = 413


async def read_body(http: Request, schema: type[B]) -> B:
    """Raises `MalformedBody` or `BodyTooLarge`. Large bodies are parsed in a thread, off the event loop."""
    media_type = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise MalformedBody(f"Unsupported Media Type: Only 'application/json' is allowed, got {media_type!r}.")
    raw = await _read(http)
    if len(raw) <= _PARSED_IN_PLACE:
        return _parse(raw, schema)
    return await asyncio.to_thread(_parse, raw, schema)


async def _read(http: Request) -> bytes:
    declared = http.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > LARGEST:
        raise _too_large()
    chunks, size = [], 0
    async for chunk in http.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > LARGEST:
            raise _too_large()
    return b"".join(chunks)


def _too_large() -> BodyTooLarge:
    return BodyTooLarge(f"The body is larger than {LARGEST} bytes.")


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
