"""Where errors become responses, each in the shape of the family whose path it is. No exception leaks beyond."""

from __future__ import annotations

import logging

from fastapi import Request, Response
from fastapi.exception_handlers import http_exception_handler
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.api.errors import error_response
from headrace.api.root_path import route_path
from headrace.api.runpod.errors import job_error_response
from headrace.api.runpod.paths import is_job_path
from headrace.core.errors import HeadraceError

logger = logging.getLogger(__name__)


def write_error(scope: Scope, error: Exception) -> Response:
    """The response to an error at the path of `scope`."""
    return job_error_response(error) if is_job_path(route_path(scope)) else error_response(error)


async def answer_error(http: Request, error: Exception) -> Response:
    """FastAPI's handler for the whole tree."""
    if isinstance(error, HeadraceError) and error.status == 500:
        logger.error("%s: %s", type(error).__name__, error.message)
    return write_error(http.scope, error)


async def answer_http_exception(http: Request, error: HTTPException) -> Response:
    """FastAPI's handler for what routing itself refuses: a path that nobody has, a method that a path does not take."""
    if is_job_path(route_path(http.scope)):
        return job_error_response(error)
    return await http_exception_handler(http, error)


class ErrorBoundary:
    """Turns an exception that nobody expected into a logged 500, unless the response has already begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await write_error(scope, error)(scope, receive, send)
