"""The API path alone: tokens streamed over HTTP on one core by an engine that costs nothing.

    python benchmarks/api_path.py --concurrency 1 32 --step-ms 25 4 0

Everything of `headrace serve` but the model is real and runs in the processes it always runs in: HTTP, the app and its
middleware, tokenizer, incremental decoding, SSE, metrics, and the transport to an engine process. That process holds no
model: it gives every request random tokens, one message a step for all of them, a step every `--step-ms` milliseconds.
The API process has the first core to itself; the engine and the client, which only counts events, share the second.

With `--step-ms 0` the engine runs ahead as far as it can, and the API process sends what has come meanwhile in one
event, so "tokens/event" rises above 1. `--profile` shows where the API process spent its time; cProfile slows it.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import multiprocessing
import os
import pstats
import random
import socket
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import uvloop

from headrace.api.app import create_app
from headrace.cli.server import http_server
from headrace.config.sections import HttpConfig, LoggingConfig, ModelConfig, ServeConfig
from headrace.core.request import EngineInfo, FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.hub import open_checkpoint
from headrace.metrics import Metrics
from headrace.runtime.child import run_child
from headrace.runtime.host import EngineHost
from headrace.service.generation import Generator
from headrace.service.model_text import load_model_text
from headrace.service.served_model import ServedModel
from headrace.service.services import Services

VOCAB_SIZE = 49152


class TokenSource:
    """What the engine process runs in place of an `Engine`."""

    info = EngineInfo(
        architecture="None",
        vocab_size=VOCAB_SIZE,
        max_model_len=8192,
        dtype="float32",
        device="cpu",
        kernels="none",
        block_size=16,
        num_blocks=4096,
        load_seconds=0.0,
    )

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._ids = random.Random(0)
        self._left: dict[str, int] = {}
        self._due = 0.0

    @property
    def has_work(self) -> bool:
        return bool(self._left)

    @property
    def stats(self) -> StepStats:
        return StepStats(running=len(self._left))

    def add(self, request: Request) -> None:
        self._left[request.request_id] = request.sampling.max_tokens

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        self._left.pop(request_id, None)
        return []

    def step(self) -> StepOutput:
        self._due = max(self._due + self._step_seconds, time.perf_counter())
        time.sleep(max(0.0, self._due - time.perf_counter()))
        outputs = []
        for request_id, left in list(self._left.items()):
            last = left == 1
            token = self._ids.randrange(VOCAB_SIZE)
            outputs.append(SequenceOutput(request_id, 0, [token], finish_reason=FinishReason.LENGTH if last else None))
            if last:
                del self._left[request_id]
            else:
                self._left[request_id] = left - 1
        return StepOutput(outputs, StepStats(running=len(self._left), generation_tokens=len(outputs)))


def run_engine(step_ms: str, core: str, descriptor: str) -> int:
    """The engine process."""
    os.sched_setaffinity(0, {int(core)})
    return run_child(int(descriptor), lambda order, progress: TokenSource(float(step_ms) / 1e3))  # type: ignore[return-value]


def run_api(model: str, step_ms: float, cores: list[int], control: Connection, *, profile: bool) -> None:
    """The API process. Sends its port over `control`, then its CPU seconds whenever asked, until it hears None."""
    os.sched_setaffinity(0, {cores[0]})
    command = (sys.executable, __file__, "engine", str(step_ms), str(cores[1]))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(model, command, control, profile=profile))


async def serve(model: str, command: tuple[str, ...], control: Connection, *, profile: bool) -> None:
    """As `headrace serve` puts it together, with another engine process."""
    config = ServeConfig(
        model=ModelConfig(model=model), http=HttpConfig(port=0), logging=LoggingConfig(disable_uvicorn_access_log=True)
    )
    checkpoint = open_checkpoint(model)
    text = load_model_text(config.model, checkpoint)
    metrics = Metrics()
    counts = metrics.model(model)
    host = EngineHost(command=command)
    engine = host.engine(str(checkpoint.path), config.engine, counts.on_step)
    await engine.start()
    served = ServedModel(config.served[0])
    services = Services([served], metrics)
    generator = Generator(
        engine,
        text.tokenizer,
        text.template,
        limits=config.limits,
        seed=0,
        defaults=text.sampling_defaults,
        eos_token_ids=text.eos_token_ids,
        metrics=counts,
        model_name=model,
    )
    served.open(generator)
    server = http_server(create_app(services, config), config)
    profiler = cProfile.Profile()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        control.send(listener.getsockname()[1])
        if profile:
            profiler.enable()
        await answer(control)
        profiler.disable()
        server.should_exit = True
        await serving
    generator.close()
    await host.stop()
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


async def answer(control: Connection) -> None:
    """Tell the CPU seconds of this process, its own and the kernel's, to whoever asks."""
    told_to_stop = asyncio.Event()

    def on_message() -> None:
        if control.recv() is None:
            told_to_stop.set()
        else:
            control.send(time.process_time())

    loop = asyncio.get_running_loop()
    loop.add_reader(control.fileno(), on_message)
    await told_to_stop.wait()
    loop.remove_reader(control.fileno())


