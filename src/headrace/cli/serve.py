"""`headrace serve`: makes the objects, hands them to each other, and ends them in order.

Ready in seconds is decided here: the engine's process starts first, and while it imports torch and reads the weights,
this process imports the web framework, begins to answer and loads the tokenizer.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import uvloop

from headrace.cli.front import SERVE, Front
from headrace.cli.interrupts import Interrupts
from headrace.cli.listen import check_tls, is_open_to_others, listening_socket, url_of
from headrace.cli.logs import set_up_logging
from headrace.cli.progress import LoadProgress
from headrace.cli.throughput import ThroughputLog
from headrace.cli.welcome import curl_line, ready_line
from headrace.config.sections import ModelConfig, ServeConfig
from headrace.core.errors import StartupError
from headrace.core.request import StepStats
from headrace.hub import Checkpoint, open_checkpoint
from headrace.metrics import Metrics
from headrace.runtime.process import ProcessEngine
from headrace.service.services import Services

if TYPE_CHECKING:
    from headrace.jobs import JobService
    from headrace.service.model_text import ModelText

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

_MOMENT_SECONDS = 0.5
"""How long the headers of a model on this machine take to read, with room to spare."""

_LAST_WORDS_SECONDS = 2.0
"""How long requests may take to tell their callers that the engine was stopped."""


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
        names = config.model.served_model_name or (config.model.model,)
        self._metrics = Metrics(names[0], engine_metrics=not config.logging.disable_log_stats)
        self._throughput = ThroughputLog(config.logging.log_stats_interval)
        self._progress = LoadProgress()
        self._engine: ProcessEngine | None = None
        self._starting_jobs: asyncio.Task[JobService | None]
        self._services = Services(model_names=names, model_root=config.model.model, metrics=self._metrics)

    async def run(self, started: float) -> None:
        """Until a signal comes. Raises `StartupError` if the model cannot be loaded."""
        interrupts = Interrupts()
        with interrupts.installed():
            model = self._config.model
            finding = _in_thread(open_checkpoint, model.model, revision=model.revision)
            # A model that is here is found in a moment, and its engine imports torch while this process imports the
            # web framework. One that must be fetched takes its time, and the server answers meanwhile.
            await asyncio.wait({finding}, timeout=_MOMENT_SECONDS)
            opening = asyncio.create_task(self._open(finding, started), name="open-model")
            self._starting_jobs = asyncio.create_task(self._start_jobs(), name="start-jobs")
            try:
                await self._serve(opening, interrupts)
            finally:
                opening.cancel()
                self._progress.close()
                if self._engine is not None:
                    await self._engine.stop(at_once=True)

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
        from headrace.api.runpod.endpoints import DEFAULT
        from headrace.api.runpod.wire import webhook_body
        from headrace.jobs import JobService

        config = self._config.jobs
        jobs = JobService(config, endpoints=(DEFAULT,), render_webhook=webhook_body)
        try:
            await jobs.start()
        except StartupError as problem:
            if config.jobs_dir is not None or config.jobs_url is not None:
                raise
            # Nobody asked for jobs, and a second server on this machine must be able to start.
            log.warning("%s This server takes no jobs; --jobs-dir gives it a folder of its own.", problem.message)
        return jobs

    async def _open(self, finding: asyncio.Future[Checkpoint], started: float) -> None:
        """Load the model, open the routes that need it, and say so. The tokenizer is read while the engine loads."""
        checkpoint = await finding
        config, model = self._config, self._services.model_names[0]
        self._engine = engine = ProcessEngine(str(checkpoint.path), config.engine, self._on_step, self._progress)
        engine.launch()
        loading = asyncio.create_task(engine.start(), name="engine-start")
        try:
            text = await _in_thread(_load_text, config.model, checkpoint)
            info = await loading
        finally:
            loading.cancel()

        from headrace.api.runpod.executor import job_executor
        from headrace.service.generation import Generator

        self._progress.close()
        self._metrics.engine_loaded(info)
        self._services.open(
            Generator(
                engine,
                text.tokenizer,
                text.template,
                limits=config.limits,
                seed=config.seed,
                defaults=text.sampling_defaults,
                eos_token_ids=text.eos_token_ids,
                metrics=self._metrics,
                model_name=model,
            )
        )
        if (jobs := await self._starting_jobs) is not None:
            jobs.open(job_executor(self._services, config).execute)
        gc.freeze()  # what is there now stays: looking through it for garbage would hold up every stream for 0.1 s
        url = url_of(config.http, self._listener)
        print(ready_line(url, config.http, model, info, time.monotonic() - started))
        print(curl_line(url, config.http, *self._front.example(model, text)), flush=True)

    async def _drain(self, serving: asyncio.Task[None], jobs: JobService | None, at_once: asyncio.Event) -> None:
        """Let running requests and jobs finish, for a while; then stop the engine, which ends the others with an error.

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
            if self._engine is not None:
                await self._engine.stop(at_once=hurry.done())
            await asyncio.wait({serving}, timeout=0 if hurry.done() else _LAST_WORDS_SECONDS)
        finally:
            hurry.cancel()
            finishing.cancel()
            await asyncio.gather(finishing, serving, hurry, return_exceptions=True)

    def _on_step(self, stats: StepStats) -> None:
        self._metrics.on_step(stats)
        self._throughput.on_step(stats)


async def _stop_jobs(jobs: JobService | None, grace: float) -> None:
    if jobs is not None:
        await jobs.stop(grace)


def _load_text(config: ModelConfig, checkpoint: Checkpoint) -> ModelText:
    from headrace.service.model_text import load_model_text

    return load_model_text(config, checkpoint)


def _in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """What `function` returns or raises. Unlike a pool's threads, this one keeps no process from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not outcome.done():
            how()

    def work() -> None:
        try:
            how = partial(outcome.set_result, function(*args, **kwargs))
        except BaseException as problem:
            how = partial(outcome.set_exception, problem)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=work, daemon=True).start()
    return outcome
