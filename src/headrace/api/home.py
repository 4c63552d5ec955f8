"""The page at `/`: what this is, where its parts are, and a line to try."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from headrace import __version__
from headrace.api.example import first_request
from headrace.service import ServedModel, Services

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Headrace</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 3rem auto; padding: 0 1rem }}
pre {{ background: #8882; padding: 1rem; overflow-x: auto }}
</style>
<h1>Headrace {version}</h1>
<p>Serving {models}.</p>
<pre>{curl}</pre>
<p>{links}</p>
</html>
"""


def home_router(services: Services, *, has_docs: bool) -> APIRouter:
    router = APIRouter()
    paths = ["v1/models", "health", "version", "load", *(["metrics"] if services.metrics else [])]
    if has_docs:
        paths.insert(0, "docs")

    @router.get("/", include_in_schema=False)
    async def home(http: Request) -> HTMLResponse:
        page = _PAGE.format(
            version=__version__,
            models=", ".join(map(_about, services.models)),
            curl=escape(_curl(str(http.base_url), *first_request(services.models))),
            links=" · ".join(f'<a href="{path}">/{path}</a>' for path in paths),
        )
        return HTMLResponse(page)

    return router


def _about(model: ServedModel) -> str:
    state = "loaded on first use" if model.state is None else model.state.value
    return f"<strong>{escape(model.name)}</strong>: {state}"


def _curl(base_url: str, path: str, body: Mapping[str, Any]) -> str:
    return (
        f"curl {base_url}{path.removeprefix('/')} -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body, ensure_ascii=False))}"
    )
