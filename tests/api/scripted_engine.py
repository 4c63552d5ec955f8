"""An engine that says what it was told to. It keeps the promises of `EngineClient`, without a model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from headrace.core.errors import EngineDead
from headrace.core.request import EngineInfo, FinishReason, Request, SequenceOutput, TokenLogprobs
from headrace.core.sampling import TokenSampling
from headrace.core.vocabulary import Vocabulary
from headrace.runtime.client import EngineState, RequestStream

LOGPROB = -0.5
"""Of the token that was chosen, always; alternatives have one less each."""


@dataclass
class Script:
    """Every choice says `answer`, then goes on with the last id of it as long as its `max_tokens` allow.

    `by_prompt` maps a prompt's first id to another answer; `broken` are first ids of prompts on which the engine fails.
    While it `holds`, choices say three tokens and no more.
    `rank` is that of every chosen token: 1 and the alternatives have the chosen one first, 2 and it comes second, …
    """

    answer: list[int]
    by_prompt: dict[int, list[int]] = field(default_factory=dict)
    broken: frozenset[int] = frozenset()
    dies: bool = False
    holds: bool = False
    rank: int = 1


class ScriptedEngine:
    """One token of every choice at each turn of the event loop."""

    def __init__(self, script: Script, *, vocab_size: int, max_model_len: int) -> None:
        self.script = script
        self.state = EngineState.READY
        self.requests: list[Request] = []
        self.running: set[str] = set()
        self.aborted: list[tuple[str, int | None]] = []
        self._players: set[asyncio.Task[None]] = set()
        self.info = EngineInfo(
            architecture="Scripted",
            vocab_size=vocab_size,
            max_model_len=max_model_len,
            dtype="float32",
            device="cpu",
            kernels="none",
            block_size=16,
            num_blocks=64,
            load_seconds=0.0,
        )

    async def start(self) -> EngineInfo:
        return self.info

    async def stop(self) -> None:
        self.state = EngineState.STOPPED

    def learn(self, vocabulary: Vocabulary) -> None:
        """It says what it was told to, whatever the grammar."""

    def submit(self, request: Request) -> RequestStream:
        self.requests.append(request)
        self.running.add(request.request_id)
        stream = RequestStream(request, self._abort)
        player = asyncio.create_task(self._play(request, stream))
        self._players.add(player)
        player.add_done_callback(self._players.discard)
        return stream

    def _abort(self, request_id: str, choice: int | None) -> None:
        self.aborted.append((request_id, choice))
        if choice is None:
            self.running.discard(request_id)

    async def _play(self, request: Request, stream: RequestStream) -> None:
        answer = self.script.by_prompt.get(request.prompt_ids[0], self.script.answer)
        for turn in range(request.sampling.max_tokens):
            await asyncio.sleep(0)
            while self.script.holds and turn >= 3 and not stream.finished:
                await asyncio.sleep(0)
            if stream.finished:
                break
            if self.script.dies:
                stream.fail(EngineDead("The engine process is gone."))
                break
            if request.prompt_ids[0] in self.script.broken:
                self._fail(request, stream)
                break
            token = answer[min(turn, len(answer) - 1)]
            if request.beam is not None:
                self._search(request, stream, turn, answer)
                continue
            for choice in range(request.n):
                stream.deliver(self._output(request, choice, turn, token))
        self.running.discard(request.request_id)

    def _search(self, request: Request, stream: RequestStream, turn: int, answer: list[int]) -> None:
        """All beams say the answer; it ends them at its last id."""
        said = answer[: turn + 1]
        if request.beam.shown:
            stream.deliver(SequenceOutput(request.request_id, 0, beams=[said] * request.n))
        if turn + 1 < min(len(answer), request.sampling.max_tokens):
            return
        ended = said[-1] == request.sampling.eos_token_id
        for choice in range(request.n):
            stream.deliver(
                SequenceOutput(
                    request.request_id,
                    choice,
                    token_ids=said,
                    finish_reason=FinishReason.STOP if ended else FinishReason.LENGTH,
                    stop_reason=said[-1] if ended else None,
                    cumulative_logprob=LOGPROB * len(said),
                )
            )

    def _fail(self, request: Request, stream: RequestStream) -> None:
        for choice in range(request.n):
            stream.deliver(
                SequenceOutput(request.request_id, choice, finish_reason=FinishReason.ERROR, error="broken on purpose")
            )

    def _output(self, request: Request, choice: int, turn: int, token: int) -> SequenceOutput:
        sampling = request.sampling
        reason, stop = None, None
        if token == sampling.eos_token_id and not sampling.ignore_eos:
            reason = FinishReason.STOP
        elif token in sampling.stop_token_ids:
            reason, stop = FinishReason.STOP, token
        elif turn + 1 == sampling.max_tokens:
            reason = FinishReason.LENGTH
        first = turn == 0
        owed = request.prompt_ids[1:] if first and choice == 0 and sampling.prompt_logprobs is not None else []
        return SequenceOutput(
            request.request_id,
            choice,
            token_ids=[token],
            logprobs=[] if sampling.logprobs is None else [self._sampled(token, sampling)],
            prompt_logprobs=[self._logprobs(known, sampling.prompt_logprobs or 0) for known in owed],
            finish_reason=reason,
            stop_reason=stop,
            cached_tokens=0 if first else None,
            scheduled_time=request.arrival_time if first else None,
        )

    def _sampled(self, token: int, sampling: TokenSampling) -> TokenLogprobs:
        if (ids := sampling.logprob_token_ids) is None:
            return self._logprobs(token, sampling.logprobs)
        ranks = [place + 100 for place in range(len(ids))]
        return TokenLogprobs(token, LOGPROB, self.script.rank, list(ids), [-1.0 - place for place in ranks], ranks)

    def _logprobs(self, token: int, count: int) -> TokenLogprobs:
        """The chosen token at its rank among its neighbours; a rank of 1000 has probability zero."""
        rank = self.script.rank
        others = [token + offset for offset in range(1, self.info.vocab_size)][: count + 1]
        ranked = [*others[: rank - 1], token, *others[rank - 1 :]][:count] if rank <= count else others[:count]
        logprob = float("-inf") if rank == 1000 else LOGPROB
        return TokenLogprobs(token, logprob, rank, ranked, [LOGPROB - place for place in range(len(ranked))])
