"""What a server shows to its callers. There are two: `headrace serve`, and the demo API alone.

The web framework is imported only when an app is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.config.sections import ServeConfig
from headrace.service.services import Services

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from headrace.jobs import JobQueue
    from headrace.service.model_text import ModelText


@dataclass(frozen=True, slots=True)
class Front:
    """An app over the services, and a first request to it: the path and the body, given the model's name and text.

    The app is given the job queue, if the server has one; `has_jobs`: whether it has any use for it.
    """

    create_app: Callable[[Services, ServeConfig, JobQueue | None], ASGIApp]
    example: Callable[[str, ModelText], tuple[str, dict[str, Any]]]
    has_jobs: bool


def _all_families(services: Services, config: ServeConfig, jobs: JobQueue | None) -> ASGIApp:
    from headrace.api.app import create_app

    return create_app(services, config, jobs)


def _first_request(model: str, text: ModelText) -> tuple[str, dict[str, Any]]:
    if text.tokenizer is None:
        return "/inference/v1/generate", {"token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 32}}
    if text.template is None:
        return "/v1/completions", {"model": model, "prompt": "Once upon a time", "max_tokens": 32}
    return "/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}


def _demo_api(services: Services, config: ServeConfig, _: JobQueue | None) -> ASGIApp:
    from headrace.api.app import create_legacy_app

    return create_legacy_app(services, config)


def _first_prompt(_: str, __: ModelText) -> tuple[str, dict[str, Any]]:
    return "/generate", {"prompt": "Once upon a time", "max_tokens": 32}


SERVE = Front(_all_families, _first_request, has_jobs=True)
DEMO_API = Front(_demo_api, _first_prompt, has_jobs=False)
