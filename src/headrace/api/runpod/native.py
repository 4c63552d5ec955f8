"""The native output format: an object for the whole answer, or one a chunk, with all choices and the usage so far."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from msgspec import UNSET, Struct, UnsetType

from headrace.api.openai.logprobs import CompletionLogprobsWriter
from headrace.api.openai.wire import CompletionLogprobs
from headrace.api.runpod.growth import ChunkGrowth
from headrace.service import Delta, PositionLogprobs


class NativeChoice(Struct):
    """What one choice adds. `tokens` has one text a token event; texts may be empty.

    `logprobs`, as a completion has them, are there if the job asked for them; the official workers leave them out.
    """

    tokens: list[str]
    logprobs: CompletionLogprobs | UnsetType = UNSET


class NativeUsage(Struct):
    """Tokens of the prompt, and tokens generated so far, of all choices together."""

    input: int
    output: int


class NativeOutput(Struct):
    choices: list[NativeChoice]
    usage: NativeUsage


class _Choice:
    """What has come of one choice since it was last written."""

    def __init__(self, logprobs: int | None) -> None:
        self._logprobs = None if logprobs is None else CompletionLogprobsWriter(logprobs, as_ids=False)
        self.texts: list[str] = []
        self.positions: list[PositionLogprobs] = []

    def write(self, *, joined: bool) -> NativeChoice:
        tokens = ["".join(self.texts)] if joined else self.texts
        logprobs = UNSET if self._logprobs is None else self._logprobs.write(self.positions)
        self.texts, self.positions = [], []
        return NativeChoice(tokens, logprobs)


class NativeWriter:
    """Writes the deltas of one prompt's `n` choices.

    `prompt_tokens` is the prompt's length. `logprobs`: alternatives to show at each token, None for no
    log-probabilities at all.
    """

    def __init__(self, *, n: int, prompt_tokens: int, logprobs: int | None) -> None:
        self._choices = [_Choice(logprobs) for _ in range(n)]
        self._prompt_tokens = prompt_tokens
        self._generated = 0

    async def whole(self, deltas: AsyncIterator[Delta]) -> NativeOutput:
        """One text a choice."""
        async for delta in deltas:
            for event in _events(delta):
                self._take(delta.choice, event)
        return self._write(joined=True)

    async def chunks(self, deltas: AsyncIterator[Delta], growth: ChunkGrowth) -> AsyncGenerator[NativeOutput, None]:
        """The choices share the count of events that fills a chunk."""
        sizes = growth.sizes()
        left = next(sizes)
        async for delta in deltas:
            for event in _events(delta):
                self._take(delta.choice, event)
                left -= event.tokens
                if left == 0:
                    yield self._write(joined=False)
                    left = next(sizes)
        if any(choice.texts for choice in self._choices):
            yield self._write(joined=False)

    def _take(self, choice: int, event: _Event) -> None:
        self._choices[choice].texts.append(event.text)
        self._choices[choice].positions += event.positions
        self._generated += event.tokens

    def _write(self, *, joined: bool) -> NativeOutput:
        choices = [choice.write(joined=joined) for choice in self._choices]
        return NativeOutput(choices, NativeUsage(self._prompt_tokens, self._generated))


@dataclass(frozen=True, slots=True)
class _Event:
    """A text and its token, or, with `tokens` 0, a text that was held back and comes without one."""

    text: str
    tokens: int
    positions: list[PositionLogprobs]


def _events(delta: Delta) -> list[_Event]:
    """A delta of several tokens has one text, which the last of them gets: text is held back at other times as well."""
    count = len(delta.token_ids)
    if count == 0:
        return [_Event(delta.text, 0, [])] if delta.text else []
    texts = [""] * (count - 1) + [delta.text]
    return [_Event(text, 1, delta.logprobs[place : place + 1]) for place, text in enumerate(texts)]
