"""The body of /run and /runsync: the worker's input, and what is to happen around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from pydantic_core import from_json

from headrace.core.errors import BadRequest
from headrace.jobs import JobPolicy

_KEYS = frozenset({"input", "webhook", "policy", "s3Config", "webhookV2"})
_POLICY = {
    "execution_timeout": ("executionTimeout", int, "an integer, in milliseconds"),
    "ttl": ("ttl", int, "an integer, in milliseconds"),
    "low_priority": ("lowPriority", bool, "true or false"),
}
"""Field of `JobPolicy` -> its name in a body, and what it may hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What was sent, checked. Of `s3Config` nothing is kept: it holds a secret, and nothing here needs it."""

    input: dict[str, Any]
    webhook: str | None
    policy: JobPolicy


def read_envelope(raw: bytes, default: JobPolicy) -> Envelope:
    """`default` is for what a job's policy does not say. Raises `BadRequest`, naming the key."""
    try:
        from_json(raw, allow_inf_nan=False)  # refuses what is nested too deeply
        body = msgspec.json.decode(raw)  # refuses numbers that no float can hold; the store reads it in the same way
    except ValueError as error:
        raise BadRequest(f"The body is not JSON: {error}.") from None
    if not isinstance(body, dict):
        raise BadRequest("The body must be a JSON object with an input.", parameter="input")
    body = _unwrapped(body)
    given = body.get("input")
    if not isinstance(given, dict) or not given:
        raise BadRequest("input must be an object that is not empty.", parameter="input")
    return Envelope(input=given, webhook=_webhook(body.get("webhook")), policy=_policy(body.get("policy"), default))


def _unwrapped(body: dict[str, Any]) -> dict[str, Any]:
    """The SDK puts an input of its own around an envelope it was given; the inner one counts then, key by key."""
    inner = body.get("input")
    if not isinstance(inner, dict) or "input" not in inner or not _KEYS.issuperset(inner):
        return body
    return {**body, **inner}


def _webhook(url: Any) -> str | None:
    """Whether it may be called is for the queue to say."""
    if url is None or url == "":
        return None
    if not isinstance(url, str) or not url.isprintable():
        raise BadRequest("webhook must be a URL.", parameter="webhook")
    return url


def _policy(given: Any, default: JobPolicy) -> JobPolicy:
    if given is None:
        return default
    if not isinstance(given, Mapping):
        raise BadRequest("policy must be an object.", parameter="policy")
    changes: dict[str, Any] = {}
    for field, (name, kind, kind_name) in _POLICY.items():
        if (value := given.get(name)) is None:
            continue
        if type(value) is not kind:
            raise BadRequest(f"policy.{name} must be {kind_name}.", parameter=f"policy.{name}", value=value)
        changes[field] = value
    policy = replace(default, **changes)
    policy.check()
    return policy
