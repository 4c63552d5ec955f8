"""Routes for operators: is it alive, what is it, how busy is it."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from headrace import __version__
from headrace.api.load import ServerLoad
from headrace.service import Services


def probe_router(services: Services, load: ServerLoad) -> APIRouter:
    router = APIRouter(tags=["Probes"])

    async def health() -> Response:
        """Empty; 503 while the model is loading and when its engine is gone."""
        return Response(status_code=200 if services.healthy else 503)

    async def version() -> Response:
        return JSONResponse({"version": __version__})

    async def server_load() -> Response:
        """Requests being answered; always 0 without --enable-server-load-tracking."""
        return JSONResponse({"server_load": load.requests})

    router.get("/health")(health)
    router.get("/ping")(health)
    router.post("/ping")(health)
    router.get("/version")(version)
    router.get("/load")(server_load)
    if (metrics := services.metrics) is not None:

        @router.get("/metrics")
        async def prometheus() -> Response:
            """Prometheus' text format."""
            return Response(metrics.render(), headers={"Content-Type": metrics.content_type})

    return router
