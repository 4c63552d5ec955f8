"""The HTTP application: middleware from the outside in, then the routes of every protocol family."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from headrace import __version__
from headrace.api.auth import Authentication
from headrace.api.boundary import ErrorBoundary, answer_error, answer_http_exception
from headrace.api.disconnect import CallerGone, answer_nobody
from headrace.api.home import home_router
from headrace.api.legacy.routes import SCHEMAS as LEGACY_SCHEMAS
from headrace.api.legacy.routes import legacy_router
from headrace.api.live import LiveRequests
from headrace.api.load import ServerLoad, TrackLoad
from headrace.api.openai.routes import SCHEMAS as OPENAI_SCHEMAS
from headrace.api.openai.routes import openai_router
from headrace.api.openapi import describe_bodies
from headrace.api.pooling.routes import SCHEMAS as POOLING_SCHEMAS
from headrace.api.pooling.routes import pooling_router
from headrace.api.probes import probe_router
from headrace.api.request_ids import RequestIds
from headrace.api.root_path import RootPath
from headrace.api.runpod.routes import runpod_router
from headrace.api.runpod.slashes import SingleSlash
from headrace.api.tokens.routes import SCHEMAS as TOKENS_SCHEMAS
from headrace.api.tokens.routes import tokens_router
from headrace.config.sections import ServeConfig
from headrace.core.errors import HeadraceError
from headrace.jobs import JobQueue
from headrace.metrics import CountRequests
from headrace.service import Services


def create_app(services: Services, config: ServeConfig, jobs: JobQueue | None = None) -> FastAPI:
    """The app answers from the start; routes that need the model answer 503 until `services` has its generator.

    `--root-path` is handled here: the ASGI server must not be given it as well. Without `jobs` there are no job routes.
    """
    load = ServerLoad()
    live = LiveRequests()
    app = _bare_app(services, config, load)
    # In the order in which paths are looked up: those that are called most often, and have the least to do, first.
    for router in (
        pooling_router(services, config, live),
        openai_router(services, config, live),
        tokens_router(services, config, live),
        legacy_router(services, config, live),
        probe_router(services, load),
        home_router(services, has_docs=not config.http.disable_fastapi_docs),
    ):
        app.include_router(router)
    if jobs is not None:
        app.include_router(runpod_router(services, jobs, config, live))
    describe_bodies(app, OPENAI_SCHEMAS + TOKENS_SCHEMAS + POOLING_SCHEMAS + LEGACY_SCHEMAS)
    return app


def create_legacy_app(services: Services, config: ServeConfig) -> FastAPI:
    """As `create_app`, but with the demo API alone."""
    load = ServerLoad()
    app = _bare_app(services, config, load)
    app.include_router(probe_router(services, load))
    app.include_router(legacy_router(services, config, LiveRequests()))
    describe_bodies(app, LEGACY_SCHEMAS)
    return app


def _bare_app(services: Services, config: ServeConfig, load: ServerLoad) -> FastAPI:
    """An app without routes."""
    has_docs = not config.http.disable_fastapi_docs
    return FastAPI(
        title="Headrace",
        version=__version__,
        docs_url="/docs" if has_docs else None,
        redoc_url="/redoc" if has_docs else None,
        openapi_url="/openapi.json" if has_docs else None,
        middleware=_middleware(services, config, load),
        exception_handlers={
            HeadraceError: answer_error,
            HTTPException: answer_http_exception,
            CallerGone: answer_nobody,
        },
    )


def _middleware(services: Services, config: ServeConfig, load: ServerLoad) -> list[Middleware]:
    """Outermost first. CORS stands outside authentication, so that browsers may read a 401."""
    http = config.http
    layers = [Middleware(RootPath, prefix=http.root_path), Middleware(SingleSlash)]
    if services.metrics is not None:
        layers.append(Middleware(CountRequests, metrics=services.metrics.http, handler_of=_route_template))
    if http.enable_request_id_headers:
        layers.append(Middleware(RequestIds))
    layers.append(
        Middleware(
            CORSMiddleware,
            allow_origins=http.allowed_origins,
            allow_methods=http.allowed_methods,
            allow_headers=http.allowed_headers,
            allow_credentials=http.allow_credentials,
        )
    )
    layers.append(Middleware(Authentication, keys=http.api_key))
    if config.api.enable_server_load_tracking:
        layers.append(Middleware(TrackLoad, load=load))
    layers.append(Middleware(ErrorBoundary))
    return layers


def _route_template(scope: Scope) -> str | None:
    """The path of the route that a scope was given to, as it was declared."""
    route = scope.get("route")
    return None if route is None else route.path
