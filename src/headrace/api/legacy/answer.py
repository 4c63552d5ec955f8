"""Writes what /generate answers: all texts so far, each with the prompt in front."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from headrace.api.merge import WholeChoice
from headrace.api.wire import Wire, encode
from headrace.service import GenerationStream


class Texts(Wire, kw_only=True):
    text: list[str]


def whole(prompt: str, results: Sequence[WholeChoice]) -> bytes:
    """`results` by choice."""
    return encode(Texts(text=[prompt + result.text for result in results]))


async def growing(prompt: str, stream: GenerationStream) -> AsyncGenerator[bytes, None]:
    """All texts, each time that one has grown; at least once."""
    texts = [prompt] * stream.n
    told = False
    async for delta in stream:
        texts[delta.choice] += delta.text
        if delta.text:
            told = True
            yield encode(Texts(text=texts))
    if not told:
        yield encode(Texts(text=texts))


async def searching(prompt: str, stream: GenerationStream) -> AsyncGenerator[bytes, None]:
    """The best beams after each step of a search, then its answers."""
    async for beams in stream.beams():
        yield encode(Texts(text=[prompt + beam.text for beam in beams]))
    texts = [prompt] * stream.n
    async for delta in stream:
        texts[delta.choice] += delta.text
    yield encode(Texts(text=texts))
