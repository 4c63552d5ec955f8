"""What the OpenAPI document says of the job routes, which read their requests themselves."""

from __future__ import annotations

import re
from typing import Any

_STEP = re.compile(r"{(\w+)}")

_STEPS = {
    "endpoint": "`default`, or the name of a served model with `/` written as `--`.",
    "job_id": "What /run or /runsync answered.",
}

_QUERIES: dict[str, tuple[str, str]] = {
    "wait": ("integer", "Milliseconds, 1000 to 300000."),
    "ttl": ("integer", "Milliseconds after which the job is forgotten."),
    "offset": ("integer", "Read from this chunk on, and leave the common cursor where it is."),
    "mode": ("string", "`poll` for one JSON document, `lines` for a line a chunk."),
    "status": ("string", "Jobs in this state only."),
    "limit": ("integer", "Most jobs to list."),
}

_JOB: dict[str, Any] = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": {
            "type": "object",
            "description": "`messages` or `prompt` with `sampling_params`; `openai_route` and `openai_input`; "
            "or `route`, `method` and `body`.",
        },
        "webhook": {"type": "string", "description": "Called when the job has ended."},
        "policy": {
            "type": "object",
            "properties": {
                "executionTimeout": {"type": "integer", "description": "Milliseconds that a run may take."},
                "ttl": {"type": "integer", "description": "Milliseconds from submission to the end."},
                "lowPriority": {"type": "boolean", "description": "Let other jobs go first."},
            },
        },
    },
}


def describe(path: str, queries: tuple[str, ...], *, takes_job: bool) -> dict[str, Any]:
    """For a route's `openapi_extra`."""
    steps = [
        {"name": name, "in": "path", "required": True, "description": _STEPS[name], "schema": {"type": "string"}}
        for name in _STEP.findall(path)
    ]
    asked = [
        {"name": name, "in": "query", "description": text, "schema": {"type": kind}}
        for name, (kind, text) in ((name, _QUERIES[name]) for name in queries)
    ]
    extra: dict[str, Any] = {"parameters": [*steps, *asked]}
    if takes_job:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _JOB}}}
    return extra
