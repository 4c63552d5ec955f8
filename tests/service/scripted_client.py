"""An engine that says what a test wrote for it, and helpers to listen to it through a generator."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from headrace.core.errors import EngineDead
from headrace.core.request import EngineInfo, FinishReason, Request, SequenceOutput, TokenLogprobs
from headrace.runtime import EngineState, RequestStream
from headrace.service import Delta, FinishedRequest, Generation, GenerationStream, PooledRequest

T = TypeVar("T")

VOCABULARY = 49152


@dataclass
class Scripted:
    """What the engine will say of one request: ids by choice, one step each, until `max_tokens` or their end."""

    ids: Sequence[Sequence[int]]
    stop: bool = False  # the last id is an EOS or stop token
    stop_reason: int | None = None
    steps: Callable[[list[int]], list[list[int]]] = field(default=lambda ids: [[token] for token in ids])


class ScriptedEngine:
    """An `EngineClient` of the same seams as the real ones, without a model.

    Outputs are delivered from the event loop, a step a turn. With `hold` nothing comes until `release` is called.
    """

    def __init__(self, *, max_model_len: int = 64, hold: bool = False) -> None:
        self.state = EngineState.READY
        self.info = EngineInfo(
            architecture="scripted",
            vocab_size=VOCABULARY,
            max_model_len=max_model_len,
            dtype="float32",
            device="cpu",
            kernels="none",
            block_size=16,
            num_blocks=4,
            load_seconds=0.0,
        )
        self.script = Scripted([[]])
        self.requests: list[Request] = []
        self.aborted: list[tuple[str, int | None]] = []
        self.streams: dict[str, RequestStream] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._released = asyncio.Event()
        if not hold:
            self._released.set()

    async def start(self) -> EngineInfo:
        return self.info

    async def stop(self) -> None:
        self.state = EngineState.STOPPED

    def submit(self, request: Request) -> RequestStream:
        if self.state is not EngineState.READY:
            raise EngineDead(f"The engine is {self.state}.")
        stream = RequestStream(request, lambda request_id, choice: self.aborted.append((request_id, choice)))
        self.requests.append(request)
        self.streams[request.request_id] = stream
        task = asyncio.create_task(self._speak(request, stream))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return stream

    def release(self) -> None:
        self._released.set()

    async def _speak(self, request: Request, stream: RequestStream) -> None:
        await self._released.wait()
        script = self.script
        for choice in range(request.n):
            ids = list(script.ids[choice % len(script.ids)])[: request.sampling.max_tokens]
            steps = script.steps(ids)
            for number, step in enumerate(steps):
                if stream.finished:
                    return
                stream.deliver(self._output(request, choice, step, first=number == 0, last=number == len(steps) - 1))
                await asyncio.sleep(0)

    def _output(self, request: Request, choice: int, ids: list[int], *, first: bool, last: bool) -> SequenceOutput:
        wanted = request.sampling.logprobs
        prompt_wanted = request.sampling.prompt_logprobs
        ending = FinishReason.STOP if self.script.stop else FinishReason.LENGTH
        return SequenceOutput(
            request.request_id,
            choice,
            ids,
            logprobs=[] if wanted is None else [logprobs_of(token, wanted) for token in ids],
            prompt_logprobs=[logprobs_of(token, prompt_wanted) for token in request.prompt_ids[1:]]
            if first and choice == 0 and prompt_wanted is not None
            else [],
            finish_reason=ending if last else None,
            stop_reason=self.script.stop_reason if last else None,
            cached_tokens=3 if first else None,
            scheduled_time=request.arrival_time if first else None,
        )


def logprobs_of(token: int, count: int) -> TokenLogprobs:
    """Made up: the token is the second best, ids 100, 101, … are the alternatives."""
    return TokenLogprobs(token, -1.5, 2, [100 + rank for rank in range(count)], [-float(rank) for rank in range(count)])


class Ledger:
    """A `RequestObserver` that writes down what it hears."""

    def __init__(self) -> None:
        self.first_tokens: list[float] = []
        self.inter_tokens: list[tuple[float, int]] = []
        self.finished: list[FinishedRequest] = []
        self.pooled: list[PooledRequest] = []
        self.rejected: list[str] = []

    def first_token(self, seconds: float) -> None:
        self.first_tokens.append(seconds)

    def inter_token(self, seconds: float, tokens: int) -> None:
        self.inter_tokens.append((seconds, tokens))

    def request_finished(self, request: FinishedRequest) -> None:
        self.finished.append(request)

    def request_pooled(self, request: PooledRequest) -> None:
        self.pooled.append(request)

    def request_rejected(self, reason: str) -> None:
        self.rejected.append(reason)


@dataclass
class Answer:
    """All deltas of one choice together."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    deltas: list[Delta] = field(default_factory=list)


async def collect(stream: GenerationStream) -> list[Answer]:
    answers = [Answer() for _ in range(stream.n)]
    async with stream:
        async for delta in stream:
            answer = answers[delta.choice]
            assert answer.finish_reason is None, "a delta after the last one"
            answer.text += delta.text
            answer.token_ids += delta.token_ids
            answer.finish_reason, answer.stop_reason = delta.finish_reason, delta.stop_reason
            answer.deltas.append(delta)
    return answers


def call(prompt: str | list[int], sampling: Any, **options: Any) -> Generation:
    return Generation(prompt=prompt, sampling=sampling, request_id=options.pop("request_id", "r"), **options)


def run(work: Coroutine[Any, Any, T]) -> T:
    """In an event loop of its own; nothing may take longer than the model-free tests here ever should."""
    return asyncio.run(asyncio.wait_for(work, timeout=30))
