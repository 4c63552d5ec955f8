"""The shapes that a job's `input` may have, read into what is to be run.

Everything here happens when the job runs, not when it is submitted: what is wrong makes the job fail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from headrace.api.runpod.growth import ChunkGrowth
from headrace.api.runpod.sampling import SAMPLING_NAMES, TRUNCATION, read_sampling
from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams
from headrace.service import Message

CHAT_ROUTE = "/v1/chat/completions"
COMPLETION_ROUTE = "/v1/completions"

_STREAMING = ("stream", "min_batch_size", "max_batch_size", "batch_size_growth_factor")
"""Belong to the top level of the input; also understood inside `sampling_params`, where some users put them."""

_KNOWN = {
    *("openai_input", "openai_route", "route", "method", "body"),
    *("messages", "prompt", "sampling_params", "apply_chat_template", "use_openai_format", TRUNCATION),
    *_STREAMING,
    *SAMPLING_NAMES,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeJob:
    """Text for a prompt, answered in the native format.

    A `prompt` that is a text is taken as it is, messages are put into the chat template. `growth` None: the answer
    comes whole.
    """

    prompt: str | list[Message]
    sampling: SamplingParams
    truncate_prompt_tokens: int | None
    growth: ChunkGrowth | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteJob:
    """A request to one of the engine's own routes, answered as that route answers. `body` None sends none."""

    method: str
    path: str
    body: dict[str, Any] | None

    @property
    def model(self) -> str | None:
        """The model that it names."""
        name = None if self.body is None else self.body.get("model")
        return name if isinstance(name, str) and name else None

    def for_model(self, name: str | None) -> RouteJob:
        """The same for the model of this name, unless it names one."""
        if name is None or self.body is None or self.body.get("model"):
            return self
        return replace(self, body={**self.body, "model": name})


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDefaults:
    """What a job that does not say gets. `max_tokens` is for native jobs."""

    max_tokens: int = 16
    growth: ChunkGrowth = field(default_factory=ChunkGrowth)


def read_input(given: Mapping[str, Any], defaults: InputDefaults) -> NativeJob | RouteJob:
    """The first shape that matches wins. Raises `BadRequest`, naming the key."""
    if body := given.get("openai_input"):
        return _posted(given.get("openai_route") or CHAT_ROUTE, _object("openai_input", body))
    if route := given.get("openai_route"):
        return RouteJob(method="GET", path=_path("openai_route", route), body=None)
    if route := given.get("route"):
        return _any_route(route, given)
    if given.get("messages") is None and given.get("prompt") is None:
        raise BadRequest("input must have one of messages, prompt, openai_input, openai_route and route.")
    return _text_job(given, defaults)


def unknown_keys(given: Mapping[str, Any]) -> list[str]:
    """Keys of an input that mean nothing in any shape."""
    return [name for name in given if name not in _KNOWN]


def _posted(route: Any, body: dict[str, Any]) -> RouteJob:
    return RouteJob(method="POST", path=_path("openai_route", route), body=body)


def _any_route(route: Any, given: Mapping[str, Any]) -> RouteJob:
    body = given.get("body")
    method = given.get("method") or ("GET" if body is None else "POST")
    if not isinstance(method, str):
        raise BadRequest("method must be the name of an HTTP method.", parameter="method", value=method)
    return RouteJob(
        method=method.upper(), path=_path("route", route), body=None if body is None else _object("body", body)
    )


def _text_job(given: Mapping[str, Any], defaults: InputDefaults) -> NativeJob | RouteJob:
    sampling, streaming = _split(given)
    growth = _growth(streaming, defaults.growth)
    # Read in any case, so that both formats refuse the same.
    job = NativeJob(
        prompt=_prompt(given),
        sampling=read_sampling(sampling, max_tokens=defaults.max_tokens),
        truncate_prompt_tokens=_integer(TRUNCATION, sampling.get(TRUNCATION)),
        growth=growth if _flag("stream", streaming.get("stream")) else None,
    )
    if not _flag("use_openai_format", given.get("use_openai_format")):
        return job
    return _in_openai_format(job, {name: value for name, value in sampling.items() if value is not None})


def _in_openai_format(job: NativeJob, given: Mapping[str, Any]) -> RouteJob:
    """The same answer, written otherwise: `given`, and the defaults of jobs where the route has the model's own."""
    values: dict[str, Any] = {
        "max_tokens": job.sampling.max_tokens,
        "temperature": job.sampling.temperature,
        "top_p": job.sampling.top_p,
        "top_k": job.sampling.top_k,
        "min_p": job.sampling.min_p,
        "repetition_penalty": job.sampling.repetition_penalty,
        **given,
        "stream": job.growth is not None,
    }
    if isinstance(job.prompt, str):
        return _posted(COMPLETION_ROUTE, {"prompt": job.prompt, **values})
    if job.sampling.logprobs is not None:
        values |= {"logprobs": True, "top_logprobs": job.sampling.logprobs}
    return _posted(CHAT_ROUTE, {"messages": job.prompt, **values})


def _prompt(given: Mapping[str, Any]) -> str | list[Message]:
    """Messages win over a prompt."""
    if (messages := given.get("messages")) is not None:
        if not isinstance(messages, list) or not messages:
            raise BadRequest("messages must be a list of at least one message.", parameter="messages")
        if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
            raise BadRequest("messages must be objects with a role.", parameter="messages")
        return messages
    prompt = given["prompt"]
    if not isinstance(prompt, str):
        raise BadRequest("prompt must be a text.", parameter="prompt")
    if _flag("apply_chat_template", given.get("apply_chat_template")):
        return [{"role": "user", "content": prompt}]
    return prompt


def _split(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sampling values and streaming values. Each is found in its own place or, failing that, in the other's."""
    params = given.get("sampling_params")
    params = {} if params is None else _object("sampling_params", params)
    nested = {name: value for name, value in params.items() if name in _STREAMING}
    sampling = {name: value for name, value in params.items() if name not in _STREAMING}
    beside = {name: value for name, value in given.items() if name in SAMPLING_NAMES or name == TRUNCATION}
    streaming = {name: given[name] for name in _STREAMING if given.get(name) is not None}
    return {**beside, **sampling}, {**nested, **streaming}


def _growth(given: Mapping[str, Any], default: ChunkGrowth) -> ChunkGrowth:
    """0 and null take the default, as they do for a size that is not given."""
    smallest = _integer("min_batch_size", given.get("min_batch_size"))
    largest = _integer("max_batch_size", given.get("max_batch_size"))
    factor = given.get("batch_size_growth_factor")
    if factor is not None and (isinstance(factor, bool) or not isinstance(factor, int | float) or factor < 0):
        raise BadRequest(
            f"batch_size_growth_factor must be a number of at least 0, got {factor!r}.",
            parameter="batch_size_growth_factor",
        )
    for name, size in (("min_batch_size", smallest), ("max_batch_size", largest)):
        if size is not None and size < 0:
            raise BadRequest(f"{name} must be at least 0, got {size}.", parameter=name)
    changes: dict[str, Any] = {"smallest": smallest, "largest": largest, "factor": factor}
    return replace(default, **{name: value for name, value in changes.items() if value})


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be an object.", parameter=name)
    return value


def _path(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadRequest(f"{name} must be the path of a route.", parameter=name)
    return value if value.startswith("/") else f"/{value}"


def _flag(name: str, value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise BadRequest(f"{name} must be true or false, got {value!r}.", parameter=name)
    return value


def _integer(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise BadRequest(f"{name} must be an integer, got {value!r}.", parameter=name)
    return value
