"""`headrace serve`: makes the objects, hands them to each other, and ends them in order.

Ready in seconds is decided here: the engine's process starts first, and while it imports torch and reads the weights,
this process imports the web framework, begins to answer and loads the tokenizer.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import time
from typing import TYPE_CHECKING, Any

import uvloop

from headrace.cli.front import SERVE, Front
from headrace.cli.interrupts import Interrupts
from headrace.cli.listen import check_tls, is_open_to_others, listening_socket, url_of
from headrace.cli.loading import ModelLoader
from headrace.cli.logs import set_up_logging
from headrace.cli.throughput import ThroughputLog
from headrace.cli.welcome import curl_line, ready_lines
from headrace.config.sections import ServeConfig
from headrace.core.errors import StartupError
from headrace.hub import Checkpoint
from headrace.metrics import Metrics
from headrace.service.served_model import ServedModel
from headrace.service.services import Services

if TYPE_CHECKING:
    from headrace.jobs import JobService

log = logging.getLogger(__name__)

_MOMENT_SECONDS = 0.5
"""How long the headers of models on this machine take to read, with room to spare."""

_LAST_WORDS_SECONDS = 2.0
"""How long requests may take to tell their callers that the engines were stopped."""


def serve_until_stopped(config: ServeConfig, started: float, front: Front = SERVE) -> int:
    """Serve `front` until SIGINT or SIGTERM, then return 0. `started`: when the command began, in monotonic seconds.

    Raises `StartupError` if the server cannot start.
    """
    set_up_logging(config.logging)
    check_tls(config.http)
    with listening_socket(config.http) as listener:
        if is_open_to_others(config.http) and not config.http.api_key:
            log.warning("Whoever reaches %s can use this server: no --api-key is set.", config.http.host)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Serve(config, listener, front).run(started))
    return 0


class _Serve:
    """The objects of one server and their lives."""

    def __init__(self, config: ServeConfig, listener: socket.socket, front: Front) -> None:
        self._config = config
        self._front = front
        self._listener = listener
        self._metrics = Metrics(engine_metrics=not config.logging.disable_log_stats)
        self._throughput = ThroughputLog(config.logging.log_stats_interval)
        self._loader = ModelLoader(config, self._metrics, self._throughput)
        self._services = Services(self._loader.models, self._metrics)
        self._starting_jobs: asyncio.Task[JobService | None]

    async def run(self, started: float) -> None:
        """Until a signal comes. Raises `StartupError` if a model cannot be loaded."""
        interrupts = Interrupts()
        with interrupts.installed():
            self._loader.launch()
            models = self._loader.eager
            finding = asyncio.create_task(self._loader.find_all(models), name="find-models")
            # Models that are here are found in a moment, and their engines import torch while this process imports the
            # web framework. Those that must be fetched take their time, and the server answers meanwhile.
            await asyncio.wait({finding}, timeout=_MOMENT_SECONDS)
            opening = asyncio.create_task(self._open(models, finding, started), name="open-models")
            self._starting_jobs = asyncio.create_task(self._start_jobs(), name="start-jobs")
            try:
                await self._serve(opening, interrupts)
            finally:
                opening.cancel()
                await self._loader.stop(at_once=True)

    async def _serve(self, opening: asyncio.Task[None], interrupts: Interrupts) -> None:
        """Answer until a signal comes, then let what runs come to its end."""
        jobs = await self._starting_jobs

        from headrace.cli.server import http_server

        app = self._front.create_app(self._services, self._config, None if jobs is None else jobs.queue)
        server = http_server(app, self._config)
        serving = asyncio.create_task(server.serve(sockets=[self._listener]), name="http")
        stopping = asyncio.create_task(interrupts.stop.wait(), name="stop-signal")
        background: list[asyncio.Task[Any]] = [stopping]
        if not self._config.logging.disable_log_stats:
            background.append(asyncio.create_task(self._throughput.run(), name="throughput"))
        try:
            await asyncio.wait({serving, stopping, opening}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                await opening
                await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving  # it ends by itself only with an error
        finally:
            for task in (*background, opening):
                task.cancel()
            server.should_exit = True
            await self._drain(serving, jobs, interrupts.stop_at_once)

    async def _start_jobs(self) -> JobService | None:
        """The job queue, None where this server has no routes for it. Raises `StartupError`."""
        if not self._front.has_jobs:
            return None
        from headrace.api.runpod.endpoints import Endpoints
        from headrace.api.runpod.wire import webhook_body
        from headrace.jobs import JobService

        config = self._config.jobs
        jobs = JobService(config, endpoints=Endpoints(self._config.served).queues, render_webhook=webhook_body)
        try:
            await jobs.start()
        except StartupError as problem:
            if config.jobs_dir is not None or config.jobs_url is not None:
                raise
            # Nobody asked for jobs, and a second server on this machine must be able to start.
            log.warning("%s This server takes no jobs; --jobs-dir gives it a folder of its own.", problem.message)
        return jobs

    async def _open(self, models: list[ServedModel], finding: asyncio.Task[list[Checkpoint]], started: float) -> None:
        """Load the models that are not lazy, run jobs, and say that the server is ready."""
        await self._loader.load_all(models, await finding)
        await self._loader.look_at_lazy()
        if (jobs := await self._starting_jobs) is not None:
            from headrace.api.runpod.executor import job_executor

            jobs.open(job_executor(self._services, self._config).execute)
        gc.freeze()  # what is there now stays: looking through it for garbage would hold up every stream for 0.1 s
        http = self._config.http
        url = url_of(http, self._listener)
        for line in ready_lines(url, http, self._services.models, time.monotonic() - started):
            print(line)
        print(curl_line(url, http, *self._front.example(self._services.models)), flush=True)

    async def _drain(self, serving: asyncio.Task[None], jobs: JobService | None, at_once: asyncio.Event) -> None:
        """Let running requests and jobs finish, for a while; then stop the engines, which fails what is left.

        Jobs that have not finished by then go back into the queue.
        """
        grace = self._config.http.shutdown_timeout
        hurry = asyncio.create_task(at_once.wait(), name="second-stop-signal")
        ending = asyncio.create_task(_stop_jobs(jobs, grace), name="stop-jobs")
        finishing: asyncio.Future[Any] = asyncio.gather(serving, ending)
        try:
            either: set[asyncio.Future[Any]] = {finishing, hurry}
            await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if hurry.done():
                ending.cancel()
                await asyncio.gather(ending, return_exceptions=True)
                await _stop_jobs(jobs, 0)
            else:
                await ending
            await self._loader.stop(at_once=hurry.done())
            await asyncio.wait({serving}, timeout=0 if hurry.done() else _LAST_WORDS_SECONDS)
        finally:
            hurry.cancel()
            finishing.cancel()
            await asyncio.gather(finishing, serving, hurry, return_exceptions=True)


async def _stop_jobs(jobs: JobService | None, grace: float) -> None:
    if jobs is not None:
        await jobs.stop(grace)
