"""The HTTP server and the signals that end it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from headrace.config.sections import ServeConfig


class Interrupts:
    """SIGINT and SIGTERM: the first asks to stop, the second to stop at once."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Listen for the signals inside the block. Needs the main thread and a running event loop."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        (self.stop_at_once if self.stop.is_set() else self.stop).set()


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
