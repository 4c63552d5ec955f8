"""The HTTP server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from headrace.config.sections import ServeConfig


class HttpServer(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal instead of with exit code 0.

    `should_exit` makes `serve` stop accepting, wait for running requests without limit, and return.
    """

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def http_server(app: ASGIApp, config: ServeConfig) -> HttpServer:
    """A server for `app`. Its socket comes from `listening_socket`; its log lines are set up by `logs.py`."""
    http = config.http
    return HttpServer(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=not config.logging.disable_uvicorn_access_log,
            timeout_keep_alive=http.timeout_keep_alive,
            server_header=False,
            ws="none",
            lifespan="off",
            ssl_keyfile=http.ssl_keyfile,
            ssl_certfile=http.ssl_certfile,
            ssl_ca_certs=http.ssl_ca_certs,
            ssl_cert_reqs=http.ssl_cert_reqs,
            ssl_ciphers=http.ssl_ciphers,
        )
    )
