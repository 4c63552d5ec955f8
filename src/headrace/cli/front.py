"""What a server shows to its callers. There are two: `headrace serve`, and the demo API alone.

The web framework is imported only when an app is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headrace.api.example import first_request
from headrace.config.sections import ServeConfig
from headrace.service.served_model import ServedModel
from headrace.service.services import Services

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from headrace.jobs import JobQueue


@dataclass(frozen=True, slots=True)
class Front:
    """An app over the services, and a first request to one of its models: the path and the body.

    The app is given the job queue, if the server has one; `has_jobs`: whether it has any use for it.
    """

    create_app: Callable[[Services, ServeConfig, JobQueue | None], ASGIApp]
    example: Callable[[Sequence[ServedModel]], tuple[str, dict[str, Any]]]
    has_jobs: bool


def _all_families(services: Services, config: ServeConfig, jobs: JobQueue | None) -> ASGIApp:
    from headrace.api.app import create_app

    return create_app(services, config, jobs)


def _demo_api(services: Services, config: ServeConfig, _: JobQueue | None) -> ASGIApp:
    from headrace.api.app import create_legacy_app

    return create_legacy_app(services, config)


def _first_prompt(_: Sequence[ServedModel]) -> tuple[str, dict[str, Any]]:
    return "/generate", {"prompt": "Once upon a time", "max_tokens": 32}


SERVE = Front(_all_families, first_request, has_jobs=True)
DEMO_API = Front(_demo_api, _first_prompt, has_jobs=False)
