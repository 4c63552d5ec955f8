"""The HTTP application: middleware from the outside in, then the routes of every protocol family."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Scope

from headrace import __version__
from headrace.api.auth import Authentication
from headrace.api.disconnect import CallerGone, answer_nobody
from headrace.api.errors import ErrorBoundary, answer_error
from headrace.api.home import home_router
from headrace.api.load import ServerLoad, TrackLoad
from headrace.api.openai.routes import SCHEMAS, openai_router
from headrace.api.openapi import describe_bodies
from headrace.api.probes import probe_router
from headrace.api.request_ids import RequestIds
from headrace.api.root_path import RootPath
from headrace.config.sections import ServeConfig
from headrace.core.errors import HeadraceError
from headrace.metrics import CountRequests
from headrace.service import Services


def create_app(services: Services, config: ServeConfig) -> FastAPI:
    """The app answers from the start; routes that need the model answer 503 until `services` has its generator.

    `--root-path` is handled here: the ASGI server must not be given it as well.
    """
    load = ServerLoad()
    has_docs = not config.http.disable_fastapi_docs
    app = FastAPI(
        title="Headrace",
        version=__version__,
        docs_url="/docs" if has_docs else None,
        redoc_url="/redoc" if has_docs else None,
        openapi_url="/openapi.json" if has_docs else None,
        middleware=_middleware(services, config, load),
        exception_handlers={HeadraceError: answer_error, CallerGone: answer_nobody},
    )
    for router in (
        home_router(services, has_docs=has_docs),
        probe_router(services, load),
        openai_router(services, config),
    ):
        app.include_router(router)
    describe_bodies(app, SCHEMAS)
    return app


def _middleware(services: Services, config: ServeConfig, load: ServerLoad) -> list[Middleware]:
    """Outermost first. CORS stands outside authentication, so that browsers may read a 401."""
    http = config.http
    layers = [Middleware(RootPath, prefix=http.root_path)]
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