@dataclass(frozen=True)
class Load:
    """A closed loop: `concurrency` clients, each sending its next request when the last has ended."""

    concurrency: int
    requests_per_client: int
    prompt_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.concurrency * self.requests_per_client * self.output_tokens

    async def run(self, port: int, model: str) -> int:
        """Returns the number of events with tokens."""
        return sum(await asyncio.gather(*(self._client(port, model, number) for number in range(self.concurrency))))

    async def _client(self, port: int, model: str, number: int) -> int:
        ids = random.Random(number)
        events = 0
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(self.requests_per_client):
            prompt = [ids.randrange(100, VOCAB_SIZE) for _ in range(self.prompt_tokens)]
            body = {"model": model, "prompt": prompt, "max_tokens": self.output_tokens, "ignore_eos": True}
            text = json.dumps({**body, "stream": True}).encode()
            head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(text)}\r\n\r\n".encode() + text)
            received = b""
            # The end of the body may come apart from the last event.
            while not received.endswith(b"\r\n0\r\n\r\n"):
                piece = await reader.read(1 << 16)
                if not piece:
                    raise SystemExit("The server closed the connection.")
                received += piece
            if not received.startswith(b"HTTP/1.1 200"):
                raise SystemExit(received.decode())
            events += received.count(b"data: {")
        writer.close()
        return events


def measure(args: argparse.Namespace, step_ms: float, cores: list[int]) -> None:
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    api = context.Process(target=run_api, args=(args.model, step_ms, cores, there), kwargs={"profile": args.profile})
    api.start()
    port = here.recv()

    def cpu_seconds() -> float:
        here.send("cpu")
        return here.recv()

    for concurrency in args.concurrency:
        load = Load(concurrency, args.requests_per_client, args.prompt_tokens, args.output_tokens)
        uvloop.run(Load(concurrency, 1, args.prompt_tokens, 16).run(port, args.model))  # warm-up
        before, began = cpu_seconds(), time.perf_counter()
        events = uvloop.run(load.run(port, args.model))
        seconds = time.perf_counter() - began
        cpu = cpu_seconds() - before
        print(
            f"| {concurrency} | {step_ms:g} | {load.tokens / seconds:.0f} | {load.tokens / events:.2f} "
            f"| {cpu / load.tokens * 1e6:.0f} | {cpu / seconds:.0%} |",
            flush=True,
        )
    here.send(None)
    api.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="whose tokenizer to use")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--step-ms", type=float, nargs="+", default=[25, 4, 0])
    parser.add_argument("--requests-per-client", type=int, default=4)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("This needs two cores: one for the API process, one for everything else.")
    os.sched_setaffinity(0, {cores[1]})
    print(
        "| clients | step ms | tokens/s | tokens/event | API CPU us/token | API core used |\n|---|---|---|---|---|---|"
    )
    for step_ms in args.step_ms:
        measure(args, step_ms, cores)


if __name__ == "__main__":
    if sys.argv[1:2] == ["engine"]:
        sys.exit(run_engine(*sys.argv[2:]))
    main()
