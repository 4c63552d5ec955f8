"""What a caller reads of a running generation."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import chain

from headrace.core.errors import BadRequest, EngineError, Unavailable
from headrace.core.request import FinishReason, SequenceOutput, TokenLogprobs
from headrace.core.sampling import SamplingParams
from headrace.runtime.client import RequestStream
from headrace.service.admission import Ticket
from headrace.service.beams import BeamReader, without_stop_strings
from headrace.service.best_of import BestOf
from headrace.service.choice import Choice
from headrace.service.logprobs import LogprobRenderer
from headrace.service.timing import RequestClock
from headrace.service.types import Beam, Delta, PositionLogprobs
from headrace.service.workers import Workers
from headrace.text import Tokenizer


class GenerationStream:
    """Deltas of one prompt's `n` choices as they come; each choice ends with exactly one that has a finish reason.

    One reader, on the event loop. Must be entered (`async with`); leaving, for whatever reason, aborts what still runs.
    Iteration raises `EngineError` if the engine failed on this request and `EngineDead` if it went away.
    Beam searches and calls whose `best_of` exceeds `n` yield nothing before the end: then one whole delta a choice.

    `prompt_ids` is the prompt as the model sees it. `cached_tokens`, of these, were found in the prefix cache; it is
    known when the first delta arrives. So is `prompt_logprobs`: None if not asked for, else as long as the prompt, with
    None for the first position. With `tokenizer` None the deltas have no text.
    """

    def __init__(
        self,
        source: RequestStream,
        prompt_ids: list[int],
        sampling: SamplingParams,
        *,
        tokenizer: Tokenizer | None,
        workers: Workers,
        ticket: Ticket,
        clock: RequestClock | None,
    ) -> None:
        searches = sampling.use_beam_search
        if searches:
            sampling = without_stop_strings(sampling)
        self.prompt_ids = prompt_ids
        self.n = sampling.n
        self.cached_tokens = 0
        self.prompt_logprobs: list[PositionLogprobs | None] | None = None
        self._source = source
        self._workers = workers
        self._ticket = ticket
        self._clock = clock
        self._beam_reader = BeamReader(prompt_ids, sampling, tokenizer) if searches else None
        self._beams: list[list[int]] = []
        drawn = sampling.n if searches else sampling.num_candidates
        self._choices = [Choice(index, prompt_ids, sampling, tokenizer) for index in range(drawn)]
        self._best_of = BestOf(sampling) if drawn > sampling.n else None
        self._prompt_renderer = LogprobRenderer(tokenizer)
        self._prompt_entries: list[TokenLogprobs] = []
        self._awaits_prompt_logprobs = sampling.prompt_logprobs is not None
        self._cached_known = False
        self._ready: deque[Delta] = deque()

    @property
    def completion_tokens(self) -> list[int]:
        """Tokens generated so far, by choice."""
        return [choice.tokens for choice in self._choices]

    async def __aenter__(self) -> GenerationStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> GenerationStream:
        return self

    async def __anext__(self) -> Delta:
        while self._awaits_prompt_logprobs or not self._ready:
            if not await self._receive():
                break
        if not self._ready:
            self.close()
            raise StopAsyncIteration
        return self._ready.popleft()

    async def beams(self) -> AsyncIterator[list[Beam]]:
        """The best `n` beams so far after each step of a search, best first; each list replaces the one before. For a
        call with `show_beams`; there are none for any other.

        Ends when the search does: iteration over the stream then yields its answers. A reader that is slower than the
        search misses steps. Raises as iteration does.
        """
        while not self._ready and await self._receive():
            if self._beams and self._beam_reader is not None:
                beams, self._beams = self._beams, []
                yield await self._workers.run(self._beam_reader.read, beams)

    async def _receive(self) -> bool:
        """Take in what the engine has said since the last time. False if it has said everything."""
        try:
            outputs = await anext(self._source)
        except StopAsyncIteration:
            if self._awaits_prompt_logprobs:
                await self._render_prompt_logprobs()
            return False
        except Unavailable:
            self._end(FinishReason.ERROR)
            raise
        self._take(outputs)
        if self._awaits_prompt_logprobs and len(self._prompt_entries) >= len(self.prompt_ids) - 1:
            await self._render_prompt_logprobs()
        return True

    def close(self) -> None:
        """Abort every choice that still runs. Any number of calls."""
        self._end(FinishReason.ABORT)

    def abort(self) -> None:
        """End every choice that still runs; unlike `close`, its reader hears of it as of any other ending."""
        for choice in self._choices:
            if choice.finish_reason is None:
                self._tell(choice.advance([], [], FinishReason.ABORT, None))
        self.close()

    def _take(self, outputs: Sequence[SequenceOutput]) -> None:
        for arrived in _by_choice(outputs):
            self._note(arrived)
            choice = self._choices[arrived[0].choice]
            if choice.finish_reason is not None:  # aborted while this was on its way
                continue
            delta = self._advance(choice, arrived)
            if delta is None:
                continue
            self._tell(delta)
            if delta.finish_reason is not None and all(choice.finish_reason is not None for choice in self._choices):
                self.close()

    def _tell(self, delta: Delta) -> None:
        self._ready += (delta,) if self._best_of is None else self._best_of.add(delta)

    def _note(self, arrived: Sequence[SequenceOutput]) -> None:
        """What outputs say beside their tokens."""
        for output in arrived:
            if output.finish_reason is FinishReason.ERROR:
                self._end(FinishReason.ERROR)
                kind = BadRequest if output.refused else EngineError
                raise kind(output.error or "The engine failed on this request.")
            if output.choice == 0:
                self._prompt_entries += output.prompt_logprobs
            if self._beam_reader is not None:
                self._ticket.close()  # its choices speak only at the end, but it runs
                self._beams = output.beams or self._beams
            if output.cached_tokens is not None and not self._cached_known:
                self._cached_known = True
                self.cached_tokens = output.cached_tokens
            if output.scheduled_time is not None and self._clock is not None:
                self._clock.scheduled(output.scheduled_time)

    def _advance(self, choice: Choice, arrived: Sequence[SequenceOutput]) -> Delta | None:
        last = arrived[-1]
        token_ids, logprobs = last.token_ids, last.logprobs
        if len(arrived) > 1:
            token_ids = list(chain.from_iterable(output.token_ids for output in arrived))
            logprobs = list(chain.from_iterable(output.logprobs for output in arrived))
        if not token_ids and last.finish_reason is None:
            return None
        self._ticket.started(choice.index)
        if token_ids and self._clock is not None:
            self._clock.tokens(choice.index, len(token_ids))
        delta = choice.advance(token_ids, logprobs, last.finish_reason, last.stop_reason)
        if delta.finish_reason is not None and last.finish_reason is None:
            self._source.abort(choice.index)  # a stop string ended it, which the engine cannot know
        return delta if self._beam_reader is None else self._beam_reader.answer(delta, last)

    async def _render_prompt_logprobs(self) -> None:
        self._awaits_prompt_logprobs = False
        rendered = await self._workers.run(self._prompt_renderer.run, self._prompt_entries, self.prompt_ids[:1])
        self.prompt_logprobs = [None, *rendered]

    def _end(self, reason: FinishReason) -> None:
        """Let everything go. Choices that have not finished end with `reason`."""
        self._source.close()
        self._ticket.close()
        if self._clock is not None:
            reasons = [choice.finish_reason or reason for choice in self._choices]
            self._clock.finished(reasons, self.completion_tokens, cached_tokens=self.cached_tokens)


def _by_choice(outputs: Sequence[SequenceOutput]) -> Iterable[Sequence[SequenceOutput]]:
    if len(outputs) == 1:  # the usual case: a token of the only choice
        return (outputs,)
    by_choice: dict[int, list[SequenceOutput]] = {}
    for output in outputs:
        by_choice.setdefault(output.choice, []).append(output)
    return by_choice.values()
